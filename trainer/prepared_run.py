"""A prepared run as every rank opens it: configuration, card, paths and data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtft import files
from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard
from mtft.runs import RunPaths
from mtft.settings import load_document, resolve
from trainer.guards import guard_file, leaked
from trainer.hub import at_recorded_commit
from trainer.pairs import GUARD, TEST, Pair, TestSet, sampled_by
from trainer.prepared_data import Prepared, open_prepared

# What shapes the weights; evaluation, checkpoints, storage and placement may change between two starts.
_SHAPING = {"model", "data", "method", "lora", "train"}


@dataclass(frozen=True, kw_only=True)
class PreparedRun:
    """Everything a rank needs to know before it loads the model."""

    config: Config
    card: ModelCard
    paths: RunPaths
    prepared: Prepared

    @property
    def training_settings(self) -> dict[str, Any]:
        """The settings and the prepared data that a checkpoint depends on, by dotted name."""
        parts = self.config.model_dump(mode="json", include=_SHAPING)
        settings = {"method": parts.pop("method"), "prepared data": self.prepared.folder.name}
        return settings | {f"{part}.{name}": value for part, its in parts.items() for name, value in its.items()}

    @property
    def stats(self) -> dict[str, Any]:
        """The stats of the prepared data, with the leakage of the guard sets beside that of dev and test."""
        its = self.prepared.stats
        return {**its, "leakage": {**its["leakage"], **leaked(self.paths, self.config)}}

    def pairs(self, split: str, most: int | None) -> list[Pair]:
        """Return at most ``most`` held-out pairs of ``dev`` or ``test``, a fixed sample in the order of the file.

        Rows whose source language the model does not translate are not in the file.
        """
        return self._pairs_in(self.prepared.folder / f"{split}.jsonl", most)

    def test_sets(self) -> list[TestSet]:
        """Return what systems are compared on: test, then the guard sets; ``eval.max_test_rows`` of each."""
        most = self.config.eval.max_test_rows
        guards = [
            TestSet(name=f"{GUARD}{name}", pairs=self._pairs_in(guard_file(self.paths, name), most))
            for name in sorted(self.config.gate.guard_sets)
        ]
        return [TestSet(name=TEST, pairs=self.pairs(TEST, most)), *guards]

    def _pairs_in(self, file: Path, most: int | None) -> list[Pair]:
        lines = file.read_text(encoding="utf-8").split("\n")[:-1]
        every = [json.loads(line) for line in lines]
        rows = [every[index] for index in sampled_by([row["source_lang"] for row in every], most)]
        target_of = dict(self.card.directions)
        return [
            Pair(
                source=row["source"],
                reference=row["target"],
                direction=(row["source_lang"], target_of[row["source_lang"]]),
                document=row.get("pub_number"),
            )
            for row in rows
        ]


def remember_prepared(paths: RunPaths, prepared: Prepared) -> None:
    """Write down which prepared data a run uses, relative to the storage root."""
    files.write_json(paths.prepared, {"folder": str(prepared.folder.relative_to(paths.root))})


def open_run(folder: Path) -> PreparedRun:
    """Open a run whose data is prepared.

    Raises:
        InputError: it is not prepared, or its prepared data is gone.
    """
    paths = RunPaths.of(folder)
    resolved = resolve(load_document(paths.config))
    try:
        pointer = json.loads(paths.prepared.read_text(encoding="utf-8"))
        prepared = open_prepared(paths.root / pointer["folder"])
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing: the run was not prepared, or cache/ was emptied") from error
    return PreparedRun(
        config=at_recorded_commit(paths, resolved.config), card=resolved.card, paths=paths, prepared=prepared
    )
