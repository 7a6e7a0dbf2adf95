"""Held-out sentence pairs: what is translated and compared."""

from __future__ import annotations

import random
from dataclasses import dataclass

Direction = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One held-out sentence pair, in the direction it is translated.

    Attributes:
        source: text to translate.
        reference: the human translation.
        direction: (source, target) languages.
        document: its ``pub_number``, or None.
    """

    source: str
    reference: str
    direction: Direction
    document: str | None


def direction_name(direction: Direction) -> str:
    """Return ``en-fr`` for ("en", "fr")."""
    return "-".join(direction)


def sampled(count: int, most: int | None) -> list[int]:
    """Return at most ``most`` of ``count`` positions, drawn at random but always the same ones, in order.

    Every n-th row would be one direction only where a file alternates between two.
    """
    if most is None or count <= most:
        return list(range(count))
    return sorted(random.Random(0).sample(range(count), most))
