"""The restart budget and the deadline of a job; both count from its record on the volume."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mtft.runs import Attempt, Job, now, parse_time


def begin(job: Job) -> Job:
    """Return the record with an attempt that starts now."""
    return job.with_attempt(Attempt(started=now()))


def close(job: Job, exit_code: int, reason: str) -> Job:
    """Return the record with its running attempt ended now."""
    ended = job.with_last_attempt(ended=now(), exit_code=exit_code, reason=reason)
    return replace(ended, finished=job.finished or exit_code == 0)


def spent_budget(job: Job, max_restarts: int) -> str | None:
    """Say why the job may not start again: ``max_restarts`` restarts follow the first start. None: it may."""
    if len(job.attempts) <= max_restarts:
        return None
    last = job.attempts[-1].reason or "killed without a word"
    return f"restart budget spent: {len(job.attempts)} attempts, cluster.max_restarts is {max_restarts}; last: {last}"


def deadline(job: Job, minutes: int | None) -> datetime | None:
    """Return when the job's time is over, counted from its first start; None: never."""
    return None if minutes is None else parse_time(job.first_started) + timedelta(minutes=minutes)


def seconds_left(end: datetime | None) -> float | None:
    """Return the seconds until a deadline, below 0 when it has passed; None without one."""
    return None if end is None else (end - datetime.now(UTC)).total_seconds()
