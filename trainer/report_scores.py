"""Scores of the report: base beside tuned, per direction."""

from __future__ import annotations

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
}


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One line of a score table, as shown.

    Attributes:
        name: metric or error.
        lower: whether lower is better.
        base, tuned: the values with their unit.
        delta: tuned - base with its sign.
        trend: good, bad or same.
        p: p-value of the paired bootstrap, or a dash where it was not run.
        ends: both values on a scale of 0 to 100, the smaller first.
        tuned_at: the tuned value on that scale.
    """

    name: str
    lower: bool
    base: str
    tuned: str
    delta: str
    trend: str
    p: str
    ends: tuple[float, float]
    tuned_at: float


@dataclass(frozen=True, kw_only=True)
class DirectionScores:
    """All scores of one direction; ``n`` counts test sentences."""

    name: str
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
    return f"Better means: {gain} {metric} in every direction, with p ≤ {policy['max_p']:g}."


def directions(scores: dict[str, Any]) -> list[DirectionScores]:
    """Return the tables of every direction that was scored before and after."""
    base, tuned = scores.get("base", {}), scores.get("tuned", {})
    comparison = scores.get("comparison", {})
    return [
        DirectionScores(
            name=direction_text(name),
            n=tuned[name].get("n", 0),
            scores=_rows(METRICS, base[name], tuned[name], comparison.get(name, {})),
            errors=_rows(_RATES, base[name], tuned[name], {}),
            signatures={METRICS.get(key, key): text for key, text in tuned[name].get("signatures", {}).items()},
        )
        for name in sorted(base.keys() & tuned.keys())
    ]


def _rows(
    names: dict[str, str], base: dict[str, Any], tuned: dict[str, Any], comparison: dict[str, Any]
) -> list[ScoreRow]:
    shown = [key for key in names if key in base and key in tuned]
    return [_row(key, names[key], base[key], tuned[key], comparison.get(key, {}).get("p_value")) for key in shown]


def _row(key: str, name: str, base: float, tuned: float, p_value: float | None) -> ScoreRow:
    if key in _RATES:
        base, tuned = 100 * base, 100 * tuned
    unit = "%" if key in _RATES else ""
    digits = 1 if key in _RATES else 2
    delta = round(tuned - base, digits)
    lower = key in _LOWER_IS_BETTER
    places = [min(100.0, max(0.0, value)) for value in (base, tuned)]
    return ScoreRow(
        name=name,
        lower=lower,
        base=f"{base:.{digits}f}{unit}",
        tuned=f"{tuned:.{digits}f}{unit}",
        delta=f"{delta:+.{digits}f}".replace("-", "−") if delta else "±0",
        trend="same" if not delta else "good" if (delta < 0) == lower else "bad",
        p="–" if p_value is None else f"{p_value:.4f}" if p_value >= 0.0001 else "< 0.0001",
        ends=(min(places), max(places)),
        tuned_at=places[1],
    )
