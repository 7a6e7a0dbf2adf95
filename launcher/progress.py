"""How far a run is, read from the lines its pod prints.

The trainer prints one JSON line per logged step and a few plain lines (trainer/progress.py, trainer/supervisor.py).
Every pod is one attempt, so the first lines say which attempt it is and where it continues, the last how far it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from launcher.log_lines import STAMP

_ATTEMPT = re.compile(r"job \S+, run (?P<run>\S+), attempt (?P<attempt>\d+)$")
_BEFORE = re.compile(r"the attempt before ended: (?P<reason>.+)$")
_CONTINUED = re.compile(r"continuing from step-(?P<step>\d+) of (?P<total>\d+) steps$")
_PLAN = re.compile(r".* trained weights, .* rows, (?P<total>\d+) steps of about ")
_SCORED = re.compile(r"step (?P<step>\d+) (?P<split>base_test|dev|test): ")
_FOLLOWER = re.compile(r"node \d+: waiting for node 0$")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the log says so far; None where it says nothing.

    Attributes:
        phase: what the trainer is doing, in a word or two.
        step, total: optimizer steps done and planned.
        percent: share of the steps done, 0 to 100.
        eta_s: seconds left when the last step was logged, without the final evaluation.
        loss: nats per real target token, mean since the step logged before.
        tokens_per_second: real target tokens a second over all processes.
        attempt: which start of the job this is, counted from 1.
        run_id: name of the run's folder.
        resumed_at: step of the checkpoint this attempt continues from.
        at: time of the last step.
        ended_before: why the attempt before this one ended; None for the first.
        unread: why the log could not be read, so nothing of this is known; None: it could.
    """

    phase: str = "starting"
    step: int | None = None
    total: int | None = None
    percent: float | None = None
    eta_s: float | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    attempt: int | None = None
    run_id: str | None = None
    resumed_at: int | None = None
    at: datetime | None = None
    unread: str | None = None
    ended_before: str | None = None


STARTED_AGAIN = "started again, as the attempt before ended: "
"""Begins the reason of a job that runs, and of which no more is to be said."""


def read_progress(lines: Iterable[str]) -> Progress:
    """Return how far a pod is; ``lines`` are the first and the last of its log, in order, with or without times."""
    progress = Progress()
    for line in lines:
        at, text = split_time(line.rstrip("\r\n"))
        progress = _after_step(progress, at, text) if text.startswith("{") else _after_words(progress, text)
    return progress


def split_time(line: str) -> tuple[datetime | None, str]:
    """Return the time kubelet put before a line, None where there is none, and the line itself."""
    if not (found := STAMP.match(line)):
        return None, line
    second, fraction, zone, text = found.groups()
    try:
        # Python reads microseconds; the kubelet writes nanoseconds.
        return datetime.fromisoformat(f"{second}.{(fraction or '').ljust(6, '0')[:6]}{zone}"), text
    except ValueError:
        return None, line


def _after_step(progress: Progress, at: datetime | None, text: str) -> Progress:
    try:
        values: dict[str, Any] = json.loads(text)
        step, total = int(values["step"]), int(values["total"])
        return replace(
            progress,
            phase="training" if step < total else "scoring test",
            step=step,
            total=total,
            percent=_finite(values["percent"]),
            eta_s=_finite(values["eta_s"]),
            loss=_finite(values["loss"]),
            tokens_per_second=_finite(values["tokens_per_second"]),
            at=at,
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return progress  # a line of something else, or cut off by the tail


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no finite number")
    return number


def _after_words(progress: Progress, text: str) -> Progress:
    if found := _ATTEMPT.match(text):
        return replace(progress, phase="preparing", attempt=int(found["attempt"]), run_id=found["run"])
    if found := _BEFORE.match(text):
        return replace(progress, ended_before=found["reason"])
    if _FOLLOWER.match(text):
        return replace(progress, phase="waiting for node 0")
    if found := _CONTINUED.match(text):
        step, total = int(found["step"]), int(found["total"])
        percent = round(100 * step / total, 1) if total else None
        return replace(progress, phase="training", step=step, total=total, percent=percent, resumed_at=step)
    if found := _PLAN.match(text):
        return replace(progress, phase="training", step=0, total=int(found["total"]), percent=0.0)
    if found := _SCORED.match(text):
        if found["split"] == "test":
            return replace(progress, phase="finishing")
        return replace(progress, phase=progress.phase if found["split"] == "dev" else "training")
    return progress
