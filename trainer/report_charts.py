"""Curves of the report, as positions in percent that the template turns into inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from trainer.report_files import Metrics, Point, points
from trainer.report_scores import direction_text

# Points kept of a line: about one per pixel of the widest screen a chart fills.
MOST_POINTS = 800
# Markers are drawn on lines of at most this many points.
_MOST_MARKERS = 60
_TICKS = 5

Tick = tuple[float, str]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a chart.

    Attributes:
        name: what the legend says.
        path: SVG path data in a square of 1000 x 1000, y downwards.
        markers: (x, y, tooltip) in percent; empty where there are too many points.
    """

    name: str
    path: str
    markers: list[tuple[float, float, str]]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart over optimizer steps; ticks are (percent from the left or the top, label)."""

    title: str
    unit: str
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What a chart shows; ``low`` and ``high`` are values the y axis must reach."""

    title: str
    unit: str
    lines: dict[str, list[Point]]
    label: Callable[[float], str] = field(default="{:,.10g}".format)
    low: float = math.inf
    high: float = -math.inf


def charts(metrics: Metrics) -> list[Chart]:
    """Return the charts there is data for."""
    train, dev = metrics.train, metrics.dev
    names = sorted({name for line in dev for name in line.get("directions") or {}})
    plans = [
        _Plan(
            title="Loss",
            unit="nats per target token",
            lines={
                "dev NLL": points(dev, "nll"),
                "train NLL": points(train, "nll"),
                "train loss (label-smoothed)": points(train, "loss"),
            },
        ),
        _Plan(
            title="Dev chrF",
            unit="points",
            lines={direction_text(name): points(dev, "directions", name, "chrf") for name in names},
        ),
        _Plan(
            title="Learning rate",
            unit="",
            lines={"learning rate": points(train, "lr")},
            label=_short_power,
            low=0,
        ),
        _Plan(
            title="Speed",
            unit="target tokens per second",
            lines={"target tokens/s": points(train, "tokens_per_second")},
            low=0,
        ),
        _Plan(
            title="Real-token share",
            unit="of all positions; the rest is padding",
            lines={"real-token share": points(train, "real_token_share")},
            label="{:.0%}".format,
            low=0,
            high=1,
        ),
        _Plan(
            title="Gradient norm", unit="before clipping", lines={"gradient norm": points(train, "grad_norm")}, low=0
        ),
    ]
    last = max((line["step"] for line in train + dev), default=0)
    return [_chart(plan, last or 1) for plan in plans if any(plan.lines.values())]


def thin(line: list[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most ``most`` points: the lowest and highest of equal stretches, so no spike is lost."""
    if len(line) <= most:
        return line
    stretches = most // 2
    kept = []
    for number in range(stretches):
        stretch = line[len(line) * number // stretches : len(line) * (number + 1) // stretches]
        ends = {min(stretch, key=_value), max(stretch, key=_value)}
        kept += sorted(ends)
    return kept


def nice_step(low: float, high: float, ticks: int = _TICKS) -> float:
    """Return 1, 2, 2.5 or 5 times a power of ten that divides a range into about ``ticks`` parts."""
    rough = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def _chart(plan: _Plan, last: int) -> Chart:
    lines = {name: thin(line) for name, line in plan.lines.items() if line}
    values = [_value(point) for line in lines.values() for point in line]
    low, high, step = _range(min(plan.low, *values), max(plan.high, *values))
    marks = [low + step * number for number in range(round((high - low) / step) + 1)]

    def place(point: Point) -> Point:
        return point[0] / last, (high - point[1]) / (high - low)

    return Chart(
        title=plan.title,
        unit=plan.unit,
        curves=[_curve(name, line, place, plan.label) for name, line in lines.items()],
        x_ticks=_step_ticks(last),
        y_ticks=[(100 * place((0, mark))[1], plan.label(mark)) for mark in marks],
    )


def _range(low: float, high: float) -> tuple[float, float, float]:
    """Widen a range to whole steps; return it and the step."""
    if low == high:
        half = abs(low) / 2 or 0.5
        low, high = low - half, high + half
    step = nice_step(low, high)
    # Rounded first: 0.3 / 0.1 is a little less than 3.
    return step * math.floor(round(low / step, 9)), step * math.ceil(round(high / step, 9)), step


def _step_ticks(last: int) -> list[Tick]:
    step = max(1.0, nice_step(0, last, 4))
    return [(100 * step * number / last, f"{step * number:,.0f}") for number in range(int(last / step) + 1)]


def _curve(name: str, line: list[Point], place: Callable[[Point], Point], label: Callable[[float], str]) -> Curve:
    placed = [place(point) for point in line]
    path = "M" + "L".join(f"{1000 * x:.1f} {1000 * y:.1f}" for x, y in placed)
    markers = [
        (round(100 * x, 2), round(100 * y, 2), f"step {step:,.0f}: {label(value)}")
        for (x, y), (step, value) in zip(placed, line, strict=True)
    ]
    return Curve(name=name, path=path, markers=markers if len(markers) <= _MOST_MARKERS else [])


def _short_power(value: float) -> str:
    """Return 1.5e-4 for 0.00015."""
    digits, _, power = f"{value:.3e}".partition("e")
    return f"{float(digits):g}e{int(power)}" if value else "0"


def _value(point: Point) -> float:
    return point[1]
