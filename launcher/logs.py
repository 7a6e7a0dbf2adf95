"""The log of every pod of a job: as it is now, or followed over restarts, late pods and cut connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from launcher import labels, waiting
from launcher.changes import Listing
from launcher.cluster_errors import Busy, ClusterError, Invalid, NoConnection, NotFound
from launcher.feed import Feed
from launcher.job_objects import is_of, pod_count, rank_of
from launcher.log_lines import Line, Printer, merged
from launcher.pod_logs import FIRST_WAIT, MOST_IN_VAIN, Object, Wanted, has_ended, has_started, lines_of, whole_log
from launcher.pod_reasons import NODE_SILENT, answers, is_silent, waiting_reason
from launcher.resources import JOBS, PODS
from launcher.states import JobState, job_state
from launcher.waiting import gist, reasons_of

if TYPE_CHECKING:
    from launcher.changes import Manifest
    from launcher.cluster import Cluster

_LONGEST_WAIT = 10.0  # seconds between two tries to go on reading
_POLL = 0.5  # seconds; how soon Ctrl-C and the end of the job are noticed


def show(cluster: Cluster, job: Object, printer: Printer, wanted: Wanted) -> int:
    """Print what the job's pods have written so far, in the order of time; return the number of pods.

    A cut connection is taken up where it ended.

    Raises:
        ClusterError: a log cannot be read, or not to its end.
    """
    pods = [pod for pod in _pods(cluster, job) if wanted.has(pod) and has_started(pod)]
    printer.prefixed = wanted.rank is None and pod_count(job) > 1
    failed: list[ClusterError] = []

    def lines(pod: Object) -> Iterator[Line]:
        try:
            yield from whole_log(cluster, pod, wanted, printer.remark)
        except ClusterError as error:  # the other pods' are shown all the same
            failed.append(error)

    for line in merged([lines(pod) for pod in pods]):
        printer.show(line)
    if failed:
        raise failed[0]
    _tell_absent(job, pods, printer, wanted)
    return len(pods)


def _tell_absent(job: Object, pods: Sequence[Object], printer: Printer, wanted: Wanted) -> None:
    """Name the wanted pods that there is no log of; of a job without any log the caller says more."""
    meant = range(pod_count(job)) if wanted.rank is None else [wanted.rank]
    absent = sorted(set(meant) - {rank_of(pod) for pod in pods})
    if absent and (pods or wanted.rank is not None):
        which = ", ".join(f"[{rank}]" for rank in absent)
        printer.remark(f"no lines of {which}: the pod has not started, or is gone and its log with it")


def follow(
    cluster: Cluster, job: Object, printer: Printer, wanted: Wanted | None = None, *, until: float | None = None
) -> None:
    """Print every line of the job's pods as it is written, until the job has ended or a moment of the monotonic clock.

    Pods that come late, or in place of one that was lost, are read too. A cut connection is taken up where it ended.

    Raises:
        ClusterError: the cluster refuses, or cannot be reached any more.
    """
    follower = _Follower(cluster, job, printer, wanted or Wanted())
    try:
        follower.run(until)
    finally:
        follower.feed.stopped.set()


class _Follower:
    """Threads read pods and watch changes; one queue brings everything to the thread that prints."""

    def __init__(self, cluster: Cluster, job: Object, printer: Printer, wanted: Wanted) -> None:
        self.cluster, self.job, self.printer, self.wanted = cluster, job, printer, wanted
        self.feed = Feed(cluster)
        self.readers: dict[str, threading.Thread] = {}
        self.remarks: dict[str, str] = {}
        self.started: set[str] = set()
        self.told = ("", "")
        self.over = False

    def run(self, until: float | None) -> None:
        self.printer.prefixed = self.wanted.rank is None and pod_count(self.job) > 1
        self._take_job("ADDED", self.job)
        meta = self.job["metadata"]
        self.feed.watch(PODS, labels.selector(job=meta["name"]), namespace=meta["namespace"])
        # From the job that is known on: whether it was deleted, or made anew, since it was read is told too.
        known = Listing([dict(self.job)], meta["resourceVersion"])
        self.feed.watch(JOBS, labels.SELECTOR, namespace=meta["namespace"], after=known)
        self.feed.repeat(self._reasons, first=waiting.FIRST_ASKED, every=waiting.ASKED_EVERY)
        while not (self.over and not self._is_reading()):
            if until is not None and time.monotonic() >= until:
                return
            self._take(_POLL)
        while self._take(0.0):
            pass

    def _take(self, seconds: float) -> bool:
        event = self.feed.take(seconds)
        if event is None:
            return False
        if isinstance(event, Line):
            self.printer.show(event)
        elif isinstance(event, JobState):
            self._explain(event)
        elif event[1]["kind"] == "PyTorchJob":
            with self.feed.dealing_with(event):
                self._take_job(*event)
        else:
            self._take_pod(*event)
        return True

    def _take_job(self, change: str, job: Object) -> None:
        if job["metadata"]["uid"] != self.job["metadata"]["uid"] or self.over:
            return
        self.job = job
        if change == "DELETED":
            self.printer.remark(f"job {job['metadata']['name']} was deleted")
            self.over = True
        elif (state := job_state(job, None, now=datetime.now(UTC))).launcher_code is not None:
            # Its last pods may have come and gone faster than they were noticed.
            for pod in _pods(self.cluster, self.job):
                self._take_pod("ADDED", pod)
            self.printer.remark(f"job {state.name}: {state.state}")
            self.over = True

    def _take_pod(self, change: str, pod: Object) -> None:
        meta = pod["metadata"]
        if change == "DELETED" or not self.wanted.has(pod) or not is_of(pod, self.job):
            return
        if meta["uid"] in self.readers:
            self._tell_silence(pod)
            return
        if not has_started(pod):
            self._remark(meta["name"], waiting_reason(pod))
            return
        self._remark(meta["name"], "started again" if meta["name"] in self.started else "started")
        self.started.add(meta["name"])
        self.readers[meta["uid"]] = self.feed.start(lambda: self._read(pod))
        self._tell_silence(pod)

    def _tell_silence(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if is_silent(pod):
            self._remark(name, waiting_reason(pod))
        elif answers(pod) and NODE_SILENT in self.remarks.get(name, ""):
            self._remark(name, "its node answers again")

    def _is_reading(self) -> bool:
        return any(thread.is_alive() for thread in list(self.readers.values()))

    def _reasons(self) -> list[JobState]:
        return [] if self.over or self._is_reading() else reasons_of(self.cluster, [self.job])

    def _explain(self, state: JobState) -> None:
        """Tell why the job does not run, unless that was told already, or of one of its pods."""
        if gist(state) != self.told and state.reason not in self.remarks.values():
            self.told = gist(state)
            self.printer.remark(f"job {state.name}: {state.state}: {state.reason}")

    def _remark(self, pod: str, text: str | None) -> None:
        if text and self.remarks.get(pod) != text:
            self.remarks[pod] = text
            self.printer.remark(f"{pod}: {text}")

    def _read(self, pod: Object) -> None:
        """Read one pod's log to its end, however often the connection is cut."""
        meta, last, vain = pod["metadata"], "", 0
        while not self.feed.stopped.is_set() and vain < MOST_IN_VAIN:
            before, ended = last, False
            try:
                now = self.cluster.find(PODS, meta["name"], namespace=meta["namespace"])
                if now is None or now["metadata"]["uid"] != meta["uid"]:
                    return
                ended = has_ended(now)
                for line in lines_of(self.cluster, pod, self.wanted, last, follow=not ended):
                    self.feed.put(line)
                    last = line.at
                if ended and self._is_last(pod, last):
                    return
            except (NoConnection, Busy, NotFound, Invalid):
                pass  # for a while, as a rule
            except ClusterError as error:
                self.feed.put(error)
                return
            vain = 0 if last > before else vain + ended
            self.feed.stopped.wait(min(FIRST_WAIT * 2.0**vain, _LONGEST_WAIT))
        if vain:
            self.printer.remark(f"{meta['name']}: the end of its log cannot be read")

    def _is_last(self, pod: Object, at: str) -> bool:
        """Whether a pod that has ended wrote nothing after that time; a cut looks like the end of a log."""
        if not at and self.wanted.tail == 0:
            return True
        newest = list(lines_of(self.cluster, pod, Wanted(tail=1, since_s=None if at else self.wanted.since_s)))
        return all(line.at <= at for line in newest) and (bool(newest) or not at)


def _pods(cluster: Cluster, job: Object) -> list[Manifest]:
    meta = job["metadata"]
    found = cluster.list(PODS, selector=labels.selector(job=meta["name"]), namespace=meta["namespace"])
    return sorted((pod for pod in found.items if is_of(pod, job)), key=rank_of)
