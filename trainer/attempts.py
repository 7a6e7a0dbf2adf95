"""The starts of a job in its record on the volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mtft.runs import TIME_FORMAT, Attempt, Job, RunPaths, parse_time

KILLED = "killed without a word"
"""Reason of a start that wrote none."""


def said_beside(config: Path, name: str) -> str | None:
    """Return what a launcher wrote beside a job's configuration file, such as when it was last retried, or None."""
    try:
        return config.with_name(name).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def begin(job: Job, retried: str | None, started: str) -> Job:
    """Return the record with an attempt of the start of that time, on the budget of this retry."""
    return job.with_attempt(Attempt(started=started, retried=retried))


def after(started: str, seconds: float) -> str:
    """Return when a start ended that ran so long; the clock of then may have been set meanwhile."""
    return (parse_time(started) + timedelta(seconds=round(seconds))).strftime(TIME_FORMAT)


def close(job: Job, seconds: float, exit_code: int, reason: str) -> Job:
    """Return the record with its running attempt ended after so many seconds."""
    end = after(job.attempts[-1].started, seconds)
    ended = job.with_last_attempt(ended=end, exit_code=exit_code, reason=reason)
    return replace(ended, finished=job.finished or exit_code == 0)


def settle(job: Job, sign: datetime | None) -> Job:
    """Return the record with an attempt that was killed without a word ended at its last sign of life."""
    if not job.attempts or job.attempts[-1].ended is not None:
        return job
    ended = ended_at(job.attempts[-1], sign).strftime(TIME_FORMAT)
    return job.with_last_attempt(ended=ended, reason=KILLED)


def fold(job: Job, early: Iterable[Attempt]) -> Job:
    """Return the record with the starts that came to no attempt; one that stands there already is not added again."""
    known = {each.started for each in job.attempts}
    return replace(job, attempts=(*job.attempts, *(each for each in early if each.started not in known)))


def last_sign_of_life(paths: RunPaths) -> datetime | None:
    """Return when the supervisor of node 0 last wrote down what it saw; None: never.

    A moment that is still to come, as a clock that was ahead writes it, is taken for now.
    """
    try:
        return min(datetime.fromtimestamp(paths.console.stat().st_mtime, UTC), datetime.now(UTC))
    except OSError:
        return None


def ended_at(attempt: Attempt, sign: datetime | None) -> datetime:
    """Return when an attempt ended, or gave its last sign of life; never before it started, whatever a clock says."""
    end = parse_time(attempt.ended) if attempt.ended else sign
    started = parse_time(attempt.started)
    return max(end, started) if end else started


def is_over(job: Job, number: int) -> bool:
    """Whether an attempt has ended, as far as the record tells."""
    return len(job.attempts) > number or job.attempts[number - 1].ended is not None
