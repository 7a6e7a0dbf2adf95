"""Looking at jobs: what they do now, and why those that do not run do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import ClusterError, Forbidden
from launcher.job_objects import by_job, rank_of
from launcher.labels import CONTAINER
from launcher.pod_reasons import creation_failures, is_mounting, lacks_scheduler, mount_failures, scheduler_failures
from launcher.progress import Progress, read_progress
from launcher.queues import queue_words
from launcher.resources import EVENTS, JOBS, PODS
from launcher.selection import choose
from launcher.states import JobState, job_state

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Object = Mapping[str, Any]

# Where a log tells which attempt it is, and how far it is.
_HEAD_BYTES = 16_384
_TAIL_LINES = 40
_LOGS_AT_ONCE = 4  # the client keeps at least five connections
_MADE_SECONDS = 5.0  # an operator that can make a job's pods has made them by then


def jobs_now(cluster: Cluster, names: Sequence[str] = (), *, everywhere: bool = False) -> list[JobState]:
    """Return the states of jobs from one LIST of jobs and one of pods.

    One more asks queues where jobs wait in them, and one asks events where pods are missing, wait for their volumes or
    for a scheduler of their own.

    Logs are read of running jobs only.

    Raises:
        InputError: a name is unknown or means several jobs.
        ClusterError: the cluster refuses or cannot be reached.
    """
    chosen = choose(names, cluster.list(JOBS, selector=labels.SELECTOR, everywhere=everywhere).items)
    return states_of(cluster, chosen, everywhere=everywhere) if chosen else []


def states_of(cluster: Cluster, jobs: Sequence[Object], *, everywhere: bool = False) -> list[JobState]:
    """Return the states of jobs, of one namespace unless ``everywhere``, as ``jobs_now`` does without its LIST of jobs.

    Raises:
        ClusterError: the cluster refuses or cannot be reached.
    """
    pods = pods_of(cluster, jobs, everywhere=everywhere)
    now, said = datetime.now(UTC), queue_words(cluster, jobs, everywhere=everywhere)
    failures = _failures(cluster, jobs, pods, now, everywhere=everywhere)

    def look(job: Object) -> JobState:
        return _with_log(cluster, job, pods.get(_key(job), []), now, said.get(job["metadata"]["uid"]), failures)

    with ThreadPoolExecutor(max_workers=_LOGS_AT_ONCE) as pool:
        return list(pool.map(look, jobs))


def state_now(cluster: Cluster, job: Object, pods: Sequence[Object], now: datetime) -> JobState:
    """Return the state of a job, with what the log of a running one, and queue or node of a waiting one say."""
    said = queue_words(cluster, [job]).get(job["metadata"]["uid"])
    return _with_log(cluster, job, pods, now, said, _failures(cluster, [job], {_key(job): pods}, now))


def _failures(
    cluster: Cluster,
    jobs: Sequence[Object],
    pods: Mapping[tuple[str, str], Sequence[Object]],
    now: datetime,
    *,
    everywhere: bool = False,
) -> dict[str, str]:
    """Return UID -> why a pod is not scheduled or mounted, or a job's are refused; one LIST, none where all is well."""
    short = [job for job in jobs if _lacks_pods(job, pods.get(_key(job), ()), now)]
    every = [pod for each in pods.values() for pod in each]
    unseen = [pod for pod in every if lacks_scheduler(pod, now)]
    if not short and not unseen and not any(map(is_mounting, every)):
        return {}
    try:
        # What a scheduler says of a pod it has taken up need not be a warning.
        events = cluster.list(EVENTS, fields="" if unseen else "type=Warning", everywhere=everywhere).items
    except Forbidden:
        return {}
    found = mount_failures(events) | scheduler_failures(unseen, events, now)
    refused = creation_failures(events)
    for job in short:
        at, words = refused.get(job["metadata"]["uid"], ("", ""))
        # What was refused before the newest pod was made has been mended since.
        if words and at >= max((pod["metadata"]["creationTimestamp"] for pod in pods.get(_key(job), ())), default=""):
            found[job["metadata"]["uid"]] = words
    return found


def _lacks_pods(job: Object, pods: Sequence[Object], now: datetime) -> bool:
    """Whether a job that may run has fewer pods than it wants, and not because it has just been made."""
    state = job_state(job, pods, now=now)
    may_run = state.state in ("Pending", "Restarting", "Running")
    return may_run and len(pods) < state.pods_wanted and (state.age_s or 0.0) > _MADE_SECONDS


def _with_log(
    cluster: Cluster,
    job: Object,
    pods: Sequence[Object],
    now: datetime,
    queue_says: str | None,
    failures: Mapping[str, str],
) -> JobState:
    state = job_state(job, pods, now=now, queue_says=queue_says, failures=failures)
    if state.state != "Running":
        return state
    leader = min(pods, key=lambda pod: ((pod.get("status") or {}).get("phase") != "Running", rank_of(pod)))
    return job_state(job, pods, now=now, progress=progress_of(cluster, leader), failures=failures)


def pods_of(
    cluster: Cluster, jobs: Sequence[Object], *, everywhere: bool = False
) -> dict[tuple[str, str], list[Object]]:
    """Return (namespace, job) -> pods, from one LIST."""
    one = jobs[0]["metadata"]["name"] if len(jobs) == 1 else None
    namespace = None if everywhere else jobs[0]["metadata"]["namespace"]
    found = cluster.list(PODS, selector=labels.selector(job=one), namespace=namespace, everywhere=everywhere)
    return by_job(found.items)


def progress_of(cluster: Cluster, pod: Object) -> Progress:
    """Return how far a pod's log says it is; nothing is known while its log cannot be read."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    try:
        head = [*cluster.log(name, container=CONTAINER, namespace=namespace, limit_bytes=_HEAD_BYTES)]
        tail = cluster.log(name, container=CONTAINER, namespace=namespace, timestamps=True, tail_lines=_TAIL_LINES)
        return read_progress(line.decode("utf-8", "replace") for line in (*head, *tail))
    except ClusterError:
        return Progress()


def ended_state(cluster: Cluster, job: Object) -> JobState | None:
    """Return the state of a job that has ended, with what its pods left behind; None for any other."""
    state = job_state(job, None, now=datetime.now(UTC))
    if not state.ended:
        return None
    pods = pods_of(cluster, [job])
    return job_state(job, pods.get(_key(job), ()), now=datetime.now(UTC))


def _key(job: Object) -> tuple[str, str]:
    return job["metadata"]["namespace"], job["metadata"]["name"]
