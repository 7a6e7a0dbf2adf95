"""The restart budget and the deadline of a job, counted from the starts in its record on the volume.

Every restart counts, a preemption too. The deadline counts the time the starts ran, not what lies between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from mtft.cluster_config import ClusterConfig
from mtft.runs import TIME_FORMAT, Attempt, Job, RunPaths, now, parse_time

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


def close(job: Job, exit_code: int, reason: str) -> Job:
    """Return the record with its running attempt ended now."""
    ended = job.with_last_attempt(ended=now(), exit_code=exit_code, reason=reason)
    return replace(ended, finished=job.finished or exit_code == 0)


def settle(job: Job, sign: datetime | None) -> Job:
    """Return the record with an attempt that was killed without a word ended at its last sign of life."""
    if not job.attempts or job.attempts[-1].ended is not None:
        return job
    ended = _until(job.attempts[-1], sign).strftime(TIME_FORMAT)
    return job.with_last_attempt(ended=ended, reason=KILLED)


def fold(job: Job, early: Iterable[Attempt]) -> Job:
    """Return the record with the starts that came to no attempt; one that stands there already is not added again."""
    known = {each.started for each in job.attempts}
    return replace(job, attempts=(*job.attempts, *(each for each in early if each.started not in known)))


def last_sign_of_life(paths: RunPaths) -> datetime | None:
    """Return when the supervisor of node 0 last wrote down what it saw; None: never."""
    try:
        return datetime.fromtimestamp(paths.console.stat().st_mtime, UTC)
    except OSError:
        return None


def spent_budget(starts: Iterable[Attempt], cluster: ClusterConfig, retried: str | None) -> str | None:
    """Say why the job may not start again: ``max_restarts`` restarts follow the first start. None: it may."""
    made = _counted(starts, retried)
    if len(made) <= cluster.max_restarts:
        return None
    return (
        f"restart budget spent: {len(made)} attempts, cluster.max_restarts is {cluster.max_restarts}; "
        f"last: {made[-1].reason or KILLED}"
    )


def may_lack_memory(starts: Sequence[Attempt]) -> bool:
    """Whether the last start ended by SIGKILL, with which the kernel ends who takes more memory than there is."""
    reason = (starts[-1].reason if starts else None) or ""
    return reason == KILLED or "killed by SIGKILL" in reason


def seconds_left(
    starts: Iterable[Attempt], cluster: ClusterConfig, retried: str | None, sign: datetime | None
) -> float | None:
    """Return the seconds the job may still run, 0 or less when its time is over; None without a deadline.

    Args:
        starts: of the job.
        cluster: has the deadline.
        retried: the budget that counts.
        sign: the last sign of life, up to which an attempt counts that has not ended.
    """
    if cluster.deadline_minutes is None:
        return None
    ran = sum((_until(each, sign) - parse_time(each.started)).total_seconds() for each in _counted(starts, retried))
    return 60 * cluster.deadline_minutes - ran


def _counted(starts: Iterable[Attempt], retried: str | None) -> list[Attempt]:
    return [each for each in starts if each.retried == retried]


def _until(attempt: Attempt, sign: datetime | None) -> datetime:
    """Return when an attempt ended; never before it started, whatever the clock of the volume says."""
    end = parse_time(attempt.ended) if attempt.ended else sign
    started = parse_time(attempt.started)
    return max(end, started) if end else started
