"""Prepared data: token ids in memory-mapped Arrow, raw held-out rows, and what was counted.

A store is one folder that is complete or absent::

    train.arrow dev.arrow test.arrow    columns of `FEATURES`
    dev.jsonl test.jsonl                the raw rows, line i of them is ``row`` i of the Arrow file
    rejected.jsonl                      every dropped line: file, line, reason, excerpt
    stats.json                          counts, and size and SHA-256 of every other file
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from mtft import files
from mtft.errors import Retry, unread
from mtft.rows import Row
from mtft.split import SPLITS, SplitName

if TYPE_CHECKING:
    from trainer.encoding import Encoded

FORMAT = 1
"""Version of the store's layout and of what decides its content; part of its key."""

STATS = "stats.json"
MANIFEST = "manifest"
"""Field of ``stats.json``: size and SHA-256 of every other file."""

FEATURES = Features(
    {
        "row": Value("int32"),
        "source_ids": List(Value("int32")),
        "target_ids": List(Value("int32")),
        "direction": Value("int8"),
    }
)

_BATCH_ROWS = 1000
_BATCH_CHARACTERS = 1 << 20


class PairEncoder(Protocol):
    """What turns text into token ids; `trainer.encoding.Encoder` in earnest."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text could give other ids."""

    def encode(self, sources: list[str], targets: list[str], source_lang: str, target_lang: str) -> Encoded:
        """Encode pairs of one direction."""


@dataclass(frozen=True)
class Prepared:
    """Prepared data, ready to be read by any number of processes."""

    train: Dataset
    dev: Dataset
    test: Dataset
    folder: Path
    stats: dict[str, Any]


def open_prepared(folder: Path) -> Prepared:
    """Open a store, memory-mapped; files that were cut since the preparation checked them are seen.

    Raises:
        InputError: its files cannot be understood.
        Retry: one is gone or was cut; the next preparation builds the store anew.
    """
    if found := damage(folder, hashed=False):
        raise Retry(f"{found}; the next start builds the tokenised data anew")
    try:
        stats = json.loads((folder / STATS).read_text(encoding="utf-8"))
        train, dev, test = (Dataset.from_file(str(folder / f"{name}.arrow")) for name in SPLITS)
    except (OSError, ValueError) as error:
        raise unread(
            f"{folder}: the prepared data cannot be read ({error}); remove the folder to rebuild it", error
        ) from error
    return Prepared(train=train, dev=dev, test=test, folder=folder, stats=stats)


def damage(folder: Path, *, hashed: bool) -> str | None:
    """Say what of a store is not as it was written; None where everything is.

    Args:
        folder: of the store.
        hashed: compare SHA-256 too, for which everything is read.

    Raises:
        OSError: the volume does not answer.
    """
    stats = folder / STATS
    try:
        return files.damage(folder, json.loads(stats.read_text(encoding="utf-8"))[MANIFEST], hashed=hashed)
    except FileNotFoundError:
        return f"{stats}: is missing"
    except KeyError:
        return f"{stats}: does not list the files beside it, as earlier versions wrote it"
    except (ValueError, TypeError, AttributeError) as error:
        return f"{stats}: cannot be understood ({error})"


class SplitWriter:
    """Encodes and writes the rows of one split, a batch at a time.

    Args:
        folder: the store under construction.
        name: the split; raw rows are kept of dev and test.
        directions: (source, target) pairs; ``direction`` is an index into them.
    """

    def __init__(
        self, folder: Path, name: SplitName, encoder: PairEncoder, directions: Sequence[tuple[str, str]]
    ) -> None:
        self._encoder = encoder
        self._directions = list(directions)
        self._pending: list[Row] = []
        self._characters = 0
        self._arrow = ArrowWriter(features=FEATURES, path=str(folder / f"{name}.arrow"))
        self._raw = None if name == "train" else (folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n")
        self.rows = 0
        self.per_direction = [0] * len(self._directions)
        self.truncated = self.unknown = self.pieces = self.source_tokens = self.target_tokens = 0

    def add(self, row: Row) -> None:
        """Take one row; its direction is one of the model's."""
        self._pending.append(row)
        self._characters += len(row.source) + len(row.target)
        if self._raw:
            self._raw.write(raw_line(row))
        if len(self._pending) >= _BATCH_ROWS or self._characters >= _BATCH_CHARACTERS:
            self._flush()

    def close(self) -> None:
        """Write what is pending and finish the files."""
        self._flush()
        self._arrow.finalize()
        self._arrow.stream.close()
        if self._raw:
            self._raw.close()

    def stats(self) -> dict[str, Any]:
        """Return the counts; lengths are in tokens, special tokens included."""
        names = [f"{source}-{target}" for source, target in self._directions]
        return {
            "rows": self.rows,
            "directions": dict(zip(names, self.per_direction, strict=True)),
            "truncated": self.truncated,
            "unknown_fraction": self.unknown / max(1, self.pieces),
            "mean_source_length": self.source_tokens / max(1, self.rows),
            "mean_target_length": self.target_tokens / max(1, self.rows),
        }

    def _flush(self) -> None:
        rows, self._pending, self._characters = self._pending, [], 0
        if not rows:
            return
        sources: list[list[int]] = [[]] * len(rows)
        targets: list[list[int]] = [[]] * len(rows)
        direction_of = [self._directions.index((row.source_lang, row.target_lang)) for row in rows]
        for direction, (source_lang, target_lang) in enumerate(self._directions):
            chosen = [index for index, its in enumerate(direction_of) if its == direction]
            if not chosen:
                continue
            encoded = self._encoder.encode(
                [rows[i].source for i in chosen], [rows[i].target for i in chosen], source_lang, target_lang
            )
            for index, source, target in zip(chosen, encoded.source_ids, encoded.target_ids, strict=True):
                sources[index], targets[index] = source, target
            self._count(direction, len(chosen), encoded)
        numbers = list(range(self.rows, self.rows + len(rows)))
        self._arrow.write_batch(
            {"row": numbers, "source_ids": sources, "target_ids": targets, "direction": direction_of}
        )
        self.rows += len(rows)

    def _count(self, direction: int, rows: int, encoded: Encoded) -> None:
        self.per_direction[direction] += rows
        self.truncated += encoded.truncated
        self.unknown += encoded.unknown
        self.pieces += encoded.pieces
        self.source_tokens += sum(map(len, encoded.source_ids))
        self.target_tokens += sum(map(len, encoded.target_ids))


def raw_line(row: Row) -> str:
    """Return a row as one line of the data format."""
    fields = {"source": row.source, "target": row.target, "source_lang": row.source_lang}
    if row.pub_number is not None:
        fields["pub_number"] = row.pub_number
    return json.dumps(fields, ensure_ascii=False) + "\n"


def publish(built: Path, folder: Path) -> None:
    """Make a finished store visible under its name, durable and in one step; one that is there already stays.

    Raises:
        Retry: it is not complete; an invisible store is never published.
    """
    open_prepared(built)
    files.sync_files(built)
    try:
        built.rename(folder)
    except OSError:
        if not (folder / STATS).is_file():
            raise
    files.sync_folder(folder.parent)
