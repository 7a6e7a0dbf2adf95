"""Looks at every layer between a configuration and a running job, and says what is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from launcher import doctor_access as access
from launcher import doctor_namespace as namespace
from launcher import doctor_volume as volume
from launcher import labels, printed
from launcher.cluster_errors import Forbidden, NoSuchKind
from launcher.description import events_of
from launcher.doctor_nodes import check_nodes
from launcher.findings import Finding, fail, ok, skip
from launcher.job_objects import condition, pod_count, roles
from launcher.labels import CONTAINER
from launcher.pod_reasons import CREATION_FAILURES
from launcher.resources import (
    EVENTS,
    LIMIT_RANGES,
    LOCAL_QUEUES,
    NAMESPACES,
    NODES,
    PODS,
    QUOTAS,
    SECRETS,
    Resource,
)

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from mtft.settings import Resolved

Object = Mapping[str, Any]
PLACEHOLDER_IMAGE = "mtft:not-given"
NODES_LAYER = "nodes"
"""In the place of what the nodes say, where they may not be looked at."""
_BY_LIMIT_RANGE = re.compile(r"(usage|ratio) per (Container|Pod)")
_PULL_FAILED = re.compile(r"Failed to pull image|ErrImagePull|ImagePullBackOff|Back-off pulling image")


def examine(
    cluster: Cluster,
    job: Object,
    *,
    pods: Sequence[Object] | None = None,
    config: Resolved | None = None,
    only: Collection[str] = (),
    probe: bool = False,
) -> list[Finding]:
    """Return one finding a layer.

    Args:
        cluster: where the job is, or would be sent.
        job: the PyTorchJob.
        pods: its pods; None: it is not in the cluster but would be sent.
        config: what it means; None: nobody knows any more.
        only: the layers to look at besides the connection; none: all.
        probe: start a pod for a moment where none runs that has the volume mounted.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    template, count, live = _template(job), pod_count(job), pods is not None
    there, bound = settled_of(job, pods or (), count)
    connection = access.check_connection(cluster)
    if "operator" not in only and (missing := access.check_namespace(cluster)):
        return [connection, missing]
    operator, deployment = access.check_operator(cluster)
    nodes = cache(lambda: _all(cluster, NODES))
    # Without an image no pod can be made.
    inside = volume.Inside(cluster, template, probe=probe and PLACEHOLDER_IMAGE not in _images(template))
    looks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("permissions", lambda: access.check_rights(cluster)),
        ("operator", lambda: operator),
        ("webhook", lambda: [] if live or operator[0].verdict == "fail" else [access.check_webhook(cluster, job)]),
        ("pod names", lambda: [access.check_pod(cluster, template)]),
        ("pod security", lambda: [_pod_security(cluster, count, deployment)]),
        ("quota", lambda: [_quota(cluster, template, count, there if live else None)]),
        ("limit range", lambda: [_limits(cluster, template, count, deployment)]),
        ("queue", lambda: [_queue(cluster, job)]),
        ("volume claim", lambda: volume.check_volume(cluster, template, count)),
        ("space", lambda: [volume.check_space(inside.said)]),
        ("write access", lambda: [volume.check_access(inside.said)]),
        ("secrets", lambda: namespace.check_secrets(template, lambda name: _secret(cluster, name), cluster.namespace)),
        ("image", lambda: [_image(cluster, template)]),
        (NODES_LAYER, lambda: check_nodes(nodes(), _pods_everywhere(cluster), template, count, bound=bound)),
        ("GPU memory", lambda: _gpu_memory(config, nodes, job)),
        ("DNS", lambda: [volume.check_dns(cluster, count, inside)]),
        ("pods made", lambda: [_creation(cluster, job)] if live else []),
    ]
    wanted = [(layer, look) for layer, look in looks if not only or layer in only]
    return [connection, *(finding for layer, look in wanted for finding in _careful(layer, look))]


def _careful(layer: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return list(look())
    except Forbidden as error:
        return [skip(layer, f"may not be looked at: {str(error).splitlines()[0]}")]


def settled_of(job: Object, pods: Sequence[Object], count: int) -> tuple[int, int]:
    """Return how many pods of a job are there, and how many have a node; all of one that needs none any more."""
    if condition(job, "Succeeded"):
        return count, count
    left = [pod for pod in pods if (pod.get("status") or {}).get("phase") != "Failed"]
    return len(left), sum(1 for pod in left if (pod.get("spec") or {}).get("nodeName"))


def _quota(cluster: Cluster, template: Object, count: int, there: int | None) -> Finding:
    return namespace.check_quota(_all(cluster, QUOTAS), template, count, there=there)


def _gpu_memory(config: Resolved | None, nodes: Callable[[], Sequence[Object]], job: Object) -> list[Finding]:
    if config is None or not config.config.cluster.gpus_per_node:
        return []
    from launcher.gpu_fit import check_fit

    # Who may not list nodes is told all the same where the configuration says the size.
    return [check_fit(config, [] if config.config.cluster.gpu_memory_gib is not None else nodes(), job)]


def _template(job: Object) -> Object:
    found: Object = (roles(job) or [{}])[0].get("template") or {}
    return found


def _all(cluster: Cluster, resource: Resource) -> Sequence[Object]:
    return cluster.list(resource).items


def _pods_everywhere(cluster: Cluster) -> Sequence[Object] | None:
    try:
        return cluster.list(PODS, everywhere=True).items
    except Forbidden:
        return None


def _pod_security(cluster: Cluster, count: int, deployment: Object | None) -> Finding:
    found = cluster.get(NAMESPACES, cluster.namespace)
    return namespace.check_pod_security(found, count, namespace.check_operator_template(deployment))


def _limits(cluster: Cluster, template: Object, count: int, deployment: Object | None) -> Finding:
    given = namespace.check_operator_template(deployment)
    return namespace.check_limits(_all(cluster, LIMIT_RANGES), template, count, given)


def _queue(cluster: Cluster, job: Object) -> Finding:
    name = (job["metadata"].get("labels") or {}).get(labels.QUEUE)
    if name is None:
        return namespace.check_queue(None, None, cluster.namespace)
    try:
        return namespace.check_queue(name, cluster.find(LOCAL_QUEUES, name), cluster.namespace)
    except NoSuchKind:
        return namespace.check_queue(name, None, cluster.namespace, installed=False)


def _secret(cluster: Cluster, name: str) -> Object | None:
    try:
        return cluster.find(SECRETS, name)
    except Forbidden as error:
        raise PermissionError(str(error)) from error


def _image(cluster: Cluster, template: Object) -> Finding:
    layer = "image"
    images = _images(template)
    if PLACEHOLDER_IMAGE in images:
        return skip(
            layer, "cluster.image is not set", "cluster.image: what the Dockerfile builds, where nodes can pull it"
        )
    image = images[0]
    events = [each for each in cluster.list(EVENTS).items if image in (each.get("message") or "")]
    pulled = any(each.get("reason") == "Pulled" for each in events)
    failed = [each for each in events if _PULL_FAILED.search(each["message"])]
    if failed and not pulled:
        fix = "check cluster.image, cluster.image_pull_secrets and that the nodes reach the registry"
        return fail(layer, f"{image}: {failed[-1]['message'].strip().splitlines()[0]}", fix)
    if pulled:
        return ok(layer, f"{image} was pulled within the last hour")
    return skip(layer, f"{image}: no pod has pulled it within the last hour, so nobody knows")


def _images(template: Object) -> list[str]:
    return [each["image"] for each in template["spec"]["containers"] if each["name"] == CONTAINER]


def _creation(cluster: Cluster, job: Object) -> Finding:
    """Say whether the API server refused pods or Services the operator wanted to make for a job."""
    layer = "pods made"
    refused = [
        each
        for each in events_of(job, cluster.list(EVENTS).items)
        if each.get("reason") in CREATION_FAILURES and each["involvedObject"].get("uid") == job["metadata"]["uid"]
    ]
    if not refused:
        return ok(layer, "none was refused within the last hour")
    message = refused[-1]["message"].strip()
    fix = namespace.OPERATOR_FIX if "PodSecurity" in message else printed.launch("describe", job)
    fix = "see the layer limit range" if _BY_LIMIT_RANGE.search(message) else fix
    return fail(layer, message, fix)
