"""Kueue: why it lets jobs wait, in its own words, and what it writes into those that it admits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import Forbidden, NoSuchKind
from launcher.resources import WORKLOADS
from launcher.states import is_queued

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Object = Mapping[str, Any]
_AUTOSCALER = "cluster-autoscaler.kubernetes.io"  # of which others are a person's, safe-to-evict above all
_PREFIXES = (
    "kueue.x-k8s.io/",
    "autoscaling.x-k8s.io/",
    f"{_AUTOSCALER}/consume-provisioning-request",
    f"{_AUTOSCALER}/provisioning-class-name",
)
_PLACEMENT = ("nodeSelector", "tolerations")
_OURS = (labels.TOPOLOGY_REQUIRED, labels.TOPOLOGY_PREFERRED)


def queue_words(cluster: Cluster, jobs: Sequence[Object], *, everywhere: bool = False) -> dict[str, str]:
    """Return uid -> why its queue lets it wait, of the jobs that wait; one LIST, and none where no job waits.

    Where the queue's view may not be seen nothing is said.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    waiting = [job for job in jobs if is_queued(job)]
    if not waiting:
        return {}
    namespace = None if everywhere else waiting[0]["metadata"]["namespace"]
    try:
        workloads = cluster.list(WORKLOADS, namespace=namespace, everywhere=everywhere).items
    except NoSuchKind:
        return {job["metadata"]["uid"]: _not_installed(job) for job in waiting}
    except Forbidden:
        return {}
    by_owner = {owner["uid"]: each for each in workloads for owner in each["metadata"].get("ownerReferences") or []}
    return {job["metadata"]["uid"]: _words(job, by_owner.get(job["metadata"]["uid"])) for job in waiting}


def _words(job: Object, workload: Object | None) -> str:
    queue = job["metadata"]["labels"][labels.QUEUE]
    if workload is None:
        return (
            f"queue {queue}: Kueue has not taken it up; integrations.frameworks of Kueue's configuration must name "
            "kubeflow.org/pytorchjob"
        )
    if (workload.get("spec") or {}).get("active") is False:
        return f"queue {queue}: its Workload {workload['metadata']['name']} was made inactive"
    conditions = {each["type"]: each for each in (workload.get("status") or {}).get("conditions") or []}
    for kind, status in (("Evicted", "True"), ("QuotaReserved", "False"), ("Admitted", "False")):
        found = conditions.get(kind)
        if found and found["status"] == status:
            return f"queue {queue}: {found.get('message') or found.get('reason')} ({found.get('reason')})"
    return f"queue {queue} has not admitted it yet"


def _not_installed(job: Object) -> str:
    return f"queue {job['metadata']['labels'][labels.QUEUE]}, but Kueue is not installed; resume it by hand"


def without_flavor(job: Object, wanted: Object | None) -> dict[str, Any]:
    """Return the spec of a live job without what its queue wrote into the templates of its pods.

    That is labels, annotations and scheduling gates, and node labels and tolerations of the flavor that took the job
    (Kueue's ``pkg/podset``). Of a job without a queue nothing is left out.

    Args:
        job: as the cluster has it.
        wanted: the spec that its configuration stands for; None where nobody knows it: node labels and tolerations
            could be its own then, and stay.
    """
    spec: dict[str, Any] = deepcopy(dict(job["spec"]))
    if labels.QUEUE not in (job["metadata"].get("labels") or {}):
        return spec
    meant = (wanted or {}).get("pytorchReplicaSpecs") or {}
    for name, role in (spec.get("pytorchReplicaSpecs") or {}).items():
        template = role.get("template") or {}
        own = (meant.get(name) or {}).get("template") or {}
        metadata, pods = template.get("metadata") or {}, template.get("spec") or {}
        for key in ("labels", "annotations"):
            mine = (own.get("metadata") or {}).get(key) or ()
            _keep(metadata, key, [each for each in metadata.get(key) or () if each in mine or not _is_queues(each)])
        gates = pods.get("schedulingGates") or ()
        _keep(pods, "schedulingGates", [each for each in gates if not _is_queues(each["name"])])
        for key in _PLACEMENT if wanted is not None else ():
            mine = (own.get("spec") or {}).get(key) or ()
            _keep(pods, key, [each for each in pods.get(key) or () if each in mine])
    return spec


def _keep(holder: dict[str, Any], key: str, kept: Sequence[Any]) -> None:
    """Leave only some entries of a mapping or list; without any it goes."""
    before = holder.pop(key, None)
    if kept:
        holder[key] = {each: before[each] for each in kept} if isinstance(before, dict) else kept


def _is_queues(name: str) -> bool:
    """Whether a label, an annotation or a scheduling gate is Kueue's, or of its admission checks."""
    return name not in _OURS and name.startswith(_PREFIXES)


def left_out(before: Object, after: Object) -> str | None:
    """Name the node labels and tolerations that a job's spec no longer has; None: it has them all."""
    found: dict[str, None] = {}
    for name, role in (before.get("pytorchReplicaSpecs") or {}).items():
        pods, rest = (each["template"]["spec"] for each in (role, after["pytorchReplicaSpecs"][name]))
        for key in _PLACEMENT:
            gone = [each for each in pods.get(key) or () if each not in (rest.get(key) or ())]
            found |= {each if isinstance(each, str) else str(each.get("key") or "every taint"): None for each in gone}
    return ", ".join(found) or None
