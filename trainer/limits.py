"""The restart budget and the deadline of a job, counted from its starts.

Every restart counts, a preemption too. The deadline counts the time the starts ran, not what lies between them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from mtft.cluster_config import NAMESPACE, ClusterConfig
from mtft.errors import MtftError
from mtft.runs import Attempt, parse_time
from trainer.attempts import KILLED, ended_at
from trainer.processes import Stop, Stopped
from trainer.reasons import signal_name


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What bounds one start of a job.

    Where a person starts every attempt there is no budget, and the time counts from this start.

    Attributes:
        job: name of the job.
        cluster: has the budget and the deadline.
        retried: which starts count: those since this retry.
        attended: a person starts every attempt.
        stop: ends this start when its time is over.
    """

    job: str
    cluster: ClusterConfig
    retried: str | None
    attended: bool
    stop: Stop

    def refusal(self, starts: Sequence[Attempt]) -> str | None:
        """Say why the job may not start again after these starts, all of which ended; else set the deadline."""
        if self.attended:
            minutes = self.cluster.deadline_minutes
            self.stop.deadline = None if minutes is None else time.monotonic() + 60 * minutes
            return None
        spent = spent_budget(starts, self.cluster, self.retried)
        if spent is None:
            return self.past_deadline(starts, None)
        memory = ", and a larger cluster.memory_gib if memory ran out" if may_lack_memory(starts) else ""
        return f"{spent}; {self._advice('max_restarts', memory)}"

    def past_deadline(self, starts: Sequence[Attempt], sign: datetime | None) -> str | None:
        """Say that the time of the starts is over, the last of them alive at ``sign``; else set the deadline."""
        left = seconds_left(starts, self.cluster, self.retried, sign)
        if left is not None and left <= 0:
            return self.deadline_text()
        self.stop.deadline = None if left is None else time.monotonic() + left
        return None

    def deadline_text(self) -> str:
        """Say that the deadline passed, and what can be done."""
        passed = f"deadline passed: cluster.deadline_minutes is {self.cluster.deadline_minutes}"
        return passed if self.attended else f"{passed}; {self._advice('deadline_minutes')}"

    def reading(self) -> AbstractContextManager[None]:
        """Let a stop signal or the deadline end what reads data or weights for minutes."""

        def error() -> MtftError:
            if self.stop.deadline_passed:
                return MtftError(self.deadline_text())
            return Stopped(f"stopped by {signal_name(self.stop.signals[0])} while data and base were read")

        return self.stop.ending(error)

    def _advice(self, bound: str, beside: str = "") -> str:
        place = f" -n {namespace}" if (namespace := os.environ.get(NAMESPACE)) else ""
        return (
            f"`mtft-launch retry {self.job}{place}` goes on with a fresh budget, "
            f"so does a larger cluster.{bound}: set it{beside}, delete the job and send it again (`helm upgrade`)"
        )


def spent_budget(starts: Iterable[Attempt], cluster: ClusterConfig, retried: str | None) -> str | None:
    """Say why the job may not start again: ``max_restarts`` restarts follow the first start. None: it may."""
    made = _counted(starts, retried)
    if len(made) <= cluster.max_restarts:
        return None
    return (
        f"restart budget spent: {len(made)} attempts, cluster.max_restarts is {cluster.max_restarts}; "
        f"last: {made[-1].reason or KILLED}"
    )


def why_ended(starts: Sequence[Attempt]) -> str:
    """Say why the last of these starts ended, to the next one's log."""
    reason = starts[-1].reason or KILLED
    silent = may_lack_memory(starts) and "cluster.memory_gib" not in reason
    return f"the attempt before ended: {reason}{'; if memory ran out, a larger cluster.memory_gib helps' * silent}"


def may_lack_memory(starts: Sequence[Attempt]) -> bool:
    """Whether the last start ended by SIGKILL, with which the kernel ends who takes more memory than there is."""
    reason = (starts[-1].reason if starts else None) or ""
    return reason == KILLED or "killed by SIGKILL" in reason or "killed by the kernel" in reason


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
    ran = sum((ended_at(each, sign) - parse_time(each.started)).total_seconds() for each in _counted(starts, retried))
    return 60 * cluster.deadline_minutes - ran


def _counted(starts: Iterable[Attempt], retried: str | None) -> list[Attempt]:
    return [each for each in starts if each.retried == retried]
