"""Looking at jobs: all at once for a table, or one change after the other until they have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import ClusterError, Forbidden
from launcher.job_objects import by_job, rank_of
from launcher.labels import CONTAINER
from launcher.pod_reasons import is_mounting, mount_failures
from launcher.progress import Progress, read_progress
from launcher.queues import queue_words
from launcher.resources import EVENTS, JOBS, PODS
from launcher.selection import choose
from launcher.states import JobState, job_state
from mtft import exit_codes

if TYPE_CHECKING:
    from launcher.cluster import Change, Cluster, Listing

Object = Mapping[str, Any]

# Where a log tells which attempt it is, and how far it is.
_HEAD_BYTES = 16_384
_TAIL_LINES = 40
_LOGS_AT_ONCE = 4  # the client keeps at least five connections


def jobs_now(cluster: Cluster, names: Sequence[str] = (), *, everywhere: bool = False) -> list[JobState]:
    """Return the states of jobs from one LIST of jobs and one of pods.

    One more asks queues where jobs wait in them, and one asks events where nodes have not mounted volumes yet.

    Logs are read of running jobs only.

    Raises:
        InputError: a name is unknown or means several jobs.
        ClusterError: the cluster refuses or cannot be reached.
    """
    chosen = choose(names, cluster.list(JOBS, selector=labels.SELECTOR, everywhere=everywhere).items)
    if not chosen:
        return []
    pods = pods_of(cluster, chosen, everywhere=everywhere)
    now, said = datetime.now(UTC), queue_words(cluster, chosen, everywhere=everywhere)
    failures = _mount_failures(cluster, [pod for each in pods.values() for pod in each], everywhere=everywhere)

    def look(job: Object) -> JobState:
        return _with_log(cluster, job, pods.get(_key(job), []), now, said.get(job["metadata"]["uid"]), failures)

    with ThreadPoolExecutor(max_workers=_LOGS_AT_ONCE) as pool:
        return list(pool.map(look, chosen))


def state_now(cluster: Cluster, job: Object, pods: Sequence[Object], now: datetime) -> JobState:
    """Return the state of a job, with what the log of a running one, and queue or node of a waiting one say."""
    said = queue_words(cluster, [job]).get(job["metadata"]["uid"])
    return _with_log(cluster, job, pods, now, said, _mount_failures(cluster, pods))


def _mount_failures(cluster: Cluster, pods: Sequence[Object], *, everywhere: bool = False) -> dict[str, str]:
    """Return pod UID -> why its node cannot mount a volume; one LIST, and none where every pod has its volumes."""
    if not any(map(is_mounting, pods)):
        return {}
    try:
        warnings = cluster.list(EVENTS, fields="involvedObject.kind=Pod,type=Warning", everywhere=everywhere).items
    except Forbidden:
        return {}
    return mount_failures(warnings)


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
    return job_state(job, pods, now=now, progress=progress_of(cluster, leader))


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


def wait_for(
    cluster: Cluster,
    names: Sequence[str],
    timeout: float | None = None,
    *,
    report: Callable[[JobState], None] = lambda _: None,
) -> dict[str, int]:
    """Watch jobs until all have ended and return name -> exit code of the launcher.

    A job ends when the operator says so; one that is deleted meanwhile counts as failed, one that has not ended
    after ``timeout`` seconds as timed out.

    Args:
        cluster: where they are.
        names: jobs, batches or models; without any, all jobs of the namespace.
        timeout: seconds; None: for ever.
        report: told every change of a job's state.

    Raises:
        InputError: a name is unknown or means several jobs.
        ClusterError: the cluster refuses, or cannot be reached any more.
    """
    until = None if timeout is None else time.monotonic() + timeout
    jobs = cluster.list(JOBS, selector=labels.SELECTOR)
    waiting = {job["metadata"]["name"]: job["metadata"]["uid"] for job in choose(names, jobs.items)}
    codes = dict.fromkeys(waiting, exit_codes.WAIT_TIMED_OUT)
    said: dict[str, str] = {}
    for kind, job in _changes(cluster, jobs, until) if waiting else ():
        name = job["metadata"]["name"]
        if waiting.get(name) != job["metadata"]["uid"]:
            continue
        state = _ended_state(cluster, job) or job_state(job, None, now=datetime.now(UTC))
        if kind == "DELETED" and state.launcher_code is None:
            state = replace(state, state="Deleted", phase="gone", reason="deleted by somebody before it ended")
        if said.get(name) != state.state:
            said[name] = state.state
            report(state)
        if (code := state.launcher_code) is not None:
            codes[name] = code
            del waiting[name]
        if not waiting:
            break
    return codes


def _changes(cluster: Cluster, jobs: Listing, until: float | None) -> Iterator[Change]:
    """Yield every job as it is, then every change, until a moment of the monotonic clock."""
    for job in jobs.items:
        yield "ADDED", job
    yield from cluster.watch(JOBS, selector=labels.SELECTOR, after=jobs, until=until)


def _ended_state(cluster: Cluster, job: Object) -> JobState | None:
    """Return the state of a job that has ended, with what its pods left behind; None for any other."""
    state = job_state(job, None, now=datetime.now(UTC))
    if not state.ended:
        return None
    pods = pods_of(cluster, [job])
    return job_state(job, pods.get(_key(job), ()), now=datetime.now(UTC))


def _key(job: Object) -> tuple[str, str]:
    return job["metadata"]["namespace"], job["metadata"]["name"]
