"""Waiting for jobs: one change after the other until they have ended, and meanwhile why they do not run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import ClusterError
from launcher.feed import Feed
from launcher.resources import JOBS
from launcher.selection import choose
from launcher.states import JobState, job_state
from launcher.watching import ended_state, states_of
from mtft import exit_codes

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Object = Mapping[str, Any]

# Seconds until it is first asked why jobs do not run, and between two such questions.
FIRST_ASKED = 5.0
ASKED_EVERY = 15.0
_LONGEST_TAKE = 3600.0  # seconds; for ever is more than a lock can wait
_DELETED: dict[str, Any] = {"phase": "gone", "reason": "deleted by somebody before it ended"}
_WAITS = ("Queued", "Suspended", "Pending", "Restarting")


def wait_for(
    cluster: Cluster,
    names: Sequence[str],
    timeout: float | None = None,
    *,
    report: Callable[[JobState], None] = lambda _: None,
    sent: bool = False,
) -> dict[str, int]:
    """Watch jobs until all have ended and return name -> exit code of the launcher.

    A job ends when the operator says so; one that is deleted meanwhile counts as failed, one that has not ended
    after ``timeout`` seconds as timed out.

    Args:
        cluster: where they are.
        names: jobs, batches or models; without any, all jobs of the namespace.
        timeout: seconds; None: for ever.
        report: told every change of a job's state, and of why it does not run.
        sent: the names are of jobs that this process has just sent: one that is not there was deleted since.

    Raises:
        InputError: a name is unknown or means several jobs.
        ClusterError: the cluster refuses, or cannot be reached any more.
    """
    until = None if timeout is None else time.monotonic() + timeout
    jobs = cluster.list(JOBS, selector=labels.SELECTOR)
    waiting = _Waiting(cluster, _sent(names, jobs.items) if sent else choose(names, jobs.items), report)
    if sent:
        waiting.miss(names)
    waiting.begin(jobs.items)
    feed = Feed(cluster)
    if waiting.left:
        feed.watch(JOBS, labels.SELECTOR, after=jobs)
        # A job that was there before has had the time to find a node.
        feed.repeat(waiting.reasons, first=FIRST_ASKED if sent else 0.0, every=ASKED_EVERY)
    try:
        while waiting.left:
            seconds = _LONGEST_TAKE if until is None else min(_LONGEST_TAKE, until - time.monotonic())
            if seconds <= 0:
                break
            thing = feed.take(seconds)
            if isinstance(thing, JobState):
                waiting.explain(thing)
            elif thing is not None:
                with feed.dealing_with(thing):
                    waiting.take(*thing)
    finally:
        feed.stopped.set()
    return waiting.codes


def _sent(names: Sequence[str], jobs: Sequence[Object]) -> list[Object]:
    return [job for job in jobs if job["metadata"]["name"] in names]


def reasons_of(cluster: Cluster, jobs: Sequence[Object]) -> list[JobState]:
    """Return the states of those jobs that wait for something that is known; nothing where it cannot be asked."""
    idle = [job for job in jobs if job_state(job, None, now=datetime.now(UTC)).state in _WAITS]
    try:
        states = states_of(cluster, idle) if idle else []
    except ClusterError:
        return []  # the watch beside this tells what is the matter
    return [state for state in states if state.state in _WAITS and state.reason]


def gist(state: JobState) -> tuple[str, str]:
    """Return what makes a state worth telling anew; the cluster's own words in parentheses change by themselves."""
    return state.state, (state.reason or "").partition(" (")[0]


class _Waiting:
    """The jobs that are waited for, and what was told of them."""

    def __init__(self, cluster: Cluster, jobs: Sequence[Object], report: Callable[[JobState], None]) -> None:
        self.cluster, self.report = cluster, report
        self.left = {job["metadata"]["name"]: job for job in jobs}
        self.codes = dict.fromkeys(self.left, exit_codes.WAIT_TIMED_OUT)
        self._told: dict[str, tuple[str, str]] = {}

    def miss(self, names: Sequence[str]) -> None:
        """Tell which of the jobs that were sent are gone."""
        for name in (each for each in names if each not in self.left):
            place = self.cluster.namespace
            self.report(JobState(name=name, namespace=place, model=None, batch=None, state="Deleted", **_DELETED))
            self.codes[name] = exit_codes.FAILED

    def begin(self, jobs: Sequence[Object]) -> None:
        """Take the jobs as they are; what is left of those that have ended already is asked for at once."""
        here = [job for job in jobs if job["metadata"]["name"] in self.left]
        over = [job for job in here if job_state(job, None, now=datetime.now(UTC)).ended]
        known = {state.name: state for state in states_of(self.cluster, over)} if over else {}
        for job in here:
            self.take("ADDED", job, known.get(job["metadata"]["name"]))

    def take(self, kind: str, job: Object, known: JobState | None = None) -> None:
        """Take one change of a job; its state, where that is known, is not asked for again."""
        name = job["metadata"]["name"]
        if name not in self.left or self.left[name]["metadata"]["uid"] != job["metadata"]["uid"]:
            return
        self.left[name] = job
        state = known or ended_state(self.cluster, job) or job_state(job, None, now=datetime.now(UTC))
        if kind == "DELETED" and state.launcher_code is None:
            state = replace(state, state="Deleted", **_DELETED)
        if self._told.get(name, ("", ""))[0] != state.state:
            self._told[name] = gist(state)
            self.report(state)
        if (code := state.launcher_code) is not None:
            self.codes[name] = code
            del self.left[name]

    def reasons(self) -> list[JobState]:
        """Return the states of jobs that wait for something; called by another thread."""
        return reasons_of(self.cluster, list(self.left.values()))

    def explain(self, state: JobState) -> None:
        """Tell why a job does not run, unless that was told or has just changed."""
        told = self._told.get(state.name, ("", ""))
        if state.name in self.left and told[0] == state.state and told != gist(state):
            self._told[state.name] = gist(state)
            self.report(state)
