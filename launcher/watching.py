"""Looking at jobs: what they do now, and why those that do not run do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import ClusterError, Forbidden
from launcher.job_objects import by_job, condition, rank_of
from launcher.labels import CONTAINER
from launcher.pod_reasons import (
    Ending,
    creation_failures,
    is_mounting,
    is_silent,
    lacks_scheduler,
    node_failures,
    runs,
    scheduler_failures,
)
from launcher.progress import Progress, read_progress
from launcher.queues import queue_words
from launcher.resources import EVENTS, JOBS, PODS
from launcher.selection import choose
from launcher.states import JobState, job_state
from launcher.told_endings import by_object, told_ending

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Object = Mapping[str, Any]

# Where a log tells which attempt it is, and how far it is.
_HEAD_BYTES = 16_384
_TAIL_LINES = 40
_LOGS_AT_ONCE = 4  # the client keeps at least five connections
_MADE_SECONDS = 5.0  # an operator that can make a job's pods has made them by then


@dataclass(frozen=True)
class _Said:
    """What events tell.

    Attributes:
        failures: UID of a pod -> why it is not scheduled or mounted, of a job -> why its pods or Services are
            refused.
        endings: UID of a failed job -> how its pod ended, where that is gone.
    """

    failures: Mapping[str, str] = field(default_factory=dict)
    endings: Mapping[str, Ending] = field(default_factory=dict)


def jobs_now(cluster: Cluster, names: Sequence[str] = (), *, everywhere: bool = False) -> list[JobState]:
    """Return the states of jobs from one LIST of jobs and one of pods.

    One more asks queues where jobs wait in them, and one asks events where pods are missing, wait for their volumes or
    for a scheduler of their own, where nobody tells that one has started, or where a job that is named failed and its
    pods are gone.

    Logs are read of running jobs only.

    Raises:
        InputError: a name is unknown or means several jobs.
        ClusterError: the cluster refuses or cannot be reached.
    """
    chosen = choose(names, cluster.list(JOBS, selector=labels.SELECTOR, everywhere=everywhere).items)
    return states_of(cluster, chosen, everywhere=everywhere, named=bool(names)) if chosen else []


def states_of(
    cluster: Cluster, jobs: Sequence[Object], *, everywhere: bool = False, named: bool = True
) -> list[JobState]:
    """Return the states of jobs, of one namespace unless ``everywhere``, as ``jobs_now`` does without its LIST of jobs.

    Args:
        cluster: where they are.
        jobs: the PyTorchJobs.
        everywhere: whether they are of several namespaces.
        named: whether a person asks for these, and so for the reason of those whose pods are gone.

    Raises:
        ClusterError: the cluster refuses or cannot be reached.
    """
    pods = pods_of(cluster, jobs, everywhere=everywhere)
    now, said = cluster.now(), queue_words(cluster, jobs, everywhere=everywhere)
    events = _said(cluster, jobs, pods, now, everywhere=everywhere, named=named)

    def look(job: Object) -> JobState:
        return _with_log(cluster, job, pods.get(_key(job), []), now, said.get(job["metadata"]["uid"]), events)

    # Its threads are daemons, unlike those of concurrent.futures: an interrupt waits for no log that hangs.
    with ThreadPool(min(len(jobs), _LOGS_AT_ONCE) or 1) as pool:
        return pool.map(look, jobs, chunksize=1)


def state_now(cluster: Cluster, job: Object, pods: Sequence[Object], now: datetime) -> JobState:
    """Return the state of a job, with what the log of a running one, and queue or node of a waiting one say."""
    said = queue_words(cluster, [job]).get(job["metadata"]["uid"])
    return _with_log(cluster, job, pods, now, said, _said(cluster, [job], {_key(job): pods}, now))


def _said(
    cluster: Cluster,
    jobs: Sequence[Object],
    pods: Mapping[tuple[str, str], Sequence[Object]],
    now: datetime,
    *,
    everywhere: bool = False,
    named: bool = True,
) -> _Said:
    """Return what events tell of these jobs and pods; one LIST, none where all is well."""
    gone = [job for job in jobs if named and condition(job, "Failed") and not pods.get(_key(job))]
    short = [job for job in jobs if _is_short(job, pods.get(_key(job), ()), now)]
    every = [pod for each in pods.values() for pod in each]
    unseen = [pod for pod in every if lacks_scheduler(pod, now)]
    if not gone and not short and not unseen and not any(map(is_mounting, every)):
        return _Said()
    try:
        # What a scheduler says of a pod it has taken up, and the operator of one that ended, need not be a warning.
        fields = "" if unseen or gone else "type=Warning"
        place = None if everywhere else jobs[0]["metadata"]["namespace"]
        events = cluster.list(EVENTS, fields=fields, namespace=place, everywhere=everywhere).items
    except Forbidden:
        return _Said()
    found = node_failures(events) | scheduler_failures(unseen, events, now)
    refused = creation_failures(events)
    for job in short:
        at, words = refused.get(job["metadata"]["uid"], ("", ""))
        # What was refused before the newest pod was made has been mended since.
        if words and at >= max((pod["metadata"]["creationTimestamp"] for pod in pods.get(_key(job), ())), default=""):
            found[job["metadata"]["uid"]] = words
    told = by_object(events) if gone else {}
    endings = {uid: ending for job in gone if (ending := told_ending(told.get(uid := job["metadata"]["uid"], ())))}
    return _Said(found, endings)


def _is_short(job: Object, pods: Sequence[Object], now: datetime) -> bool:
    """Whether a job that may run lacks pods, or word that its first has started, and has not just been made."""
    state = job_state(job, pods, now=now)
    may_run = state.state in ("Pending", "Restarting", "Running")
    lacks = len(pods) < state.pods_wanted or state.phase == "unseen"
    return may_run and lacks and (state.age_s or 0.0) > _MADE_SECONDS


def _with_log(
    cluster: Cluster,
    job: Object,
    pods: Sequence[Object],
    now: datetime,
    queue_says: str | None,
    events: _Said,
) -> JobState:
    told, failures = events.endings.get(job["metadata"]["uid"]), events.failures
    state = job_state(job, pods, now=now, queue_says=queue_says, failures=failures, told=told)
    if state.state != "Running":
        return state
    leader = min(pods, key=lambda pod: (not runs(pod), is_silent(pod), rank_of(pod)))
    progress = Progress(phase="unknown") if is_silent(leader) else progress_of(cluster, leader)
    return job_state(job, pods, now=now, progress=progress, failures=failures)


def pods_of(
    cluster: Cluster, jobs: Sequence[Object], *, everywhere: bool = False
) -> dict[tuple[str, str], list[Object]]:
    """Return (namespace, job) -> pods, from one LIST."""
    one = jobs[0]["metadata"]["name"] if len(jobs) == 1 else None
    namespace = None if everywhere else jobs[0]["metadata"]["namespace"]
    found = cluster.list(PODS, selector=labels.selector(job=one), namespace=namespace, everywhere=everywhere)
    return by_job(found.items, jobs)


def progress_of(cluster: Cluster, pod: Object) -> Progress:
    """Return how far a pod's log says it is, or that it cannot be read."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    try:
        head = [*cluster.log(name, container=CONTAINER, namespace=namespace, limit_bytes=_HEAD_BYTES)]
        tail = cluster.log(name, container=CONTAINER, namespace=namespace, timestamps=True, tail_lines=_TAIL_LINES)
        return read_progress(line.decode("utf-8", "replace") for line in (*head, *tail))
    except ClusterError as error:
        return Progress(phase="unknown", unread=f"its log cannot be read: {str(error).splitlines()[0]}")


def ended_state(cluster: Cluster, job: Object) -> JobState | None:
    """Return the state of a job that has ended, with what its pods left behind; None for any other."""
    state = job_state(job, None, now=datetime.now(UTC))
    if not state.ended:
        return None
    return states_of(cluster, [job])[0]


def _key(job: Object) -> tuple[str, str]:
    return job["metadata"]["namespace"], job["metadata"]["name"]
