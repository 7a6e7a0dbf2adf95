"""Reading PyTorchJobs and pods as the API server gives them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from launcher import labels


def by_job(
    pods: Iterable[Mapping[str, Any]], jobs: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return (namespace, job) -> its pods, of these jobs; not those of an earlier job of the name, which still end."""
    named = {(job["metadata"]["namespace"], job["metadata"]["name"]): job for job in jobs}
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for pod in pods:
        key = pod["metadata"]["namespace"], (pod["metadata"].get("labels") or {}).get(labels.OPERATOR_JOB, "")
        if key in named and is_of(pod, named[key]):
            found[key].append(pod)
    return found


def is_of(pod: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Whether a pod that carries a job's name was made for it, not for an earlier job of the name."""
    owners = [each.get("uid") for each in pod["metadata"].get("ownerReferences") or [] if each.get("controller")]
    return not owners or job["metadata"].get("uid") in owners


def rank_of(pod: Mapping[str, Any]) -> int:
    """Return the number of a pod within its job: the master is 0, worker i is i + 1."""
    given = pod["metadata"].get("labels") or {}
    return (given.get(labels.OPERATOR_REPLICA) != "master") + int(given.get(labels.OPERATOR_INDEX, "0"))


def condition(job: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Return a condition of the job that holds now."""
    for each in (job.get("status") or {}).get("conditions") or []:
        if each["type"] == kind and each["status"] == "True":
            found: Mapping[str, Any] = each
            return found
    return None


def is_replacing(job: Mapping[str, Any]) -> bool:
    """Whether pods of the job have failed, or are being deleted, that are not replaced yet."""
    counts = (job.get("status") or {}).get("replicaStatuses") or {}
    for kind, role in ((job.get("spec") or {}).get("pytorchReplicaSpecs") or {}).items():
        count = counts.get(kind) or {}
        if count.get("failed") and count.get("active", 0) + count.get("succeeded", 0) < replicas(role):
            return True
    return False


def gpus_of(template: Mapping[str, Any]) -> int:
    """Return the GPUs one pod of a template asks for, whoever made them: nvidia.com/gpu, nvidia.com/mig-1g.10gb, ..."""
    return sum(
        int(amount)
        for container in (template.get("spec") or {}).get("containers") or []
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items()
        if "/" in name and ("gpu" in name or "/mig-" in name)
    )


def parse_time(text: str | None) -> datetime | None:
    """Read a time of the API server."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def roles(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the replica specs of a job: Master, and Worker where it has several pods."""
    return list(((job.get("spec") or {}).get("pytorchReplicaSpecs") or {}).values())


def replicas(role: Mapping[str, Any]) -> int:
    """Return how many pods a replica spec asks for."""
    return int(role.get("replicas", 1))


def pod_count(job: Mapping[str, Any]) -> int:
    """Return how many pods a job asks for."""
    return sum(map(replicas, roles(job)))
