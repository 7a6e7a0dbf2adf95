"""What can be done to a job that was sent: hold it back, let it go on, cancel, retry and delete it.

The volume is never touched: the run and its checkpoints stay, so whatever starts again continues.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from launcher import labels, printed
from launcher.cluster import FIELD_MANAGER
from launcher.cluster_errors import ClusterError, Conflict, Denied, Forbidden, Invalid, NotFound, NotYetAllowed
from launcher.job_objects import is_of
from launcher.resources import CONFIG_MAPS, JOBS, NETWORK_POLICIES, PODS, WORKLOADS, Resource
from launcher.states import job_state
from launcher.submit import own
from mtft.errors import InputError, MtftError
from mtft.runs import RETRIED_FILE

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Manifest = dict[str, Any]
_GONE_SECONDS = 60.0  # beyond what the pods may take to end
_DEFAULT_GRACE_SECONDS = 30  # Kubernetes' own, for pods whose template says nothing
_RECOUNTED_SECONDS = (0.5, 1.0, 2.0, 4.0)  # between tries; the quota controller hears of a deletion by itself
_GOES_ON = "it goes on from its last checkpoint, if it has one; its budget of restarts and time begins anew"
_MADE_BY_OTHERS = "was made anew by somebody else in this moment"
_SET_BY_SERVER = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences")


class StillThere(MtftError):
    """A job that was deleted has not gone in time."""


def suspend(cluster: Cluster, job: Manifest) -> str:
    """Hold a job back: its pods stop with a checkpoint and give back their GPUs; return what was done.

    Raises:
        InputError: a queue decides when it runs.
    """
    return _hold_back(cluster, job, "suspended", {})


def cancel(cluster: Cluster, job: Manifest) -> str:
    """Stop a job for good: as ``suspend``, and marked, so that everyone sees it was meant; return what was done.

    Raises:
        InputError: a queue decides when it runs.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _hold_back(cluster, job, "cancelled", {labels.CANCELLED: now})


def resume(cluster: Cluster, job: Manifest) -> str:
    """Let a job that was held back or cancelled go on, with a fresh budget as after ``retry``; return what was done.

    Raises:
        InputError: a queue decides when it runs.
        ClusterError: the cluster refuses.
    """
    if ended := _ended(job):
        return ended
    _refuse_queued(cluster, job, "resume")
    if not _held_back(job):
        return "is not suspended"
    # Before the job, so that its next pods read it.
    _patch_config(cluster, job, {"data": _fresh_budget()})
    changes = {"metadata": {"annotations": {labels.CANCELLED: None}}, "spec": {"runPolicy": {"suspend": False}}}
    _patch(cluster, job, changes)
    return f"resumed; {_GOES_ON}"


def delete(cluster: Cluster, job: Manifest) -> str:
    """Delete a job, its pods, its ConfigMap and its NetworkPolicy; return what was done.

    Raises:
        Conflict: another job has the name by now; it is left alone.
        ClusterError: the cluster refuses.
    """
    meta = job["metadata"]
    there = cluster.delete(JOBS, meta["name"], namespace=meta["namespace"], only=job)
    _delete_belonging(cluster, CONFIG_MAPS, job)
    try:
        _delete_belonging(cluster, NETWORK_POLICIES, job)
    except NotYetAllowed:
        raise
    except Forbidden:  # who may not look at policies has applied none
        pass
    return "deleted; nothing on the volume was removed" if there else "is gone; nothing on the volume was removed"


def retry(cluster: Cluster, job: Manifest) -> str:
    """Make a failed job anew under its name, with a fresh budget; return what was done.

    The supervisor counts attempts and time on the volume, those since one retry together: when that was
    stands beside the configuration, which stays as it was sent.

    Raises:
        StillThere: the old one does not go.
        Forbidden: the user may not delete jobs; nothing was changed.
        ClusterError: the cluster refuses.
    """
    if _held_back(job) and labels.CANCELLED in _annotations(job):
        return resume(cluster, job)
    meta = job["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    pods = cluster.list(PODS, selector=labels.selector(job=name), namespace=namespace).items
    state = job_state(job, [pod for pod in pods if is_of(pod, job)], now=datetime.now(UTC))
    if state.state != "Failed":
        return f"is {state.state}: only a failed or cancelled job can be retried"
    if not cluster.allowed("delete", JOBS, namespace=namespace):
        raise Forbidden(
            f"{name}: retry makes the job anew, and you may not delete {JOBS.rbac_name} in namespace {namespace}; "
            "ask somebody with the Role mtft-user of manifests/base, or the cluster's administrator for that right"
        )
    now = cluster.find(JOBS, name, namespace=namespace)
    if now is not None and now["metadata"]["uid"] != meta["uid"]:
        return _MADE_BY_OTHERS
    manager = _applied_by(cluster, job)
    job, note = _without_flavor(cluster, job)
    _ask_whether_it_may_be_made(cluster, job)
    # The ConfigMap lets go of the job, so it is there for the next one whatever happens in between.
    _patch_config(cluster, job, {"metadata": {"ownerReferences": None}, "data": _fresh_budget()})
    _delete_wholly(cluster, job)
    with _telling_the_way_back(job):
        made = _make_anew(cluster, job, manager)
    if made is None:
        return _MADE_BY_OTHERS
    return "; ".join(["made anew", _GOES_ON, *([note] if note else []), *own(cluster, made)])


def _without_flavor(cluster: Cluster, job: Manifest) -> tuple[Manifest, str | None]:
    """Return a job as it was before its queue admitted it, and a note of what that leaves out.

    Another flavor may take it the next time.
    """
    from launcher.pod import CONFIG_FILE
    from launcher.pytorchjob import render
    from launcher.queues import left_out, without_flavor

    meta, wanted = job["metadata"], None
    given = meta.get("labels") or {}
    if labels.QUEUE not in given:
        return job, None
    held = cluster.find(CONFIG_MAPS, meta["name"], namespace=meta["namespace"])
    # A configuration that this version cannot read.
    with suppress(MtftError, KeyError, ValueError, TypeError, AttributeError):
        document = json.loads((held or {})["data"][CONFIG_FILE])
        names = {"name": meta["name"], "batch": given.get(labels.BATCH), "run": given.get(labels.RUN)}
        wanted = render(document, given[labels.MODEL], namespace=meta["namespace"], **names)[-1]["spec"]
    spec = without_flavor(job, wanted)
    gone = left_out(job["spec"], spec)
    note = f"left to queue {given[labels.QUEUE]}, as its configuration does not name them: {gone}" if gone else None
    return {**job, "spec": spec}, note


def _ask_whether_it_may_be_made(cluster: Cluster, job: Manifest) -> None:
    """Let the cluster refuse before the job goes; that it is there, and fills a quota, is no news.

    Raises:
        ClusterError: a rule, a policy or a webhook is against it.
    """
    try:
        cluster.create(_anew(job), dry_run=True)
    except Conflict:
        return
    except Denied as error:
        if not error.by_quota:
            raise


@contextmanager
def _telling_the_way_back(job: Manifest) -> Iterator[None]:
    """Say of whatever ends this early that the job is deleted, and how it comes back."""
    meta = job["metadata"]
    back = (
        f"{meta['name']} is deleted, or about to be, and not made anew: `mtft-launch run` with the same configuration "
        f"(`batch` for a job of a batch) in namespace {meta['namespace']} continues it"
    )
    try:
        yield
    except ClusterError as error:
        error.args = (f"{error}\n{back}",)
        raise
    except KeyboardInterrupt:
        print(back, file=sys.stderr)
        raise


def _fresh_budget() -> dict[str, str]:
    """Return what the trainer reads beside its configuration: attempts before this moment's no longer count."""
    return {RETRIED_FILE: datetime.now(UTC).isoformat()}


def _hold_back(cluster: Cluster, job: Manifest, word: str, annotations: Mapping[str, str]) -> str:
    if ended := _ended(job):
        return ended
    _refuse_queued(cluster, job, "suspend")
    if _held_back(job) and annotations.keys() <= _annotations(job).keys():
        return f"is {word} already"
    changes = {"metadata": {"annotations": dict(annotations)}, "spec": {"runPolicy": {"suspend": True}}}
    _patch(cluster, job, changes)
    return f"{word}; `{printed.launch('resume', job)}` continues it"


def _delete_belonging(cluster: Cluster, resource: Resource, job: Manifest) -> None:
    """Delete what was rendered with a job, unless it belongs to another job of the name by now."""
    meta = job["metadata"]
    found = cluster.find(resource, meta["name"], namespace=meta["namespace"])
    if found is None or _run_of(found) != _run_of(job):
        return
    if {owner["uid"] for owner in found["metadata"].get("ownerReferences") or []} <= {meta["uid"]}:
        cluster.delete(resource, meta["name"], namespace=meta["namespace"], only=found)


def _run_of(thing: Manifest) -> str | None:
    return (thing["metadata"].get("labels") or {}).get(labels.RUN)


def _patch_config(cluster: Cluster, job: Manifest, changes: Manifest) -> None:
    """Change the ConfigMap of a job.

    Raises:
        NotFound: somebody deleted it; nothing was changed.
    """
    meta = job["metadata"]
    try:
        cluster.patch(CONFIG_MAPS, meta["name"], changes, namespace=meta["namespace"])
    except NotFound as error:
        raise NotFound(
            f"{error}; it holds the job's configuration: `mtft-launch run` with the same configuration "
            "(`batch` for a job of a batch) makes it again, then this goes on"
        ) from error


def _patch(cluster: Cluster, job: Manifest, changes: Manifest) -> None:
    """Change a job, never another that has its name by now.

    Raises:
        Conflict: there is another.
    """
    meta = job["metadata"]
    same = {**changes, "metadata": {**changes.get("metadata", {}), "uid": meta["uid"]}}
    try:
        cluster.patch(JOBS, meta["name"], same, namespace=meta["namespace"])
    except Invalid as error:
        if "metadata.uid" not in str(error):
            raise
        raise Conflict(f"{meta['name']}: another job has the name by now; nothing was changed") from error


def _held_back(job: Manifest) -> bool:
    return bool((job["spec"].get("runPolicy") or {}).get("suspend"))


def _annotations(job: Manifest) -> Mapping[str, str]:
    return job["metadata"].get("annotations") or {}


def _ended(job: Manifest) -> str | None:
    state = job_state(job, None, now=datetime.now(UTC))
    if state.state == "Failed":
        return f"has failed; `{printed.launch('retry', job)}` continues it"
    return f"has ended already: {state.state}" if state.ended else None


def _refuse_queued(cluster: Cluster, job: Manifest, what: str) -> None:
    """Kueue, where it is installed, owns ``suspend`` of the jobs in its queues and would undo ours."""
    meta = job["metadata"]
    queue = (meta.get("labels") or {}).get(labels.QUEUE)
    if queue is None or not _may_know(cluster, WORKLOADS):
        return
    active, place = "true" if what == "resume" else "false", printed.in_namespace(meta["namespace"])
    raise InputError(
        f"{meta['name']}: the Kueue queue {queue} decides when it runs; {what} it there, with the right to "
        "patch Workloads, which its administrators have:\n"
        f"  kubectl{place} get workloads -l kueue.x-k8s.io/job-uid={meta['uid']} -o name | "
        f'xargs kubectl{place} patch --type merge -p \'{{"spec":{{"active":{active}}}}}\''
    )


def _may_know(cluster: Cluster, resource: Resource) -> bool:
    try:
        return cluster.knows(resource)
    except Forbidden:
        return True


def _anew(job: Manifest) -> Manifest:
    """Return a job as it was sent, without what the server and the operator wrote."""
    metadata = {key: value for key, value in job["metadata"].items() if key not in _SET_BY_SERVER}
    metadata["annotations"] = {key: value for key, value in _annotations(job).items() if key != labels.CANCELLED}
    spec = dict(job["spec"])
    spec["runPolicy"] = {key: value for key, value in (spec.get("runPolicy") or {}).items() if key != "suspend"}
    return {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": metadata, "spec": spec}


def _make_anew(cluster: Cluster, job: Manifest, manager: str | None) -> Manifest | None:
    """Make a deleted job as it was sent, by server-side apply where it has a manager; None: somebody else has.

    A quota that still counts the job that is gone is asked again.
    """
    import time

    wanted = _anew(job)
    meta = wanted["metadata"]
    if manager is not None and cluster.find(JOBS, meta["name"], namespace=meta["namespace"]) is not None:
        return None  # an apply would set back what it was made with
    pauses = iter(_RECOUNTED_SECONDS)
    while True:
        try:
            return cluster.create(wanted) if manager is None else cluster.apply(wanted, manager)
        except (Conflict, Denied) as error:
            if isinstance(error, Denied) and not error.by_quota:
                raise
            pause = None if isinstance(error, Conflict) else next(pauses, None)
            time.sleep(pause or 0)
            # Made, by others or by a request of ours whose answer was lost; a quota may be full of just that job.
            found = cluster.find(JOBS, meta["name"], namespace=meta["namespace"])
            if found is not None:
                return found if _run_of(found) == _run_of(job) and manager is None else None
            if pause is None:
                raise


def _applied_by(cluster: Cluster, job: Manifest) -> str | None:
    """Return who made a job by server-side apply (Helm 4, kubectl, Argo CD): a next apply conflicts with anyone else.

    None: nobody, several, or the user may not apply.
    """
    meta = job["metadata"]
    managers = {
        each["manager"]
        for each in meta.get("managedFields") or []
        if each.get("operation") == "Apply" and each["manager"] != FIELD_MANAGER and not each.get("subresource")
    }
    if len(managers) != 1 or not cluster.allowed("patch", JOBS, namespace=meta["namespace"]):
        return None
    return str(managers.pop())


def _delete_wholly(cluster: Cluster, job: Manifest) -> None:
    """Delete a job and return when it and its pods are gone: pods of both would have the same names.

    Raises:
        StillThere: they are not gone in time.
    """
    import time

    meta = job["metadata"]
    grace = max(
        int((role.get("template", {}).get("spec") or {}).get("terminationGracePeriodSeconds") or _DEFAULT_GRACE_SECONDS)
        for role in job["spec"]["pytorchReplicaSpecs"].values()
    )
    listed = cluster.list(JOBS, fields=f"metadata.name={meta['name']}", namespace=meta["namespace"])
    if not cluster.delete(JOBS, meta["name"], namespace=meta["namespace"], propagation="Foreground", only=job):
        return
    until = time.monotonic() + grace + _GONE_SECONDS
    with _telling_the_way_back(job):
        for kind, thing in cluster.watch(
            JOBS, fields=f"metadata.name={meta['name']}", namespace=meta["namespace"], after=listed, until=until
        ):
            if kind == "DELETED" and thing["metadata"]["uid"] == meta["uid"]:
                return
    raise StillThere(
        f"{meta['name']} has not gone after {grace + _GONE_SECONDS:.0f} s; a pod of it hangs: "
        f"kubectl{printed.in_namespace(meta['namespace'])} get pods -l {labels.OPERATOR_JOB}={meta['name']}; "
        "when it is gone, run the same configuration again: it continues"
    )
