"""Leakage in the report: which held-out rows the training rows show too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtft.leakage import remarks
from mtft.split import HELD_OUT
from trainer.pairs import set_words

_KINDS = {
    "pair": "source and target, in one training row",
    "source": "source, as a source",
    "target": "target, as a target",
    "swapped": "a side, as the other side",
}
_TONES = {"grave": "bad", "slight": "fair"}


@dataclass(frozen=True, kw_only=True)
class SplitLeakage:
    """The leakage of dev or test, as shown.

    Attributes:
        name: the split, or the guard set.
        rows: how many rows are held out in it; None where that was not counted.
        counts: what of a row was met in training, how often as it stands, and how often but for case and punctuation.
        remarks: tone and text of what that means.
    """

    name: str
    rows: int | None
    counts: list[tuple[str, int, int]]
    remarks: list[tuple[str, str]]


def splits(leakage: Mapping[str, Any]) -> list[SplitLeakage]:
    """Return test, dev and the guard sets, as far as ``leakage`` of ``finished.json`` has them."""
    order = [*reversed(HELD_OUT), *sorted(set(leakage) - set(HELD_OUT))]
    return [_split(set_words(name), leakage[name]) for name in order if name in leakage]


def warning(finished: Mapping[str, Any]) -> str | None:
    """Return the grave remark on test, whose scores the verdict rests on; None where there is none."""
    counts = finished.get("leakage", {}).get("test")
    found = remarks("test", counts["loose"]) if counts else []
    return next((text for weight, text in found if weight == "grave"), None)


def _split(name: str, counts: Mapping[str, Mapping[str, int]]) -> SplitLeakage:
    exact, loose = counts["exact"], counts["loose"]
    return SplitLeakage(
        name=name,
        rows=loose.get("rows"),
        counts=[(text, exact[kind], loose[kind]) for kind, text in _KINDS.items()],
        remarks=[(_TONES[weight], text) for weight, text in remarks(name, loose)],
    )
