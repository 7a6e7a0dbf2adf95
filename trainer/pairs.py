"""Held-out sentence pairs: what is translated and compared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
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


TEST = "test"
GUARD = "guard."  # what the name of a guard set's test set begins with


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Sentence pairs that systems are compared on: test, or a guard set.

    Attributes:
        name: ``test``, or ``guard.<its name in gate.guard_sets>``; what its file in ``eval/`` begins with.
        pairs: the sentences.
    """

    __test__ = False  # pytest would take it for a test

    name: str
    pairs: Sequence[Pair]

    @property
    def guard(self) -> str | None:
        """Its name among the guard sets; None for test."""
        return None if self.name == TEST else self.name.removeprefix(GUARD)

    def sentences(self) -> Counter[str]:
        """Return how many there are of each direction, by its name."""
        return Counter(direction_name(pair.direction) for pair in self.pairs)


Outputs = Mapping[str, Sequence[str]]
"""The translations of one system by the name of the test set, each in the order of its pairs."""


def direction_name(direction: Direction) -> str:
    """Return ``en-fr`` for ("en", "fr")."""
    return "-".join(direction)


def set_words(name: str) -> str:
    """Return what a test set is called in a sentence: ``test``, or ``guard set NAME``."""
    return name.replace(GUARD, "guard set ", 1) if name.startswith(GUARD) else name


def sampled(count: int, most: int | None) -> list[int]:
    """Return at most ``most`` of ``count`` positions, drawn at random but always the same ones, in order.

    Every n-th row would be one direction only where a file alternates between two.
    """
    if most is None or count <= most:
        return list(range(count))
    return sorted(random.Random(0).sample(range(count), most))


def sampled_by(groups: Sequence[str], most: int | None) -> list[int]:
    """Return at most ``most`` positions as :func:`sampled` does, from every group in proportion and at least one.

    Where there are more groups than ``most``, one of each is taken all the same.
    """
    chosen: list[int] = []
    for group in sorted(set(groups)):
        at = [position for position, its in enumerate(groups) if its == group]
        share = None if most is None else max(1, most * len(at) // len(groups))
        chosen += [at[index] for index in sampled(len(at), share)]
    return sorted(chosen)
