"""Held-out sentence pairs: what is translated and compared."""

from __future__ import annotations

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


def evenly(count: int, most: int | None) -> list[int]:
    """Return at most ``most`` of ``count`` positions, spread evenly and always the same."""
    if most is None or count <= most:
        return list(range(count))
    return [index * count // most for index in range(most)]
