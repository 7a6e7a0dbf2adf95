"""Text for stand-ins: generated sentence pairs, or both sides of given data files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from demo.corpus import Pair, generate
from mtft.rows import Row, read_rows


def generated_pairs(count: int) -> list[Pair]:
    """Return ``count`` distinct sentence pairs, half from each domain of the demo's generator."""
    return generate("assessment", count // 2) + generate("aquaculture", count - count // 2)


def lines_of(pairs: Sequence[Pair]) -> list[str]:
    """Return all sentences of both languages."""
    return [sentence for pair in pairs for sentence in (pair.source_en, pair.target_fr)]


def read_lines(path: Path) -> list[str]:
    """Return both sides of every good row of a data file.

    Raises:
        InputError: the file is missing or unreadable.
    """
    return [side for row in read_rows([path]) if isinstance(row, Row) for side in (row.source, row.target)]
