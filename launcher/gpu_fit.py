"""Whether a training fits the GPUs of the nodes its pods may go to, where the configuration does not say their size.

NVIDIA's GPU feature discovery labels nodes with the memory of a GPU, ``nvidia.com/gpu.memory``, and of a MIG profile,
``nvidia.com/mig-1g.10gb.memory``, in MiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher.cluster_errors import Forbidden
from launcher.doctor_nodes import TROUBLE, allocatable, matches, untolerated
from launcher.findings import Finding, fail, ok, skip
from launcher.job_objects import roles
from launcher.resources import NODES
from mtft.errors import InputError
from mtft.memory import refusal, shortage, training_memory

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from mtft.settings import Resolved

Object = Mapping[str, Any]
_MIB_PER_GIB = 1024
_SET_IT = "cluster.gpu_memory_gib says what one GPU has"


class Unknown(Exception):
    """No node tells; the text says why, and which setting would."""


def refuse_unfit(cluster: Cluster, jobs: Iterable[tuple[Resolved, Object]]) -> str | None:
    """Refuse trainings that fit no GPU of the nodes their pods may go to; return a note where nobody knows.

    Args:
        cluster: whose nodes are asked for, once and only where GPUs of an unknown size are wanted.
        jobs: effective configuration and PyTorchJob of each.

    Raises:
        InputError: with every one of them.
        ClusterError: the cluster cannot be reached.
    """
    asked = [(one, job) for one, job in jobs if _of_unknown_size(one)]
    if not asked:
        return None
    try:
        nodes = cluster.list(NODES).items
    except Forbidden:
        return f"whether the training fits a GPU was not checked, because you may not list nodes; {_SET_IT}"
    reasons: list[str] = []
    notes: list[str] = []
    for one, job in asked:
        try:
            if reason := _shortage(one, nodes, job):
                reasons.append(reason)
        except Unknown as unknown:
            notes.append(f"whether the training fits a GPU was not checked: {unknown}")
    if reasons:
        raise InputError("\n".join([*reasons, "--force of run and batch sends it all the same"]))
    return next(iter(notes), None)


def check_fit(one: Resolved, nodes: Sequence[Object], job: Object) -> Finding:
    """Say whether the training of a job fits the GPUs it asks for."""
    layer = "GPU memory"
    if not one.config.cluster.gpus_per_node:
        return skip(layer, "no GPU is asked for")
    try:
        reason = _shortage(one, nodes, job) if _of_unknown_size(one) else refusal(one.card, one.config)
    except Unknown as unknown:
        return skip(layer, f"whether the training fits is not known: {unknown}")
    if reason:
        found, _, fix = reason.partition("; ")
        return fail(layer, found, fix)
    return ok(
        layer, f"the training needs about {training_memory(one.card, one.config).total:.1f} GiB of each, estimated"
    )


def _of_unknown_size(one: Resolved) -> bool:
    return bool(one.config.cluster.gpus_per_node) and one.config.cluster.gpu_memory_gib is None


def _dedicates(taint: Object) -> bool:
    """Whether a taint keeps pods away for good: a node that is new, cordoned or in trouble keeps its size."""
    return not taint["key"].startswith(TROUBLE)


def _shortage(one: Resolved, nodes: Sequence[Object], job: Object) -> str | None:
    """Return why no GPU has room; None where one has.

    Raises:
        Unknown: a node that would do has no label, or there is none now.
    """
    resource = one.config.cluster.gpu_resource
    label = f"{resource}.memory"
    spec = roles(job)[0]["template"]["spec"]
    able = [
        node
        for node in nodes
        if matches(node, spec)
        and not any(_dedicates(taint) for taint in untolerated(node, spec))
        and allocatable(node).get(resource, 0) >= one.config.cluster.gpus_per_node
    ]
    if not able:
        raise Unknown(
            f"no node that the pods may go to has {one.config.cluster.gpus_per_node} {resource} now; {_SET_IT}"
        )
    sizes = {}
    for node in able:
        name, text = node["metadata"]["name"], (node["metadata"].get("labels") or {}).get(label, "")
        if not text.isdigit() or not int(text):
            raise Unknown(f"node {name} has no label {label} that tells a size; {_SET_IT}")
        sizes[name] = int(text) / _MIB_PER_GIB
    largest = max(sizes, key=lambda name: sizes[name])
    where = f"the largest GPU the pods may go to, of node {largest}, has {sizes[largest]:.3g} GiB ({label})"
    return shortage(one.card, one.config, sizes[largest], where)
