"""Scores of the report: base and published run beside the tuned model, per test set and direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LANGUAGES = {"en": "English", "fr": "French"}
METRICS = {"bleu": "BLEU", "chrf": "chrF", "ter": "TER"}

_LOWER_IS_BETTER = {"ter", "empty", "copy", "repetition", "off_target"}
_RATES = {
    "empty": "Empty",
    "copy": "Copy of the source",
    "repetition": "Repetition",
    "off_target": "Other language",
    "numbers": "Numbers kept",
    "entities": "Names and units kept",
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """How the tuned value compares with that of one rival.

    Attributes:
        delta: tuned - rival with its sign.
        trend: good, bad or same.
        p: p-value of the comparison, or a dash where there is none.
    """

    delta: str
    trend: str
    p: str


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One line of a score table, as shown.

    Attributes:
        name: metric or error.
        lower: whether lower is better.
        base, published, tuned: the values with their unit; published is None where it was not compared with.
        base_range, tuned_range: 95 % confidence intervals, where they were drawn.
        over_base, over_published: the change against each; over_published is None where published is.
        ends: the values of base and tuned model on a scale of 0 to 100, the smaller first.
        tuned_at, published_at: places on that scale.
    """

    name: str
    lower: bool
    base: str
    base_range: str | None
    published: str | None
    tuned: str
    tuned_range: str | None
    over_base: Change
    over_published: Change | None
    ends: tuple[float, float]
    tuned_at: float
    published_at: float | None


@dataclass(frozen=True, kw_only=True)
class DirectionScores:
    """All scores of one direction of test, or of the guard set ``guard``; ``n`` counts sentences."""

    name: str
    guard: str | None
    n: int
    scores: list[ScoreRow]
    errors: list[ScoreRow]
    signatures: dict[str, str]


def direction_text(direction: str) -> str:
    """Return ``English → French`` for ``en-fr``."""
    return " → ".join(LANGUAGES.get(code, code) for code in direction.split("-"))


def policy_text(policy: dict[str, Any]) -> str | None:
    """Say in words what the gate asks for; None when it is not known."""
    if not {"metric", "min_delta", "max_p"} <= policy.keys():
        return None
    metric = METRICS.get(policy["metric"], policy["metric"])
    gain = f"at least {policy['min_delta']:g} points more" if policy["min_delta"] else "more"
    guards = " or a guard set" if policy.get("guard_sets") else ""
    least = policy.get("min_sentences", 1)
    few = f" Fewer than {least} sentences of a direction are too few to tell either by." if least > 1 else ""
    return (
        f"Better means: {gain} {metric} in every direction, with p ≤ {policy['max_p']:g}. Worse means: less of it in "
        f"a direction of test{guards}, or more faulty translations, by more than chance over all comparisons.{few}"
    )


def directions(finished: dict[str, Any]) -> list[DirectionScores]:
    """Return the tables of every direction that was scored before and after: of test, then of the guard sets."""
    test = {**finished.get("scores", {}), "published": finished.get("published")}
    found = _directions(test, None)
    for name, scores in finished.get("guard_sets", {}).items():
        found += _directions(scores, name)
    return found


def _directions(scores: dict[str, Any], guard: str | None) -> list[DirectionScores]:
    base, tuned = scores.get("base", {}), scores.get("tuned", {})
    rival = scores.get("published") or {}

    def rows(names: dict[str, str], direction: str) -> list[ScoreRow]:
        values = base[direction], rival.get("scores", {}).get(direction, {}), tuned[direction]
        compared = [each.get("comparison", {}).get(direction, {}) for each in (scores, rival)]
        shown = [key for key in names if key in base[direction] and key in tuned[direction]]
        return [
            _row(key, names[key], [each.get(key) for each in values], [each.get(key, {}) for each in compared])
            for key in shown
        ]

    return [
        DirectionScores(
            name=direction_text(name),
            guard=guard,
            n=tuned[name].get("n", 0),
            scores=rows(METRICS, name),
            errors=rows(_RATES, name),
            signatures={METRICS.get(key, key): text for key, text in tuned[name].get("signatures", {}).items()},
        )
        for name in sorted(base.keys() & tuned.keys())
    ]


def _row(key: str, name: str, values: Sequence[float | None], compared: Sequence[dict[str, Any]]) -> ScoreRow:
    """Return one line: of base, published run and tuned model, and of how base and published run compare."""
    factor, unit, digits = (100, "%", 1) if key in _RATES else (1, "", 2)
    base, published, tuned = (None if value is None else factor * value for value in values)
    assert base is not None and tuned is not None
    lower = key in _LOWER_IS_BETTER
    over_base, over_published = compared

    def change(rival: float, comparison: dict[str, Any]) -> Change:
        delta, p_value = round(tuned - rival, digits), comparison.get("p_value")
        return Change(
            delta=f"{delta:+.{digits}f}".replace("-", "−") if delta else "±0",
            trend="same" if not delta else "good" if (delta < 0) == lower else "bad",
            p="–" if p_value is None else f"{p_value:.4f}" if p_value >= 0.0001 else "< 0.0001",
        )

    return ScoreRow(
        name=name,
        lower=lower,
        base=f"{base:.{digits}f}{unit}",
        base_range=_range(over_base.get("rival_interval")),
        published=None if published is None else f"{published:.{digits}f}{unit}",
        tuned=f"{tuned:.{digits}f}{unit}",
        tuned_range=_range(over_base.get("interval")),
        over_base=change(base, over_base),
        over_published=None if published is None else change(published, over_published),
        ends=(_place(min(base, tuned)), _place(max(base, tuned))),
        tuned_at=_place(tuned),
        published_at=None if published is None else _place(published),
    )


def _place(value: float) -> float:
    return min(100.0, max(0.0, value))


def _range(interval: Sequence[float] | None) -> str | None:
    return None if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"
