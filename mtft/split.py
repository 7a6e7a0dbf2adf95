"""Hold out whole documents: the same ones for the same seed, whatever the order of rows and files.

A document is all rows of one ``pub_number``. A row without one belongs with every row of the same English side (but
for case, punctuation and spacing), so that duplicates and both directions of a pair stay together.

Documents are hashed into ``UNITS`` units, which are held out or kept as a whole. So the memory is fixed whatever the
number of documents; two documents that fall into one unit merely stay together.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import compress
from typing import Literal

from mtft.errors import InputError
from mtft.rows import Row
from mtft.text import loose_form

HeldOut = Literal["dev", "test"]
SplitName = Literal["train", "dev", "test"]
HELD_OUT: tuple[HeldOut, ...] = ("dev", "test")
SPLITS: tuple[SplitName, ...] = ("train", *HELD_OUT)

UNITS = 1 << 20


class Documents:
    """Counts the rows of every unit; the first of two passes over the data."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.rows = array("Q", bytes(8 * UNITS))

    def add(self, row: Row) -> None:
        """Count one row."""
        self.rows[self.unit(row)] += 1

    def unit(self, row: Row) -> int:
        """Return the unit of a row's document: a uniform hash that depends on the seed."""
        if row.pub_number is not None:
            name = f"{self._seed} document {row.pub_number}"
        else:
            english = row.source if row.source_lang == "en" else row.target
            name = f"{self._seed} row {loose_form(english) or english}"
        digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") % UNITS


@dataclass(frozen=True)
class Split:
    """Tells where a row goes.

    Attributes:
        rows: number of rows in each split.
    """

    documents: Documents
    place: bytearray
    rows: dict[SplitName, int]

    def __call__(self, row: Row) -> SplitName:
        """Return the split of a row's document."""
        return SPLITS[self.place[self.documents.unit(row)]]


def plan_split(documents: Documents, fraction: float, held_out: Sequence[HeldOut] = HELD_OUT) -> Split:
    """Choose the documents that are held out.

    Documents are taken in the order of their hash while they fit into ``fraction`` of all rows; at least one is taken
    and at least one is kept. With ``held_out`` both dev and test they are halved by rows, and at least two are taken
    where there are three.

    Raises:
        InputError: there are fewer than two documents.
    """
    rows = documents.rows
    units = array("L", compress(range(UNITS), rows))
    if len(units) < 2:
        raise InputError(
            f"the training data hold {len(units)} document(s) (pub_number): none can be held out; "
            "give data.dev and data.test, or data with more than one document"
        )
    chosen = _choose(units, rows, fraction, at_least=min(len(held_out), len(units) - 1))
    place = bytearray(UNITS)
    placed: dict[SplitName, int] = dict.fromkeys(held_out, 0)
    for unit in sorted(chosen, key=lambda unit: (-rows[unit], unit)):
        fewest = min(placed, key=lambda split: placed[split])
        place[unit] = SPLITS.index(fewest)
        placed[fewest] += rows[unit]
    kept = sum(rows) - sum(placed.values())
    return Split(documents, place, {"train": kept, **placed})


def _choose(units: array[int], rows: array[int], fraction: float, *, at_least: int) -> list[int]:
    target = fraction * sum(rows)
    chosen: list[int] = []
    taken = 0
    for unit in units:
        if taken + rows[unit] <= target and len(chosen) < len(units) - 1:
            chosen.append(unit)
            taken += rows[unit]
    held = set(chosen)
    rest = (unit for unit in units if unit not in held)
    smallest = nsmallest(max(1, at_least - len(chosen)), rest, key=lambda unit: (rows[unit], unit))
    if len(chosen) < at_least:
        return chosen + smallest
    # All that is left overshoots: one more only where it lands nearer, the smallest at that.
    nearer = taken + rows[smallest[0]] - target < target - taken
    return chosen + smallest[:1] if nearer and len(chosen) < len(units) - 1 else chosen
