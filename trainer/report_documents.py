"""Documents of the report: those whose sentences came out worst."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from trainer.report_scores import direction_text

SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document in one direction.

    Attributes:
        name: its ``pub_number``.
        direction: in words.
        n: its test sentences.
        base, tuned: mean sentence chrF, 0 to 100.
    """

    name: str
    direction: str
    n: int
    base: float
    tuned: float

    @property
    def gain(self) -> float:
        """Tuned - base, chrF points as shown."""
        return round(self.tuned, 1) - round(self.base, 1)


def worst(rows: Sequence[dict[str, Any]]) -> list[Document]:
    """Return the documents with the lowest mean sentence chrF of the tuned model, the lowest first.

    Nothing where fewer than two documents can be told apart.
    """
    sentences = defaultdict(list)
    for row in rows:
        if row.get("pub_number"):
            sentences[str(row["pub_number"]), row["direction"]].append(row)
    if len({name for name, _ in sentences}) < 2:
        return []
    found = [
        Document(
            name=name,
            direction=direction_text(direction),
            n=len(its),
            base=fmean(float(row["base_chrf"]) for row in its),
            tuned=fmean(float(row["tuned_chrf"]) for row in its),
        )
        for (name, direction), its in sentences.items()
    ]
    return sorted(found, key=lambda it: (it.tuned, it.name, it.direction))[:SHOWN]
