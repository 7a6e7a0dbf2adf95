"""Report sentences of dev, test and guard sets that the training rows show too, on either side and in either direction.

Sides are compared within a language: the English side of a held-out row with the English side of every training row,
whether that is its source or its target. So a pair trained in the other direction is found as well. ``exact`` is equal
text; ``loose`` ignores case, punctuation and spacing, and contains ``exact``.

Only 64-bit hashes of the held-out rows are held in memory: first `hold` every held-out row, then `see` every training
row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from mtft.rows import EXCERPT_CHARACTERS, Row
from mtft.split import HELD_OUT
from mtft.text import loose_form

EXAMPLES = 20
Weight = Literal["grave", "slight"]

# As what a held-out text was met; bits of one byte. A pair counts as met on the source side.
_SOURCE, _TARGET = 1, 2
_BITS = (_SOURCE, _TARGET, _SOURCE)
_MASK = (1 << 64) - 1
_FILTER_SHIFT = 64 - 22


class Leakage:
    """Counts held-out rows that were also met in training.

    Args:
        sets: names of what is held out.
    """

    def __init__(self, sets: Sequence[str] = HELD_OUT) -> None:
        self._sets = sets
        self._matchers = {"exact": _Matcher(lambda text: text, sets), "loose": _Matcher(loose_form, sets)}
        self._examples: list[dict[str, str]] = []

    def hold(self, name: str, row: Row) -> None:
        """Remember a row of a held-out set."""
        for matcher in self._matchers.values():
            matcher.hold(name, row)

    def see(self, row: Row) -> None:
        """Compare one training row with everything held out."""
        shown = set()
        for match, matcher in self._matchers.items():
            for side, text in matcher.see(row):
                if len(self._examples) < EXAMPLES and side not in shown:
                    shown.add(side)
                    where = f"{row.file}:{row.line}"
                    excerpt = text[:EXCERPT_CHARACTERS]
                    self._examples.append({"match": match, "train": where, "side": side, "text": excerpt})

    def report(self) -> dict[str, Any]:
        """Return the counts of held-out rows and up to 20 examples.

        Per set and match: ``rows``, all that are held out; ``source`` and ``target``, those whose source or target
        was met in training on the same side; ``swapped``, those of which a side was met on the other side; ``any``,
        those with at least one of these; ``pair``, those of which both sides were met in one training row, in either
        direction.
        """
        report: dict[str, Any] = {
            each: {match: matcher.count(each) for match, matcher in self._matchers.items()} for each in self._sets
        }
        return report | {"examples": self._examples}


def remarks(name: str, loose: Mapping[str, int]) -> list[tuple[Weight, str]]:
    """Say what the loose counts of a set mean for its scores, the gravest first; nothing where nothing was met."""
    pairs, alone = loose["pair"], loose["any"] - loose["pair"]
    of = f" of {loose['rows']:,}" if "rows" in loose else ""
    found: list[tuple[Weight, str]] = []
    if pairs:
        text = f"{pairs:,}{of} {name} rows are training rows too, but for case and punctuation"
        found.append(("grave", f"{text}: their scores say too much"))
    if alone:
        text = f"{alone:,}{of} {name} rows share a source or a target with training rows, but not the pair"
        found.append(("slight", f"{text}: their scores may say a little too much"))
    return found


class _Matcher:
    """One way to compare texts.

    The hashes of a set's rows lie one after another: source, target, pair. `_index` is all of them, sorted, with
    one byte each for what was met; `_filter` answers most look-ups without a search.
    """

    def __init__(self, form: Callable[[str], str], sets: Sequence[str]) -> None:
        self._form = form
        self._rows: dict[str, array[int]] = {name: array("Q") for name in sets}
        self._index: array[int] = array("Q")
        self._met = bytearray()
        self._filter = bytearray(1 << (64 - _FILTER_SHIFT))

    def hold(self, name: str, row: Row) -> None:
        if self._index:
            raise RuntimeError("hold() after see()")
        self._rows[name].extend(self._keys(row))

    def see(self, row: Row) -> Iterator[tuple[str, str]]:
        """Mark what a training row shows; yield side and text of those met for the first time."""
        if not self._index:
            self._freeze()
        texts = (("source", row.source), ("target", row.target), None)
        for key, bit, text in zip(self._keys(row), _BITS, texts, strict=True):
            if key and self._filter[key >> _FILTER_SHIFT] and (position := self._find(key)) is not None:
                if text and not self._met[position]:
                    yield text
                self._met[position] |= bit

    def count(self, name: str) -> dict[str, int]:
        counts = dict.fromkeys(("rows", "source", "target", "swapped", "pair", "any"), 0)
        keys = iter(self._rows[name])
        for source, target, pair in zip(*(map(self._met_as, keys),) * 3, strict=True):
            counts["rows"] += 1
            counts["source"] += bool(source & _SOURCE)
            counts["target"] += bool(target & _TARGET)
            counts["swapped"] += bool(source & _TARGET or target & _SOURCE)
            counts["pair"] += bool(pair)
            counts["any"] += bool(source or target)
        return counts

    def _freeze(self) -> None:
        self._index = array("Q", sorted(key for keys in self._rows.values() for key in keys))
        self._met = bytearray(len(self._index))
        for key in self._index:
            self._filter[key >> _FILTER_SHIFT] = 1

    def _find(self, key: int) -> int | None:
        position = bisect_left(self._index, key)
        return position if position < len(self._index) and self._index[position] == key else None

    def _met_as(self, key: int) -> int:
        position = self._find(key) if key else None
        return 0 if position is None else self._met[position]

    def _keys(self, row: Row) -> tuple[int, int, int]:
        """Hash source, target and the undirected pair; 0 where nothing is left to compare.

        Python's own hash of text differs between processes: nothing of it outlives this one.
        """
        source, target = self._form(row.source), self._form(row.target)
        source_key = hash((row.source_lang, source)) & _MASK if source else 0
        target_key = hash((row.target_lang, target)) & _MASK if target else 0
        if not (source and target):
            return source_key, target_key, 0
        pair = (min(source_key, target_key), max(source_key, target_key))
        return source_key, target_key, hash(pair) & _MASK
