"""Sentences of the report: the most improved, the most degraded, and others drawn at random."""

from __future__ import annotations

import difflib
import heapq
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.report_scores import direction_text

TOTAL, IMPROVED, DEGRADED = 20, 7, 7
_SEED = 0
# A row may be 1 MB long; comparing words takes time quadratic in their number.
_LONGEST = 1200

_WORD = re.compile(r"\s*(?:\w+|[^\w\s])")


@dataclass(frozen=True)
class Piece:
    """A stretch of a translation: ``same`` as the reference, ``other``, or words ``missing`` here."""

    kind: Literal["same", "other", "missing"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Output:
    """One system's translation, compared with the reference; no pieces where it is blank.

    ``chrf`` is of this sentence, 0 to 100.
    """

    pieces: list[Piece]
    chrf: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One test sentence; ``gain`` is tuned - base in chrF points."""

    direction: str
    source_lang: str
    target_lang: str
    document: str | None
    source: str
    reference: str
    base: Output
    tuned: Output
    gain: float


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The chosen sentences in titled groups, and how many of all went up, stayed and went down."""

    groups: list[tuple[str, list[Sample]]]
    total: int
    improved: int
    unchanged: int
    degraded: int


def choose(rows: Sequence[dict[str, Any]]) -> Samples | None:
    """Choose ``TOTAL`` sentences to show, or all; the random ones are the same on every call. None without rows."""
    if not rows:
        return None
    up = [row for row in rows if row["gain"] > 0]
    down = [row for row in rows if row["gain"] < 0]
    best, worst = heapq.nlargest(IMPROVED, up, key=_gain), heapq.nsmallest(DEGRADED, down, key=_gain)
    shown = {id(row) for row in best + worst}
    others = [row for row in rows if id(row) not in shown]
    drawn = random.Random(_SEED).sample(others, min(TOTAL - len(shown), len(others)))
    groups = [("Most improved", best), ("Most degraded", worst), ("Drawn at random from the others", drawn)]
    return Samples(
        groups=[(title, [_sample(row) for row in chosen]) for title, chosen in groups if chosen],
        total=len(rows),
        improved=len(up),
        unchanged=len(rows) - len(up) - len(down),
        degraded=len(down),
    )


def compare(text: str, reference: str) -> list[Piece]:
    """Split a translation where its words differ from the reference's (longest matching blocks, difflib)."""
    ours, theirs = _WORD.findall(text), _WORD.findall(reference)
    matcher = difflib.SequenceMatcher(
        a=[word.strip() for word in theirs], b=[word.strip() for word in ours], autojunk=False
    )
    return [piece for opcode in matcher.get_opcodes() for piece in _pieces(opcode, ours, theirs)]


def _pieces(opcode: tuple[str, int, int, int, int], ours: list[str], theirs: list[str]) -> Iterator[Piece]:
    kind, from_theirs, to_theirs, from_ours, to_ours = opcode
    if kind == "delete":
        yield Piece("missing", "".join(theirs[from_theirs:to_theirs]).strip())
        return
    text = "".join(ours[from_ours:to_ours])
    if kind == "equal":
        yield Piece("same", text)
        return
    bare = text.lstrip()
    if bare != text:
        yield Piece("same", text[: -len(bare)])  # the mark begins at the word, not at the space before it
    yield Piece("other", bare)


def _sample(row: dict[str, Any]) -> Sample:
    source_lang, _, target_lang = row["direction"].partition("-")
    return Sample(
        direction=direction_text(row["direction"]),
        source_lang=source_lang,
        target_lang=target_lang,
        document=row.get("pub_number"),
        source=_clip(row["source"]),
        reference=_clip(row["reference"]),
        base=_output(row["base"], row["reference"], row["base_chrf"]),
        tuned=_output(row["tuned"], row["reference"], row["tuned_chrf"]),
        gain=row["gain"],
    )


def _output(text: str, reference: str, chrf: float) -> Output:
    return Output(pieces=compare(_clip(text), _clip(reference)) if text.strip() else [], chrf=chrf)


def _clip(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def _gain(row: dict[str, Any]) -> float:
    return float(row["gain"])
