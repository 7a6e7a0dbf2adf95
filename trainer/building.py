"""Build a store of prepared data.

The rows are streamed three times: to check and count them, to encode them, to compare them with what is held out.
Memory does not grow with the number of training rows; each held-out row takes about 100 bytes (the leakage report).
"""

from __future__ import annotations

import logging
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtft import files, sources
from mtft.config import Config, DataConfig
from mtft.errors import NO_ROOM, InputError
from mtft.leakage import Leakage, remarks
from mtft.models import ModelCard
from mtft.rows import Row, Tally, read_rows
from mtft.split import HELD_OUT, SPLITS, Documents, Split, SplitName, plan_split
from trainer.prepared_data import FORMAT, MANIFEST, STATS, PairEncoder, SplitWriter

_log = logging.getLogger("mtft.data")

# Estimate of what a store takes: pieces of 2 characters with 4 bytes each, and the raw rows that are held out.
_BYTES_PER_CHARACTER = 3
_BYTES_PER_ROW = 64
_BYTES_AT_LEAST = 16 << 20
_LOG_EVERY_ROWS = 100_000
_NAMES_SHOWN = 20


@dataclass(frozen=True)
class Inputs:
    """The data files of a run by split, and the SHA-256 of each; a split without files is held out of train."""

    files: dict[SplitName, list[str]]
    sha256: dict[str, str]

    @classmethod
    def of(cls, data: DataConfig) -> Inputs:
        """Find and hash the files.

        Raises:
            InputError: a file is missing, is used twice, or is not what ``data.sha256`` says.
        """
        given = {"train": data.train, "dev": data.dev, "test": data.test}
        found: dict[SplitName, list[str]] = {}
        for name in SPLITS:
            paths = given[name]
            if paths is None:
                found[name] = []
                continue
            named = [paths] if isinstance(paths, str) else paths
            found[name] = sources.expand(named)
            if note := sources.passed_over_note(sources.passed_over(named)):
                _log.info("note: data.%s: %s", name, note)
        for file, times in Counter(sources.real_path(file) for its in found.values() for file in its).items():
            if times > 1:
                raise InputError(f"{file}: used for more than one of data.train, data.dev and data.test")
        inputs = cls(found, {file: sources.file_sha256(file) for its in found.values() for file in its})
        if data.sha256 not in (None, inputs.digest("train")):
            raise InputError(
                f"data.train: its SHA-256 is {inputs.digest('train')}, but data.sha256 says {data.sha256}: "
                "these are not the data the job was made for; restore them or remove data.sha256"
            )
        return inputs

    def in_order(self) -> list[str]:
        """Return every file in the order its rows are read."""
        return [file for name in SPLITS for file in self.files[name]]

    def digest(self, split: SplitName) -> str | None:
        """Return the SHA-256 of the content of a split, None when it has no files of its own."""
        its = self.files[split]
        return sources.combined_sha256([self.sha256[file] for file in its]) if its else None


class Builder:
    """Builds one store in an empty folder."""

    def __init__(self, config: Config, card: ModelCard, encoder: PairEncoder, inputs: Inputs, folder: Path) -> None:
        self._data = config.data
        self._card = card
        self._encoder = encoder
        self._inputs = inputs
        self._folder = folder

        self._documents = Documents(self._data.split_seed)
        self._tallies = {name: Tally() for name in SPLITS}
        self._extra_fields: Counter[str] = Counter()
        self._characters = 0

        self._split: Split | None = None
        self._train_rows = 0
        self._train_rows_used = 0

    def build(self) -> None:
        """Write every file of the store, ``stats.json`` last.

        Raises:
            InputError: the data do not allow training.
        """
        self._survey()
        self._plan()
        self._check_space()
        leakage = Leakage()
        splits = self._write(leakage)
        _log.info("comparing training rows with dev and test")
        for _, row in self._rows("train"):
            leakage.see(row)
        found = leakage.report()
        for name in HELD_OUT:
            for _, text in remarks(name, found[name]["loose"]):
                _log.warning(text)
        stats = self._stats(splits, found) | {MANIFEST: files.listing(self._folder)}
        files.write_json(self._folder / STATS, stats)

    def _survey(self) -> None:
        """Read everything once: count, list what is dropped, refuse what is too bad."""
        source_langs = tuple(source for source, _ in self._card.directions)
        with (self._folder / "rejected.jsonl").open("w", encoding="utf-8", newline="\n") as rejected:
            for name in SPLITS:
                tally = self._tallies[name]
                for item in self._read(name, self._extra_fields):
                    if tally.add(item, source_langs) and isinstance(item, Row):
                        self._characters += len(item.source) + len(item.target)
                        if name == "train":
                            self._documents.add(item)
                    elif not isinstance(item, Row):
                        rejected.write(files.json_line(item.as_dict()))
                tally.check(on_bad_row=self._data.on_bad_row, max_bad_fraction=self._data.max_bad_fraction)
                if self._inputs.files[name] and not tally.accepted:
                    its = self._inputs.files[name]
                    raise InputError(
                        tally.nothing_left(f"data.{name}: no {name} rows", self._card.key, source_langs, its)
                    )

    def _plan(self) -> None:
        """Choose what is held out of the training rows, and how many of them are used."""
        missing = [name for name in HELD_OUT if not self._inputs.files[name]]
        # A given dev set leaves the test set's half of the fraction to be held out.
        fraction = self._data.dev_fraction * (1.0 if "dev" in missing else 0.5)
        self._train_rows = self._tallies["train"].accepted
        if missing and fraction > 0:
            self._split = plan_split(self._documents, fraction, missing)
            self._train_rows = self._split.rows["train"]
        self._train_rows_used = min(self._train_rows, self._data.max_samples or self._train_rows)

    def _check_space(self) -> None:
        rows = sum(tally.accepted for tally in self._tallies.values())
        used = rows - self._train_rows + self._train_rows_used
        needed = int(self._characters * used / rows) * _BYTES_PER_CHARACTER + used * _BYTES_PER_ROW + _BYTES_AT_LEAST
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise InputError(
                f"{self._folder.parent}: {free / 2**20:,.0f} MiB free, but the tokenised data take about "
                f"{needed / 2**20:,.0f} MiB; {NO_ROOM}"
            )

    def _write(self, leakage: Leakage) -> dict[SplitName, SplitWriter]:
        writers = {name: SplitWriter(self._folder, name, self._encoder, self._card.directions) for name in SPLITS}
        rows = sum(tally.accepted for tally in self._tallies.values()) - self._train_rows + self._train_rows_used
        for number, (name, row) in enumerate(self._rows(*SPLITS), 1):
            writers[name].add(row)
            if name != "train":
                leakage.hold(name, row)
            if number % _LOG_EVERY_ROWS == 0:
                _log.info("tokenised %s of %s rows", f"{number:,}", f"{rows:,}")
        for writer in writers.values():
            writer.close()
        self._check_unknown(writers)
        return writers

    def _check_unknown(self, writers: dict[SplitName, SplitWriter]) -> None:
        unknown = sum(writer.unknown for writer in writers.values())
        pieces = sum(writer.pieces for writer in writers.values())
        allowed = self._data.max_unknown_fraction
        if unknown > allowed * pieces:
            raise InputError(
                f"the tokenizer of {self._card.key} maps {unknown:,} of {pieces:,} source pieces "
                f"({unknown / pieces:.1%}) to the unknown token; data.max_unknown_fraction allows {allowed:.1%}: "
                "the text is not what this model was made for, or the checkpoint has another model's tokenizer"
            )

    def _rows(self, *wanted: SplitName) -> Iterator[tuple[SplitName, Row]]:
        """Yield the rows that are used, with their split; ``max_samples`` rows are drawn at random.

        The draw is the same in every pass (selection sampling, Knuth 3.4.2 S). Every n-th row would be one direction
        only where a file alternates between two.
        """
        source_langs = {source for source, _ in self._card.directions}
        left, wanted_left = self._train_rows, self._train_rows_used
        draw = random.Random(self._data.split_seed)
        for name in SPLITS:
            # The held-out rows of a split may stand in the training files.
            if not (name in wanted or name == "train"):
                continue
            for row in self._read(name):
                if not isinstance(row, Row) or row.source_lang not in source_langs:
                    continue
                place = self._split(row) if name == "train" and self._split else name
                if place == "train":
                    taken = draw.random() * left < wanted_left
                    left -= 1
                    wanted_left -= taken
                    if not taken:
                        continue
                if place in wanted:
                    yield place, row

    def _read(self, name: SplitName, extra_fields: Counter[str] | None = None) -> Iterator[Any]:
        its = self._inputs.files[name]
        return read_rows(its, extra_fields=extra_fields) if its else iter(())

    def _stats(self, splits: dict[SplitName, SplitWriter], leakage: dict[str, Any]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "sha256": self._inputs.digest("train"),
            "files": [
                {"split": name, "file": file, "sha256": self._inputs.sha256[file]}
                for name in SPLITS
                for file in self._inputs.files[name]
            ],
            "read": {name: tally.as_dict() for name, tally in self._tallies.items() if self._inputs.files[name]},
            "ignored_fields": dict(self._extra_fields.most_common(_NAMES_SHOWN)),
            "splits": {name: writer.stats() for name, writer in splits.items()},
            "unknown_fraction": sum(w.unknown for w in splits.values())
            / max(1, sum(w.pieces for w in splits.values())),
            "leakage": leakage,
        }
