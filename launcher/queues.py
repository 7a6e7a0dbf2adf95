"""Why Kueue lets jobs wait, in its own words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import Forbidden, NoSuchKind
from launcher.resources import WORKLOADS
from launcher.states import is_queued

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Object = Mapping[str, Any]


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
