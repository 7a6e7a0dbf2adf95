"""Whether the cluster's nodes can take the pods of a job: labels, taints, GPUs, what is free. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from launcher.findings import Finding, fail, ok, skip, warn
from launcher.quantities import parse_quantity, show_quantity

Object = Mapping[str, Any]
# Set on nodes by Kubernetes itself when they are in trouble, not to dedicate them.
TROUBLE = ("node.kubernetes.io/",)
_CORDON = "node.kubernetes.io/unschedulable"
# Labels of GKE's nodes: its pods tolerate the taints of devices they ask for (ExtendedResourceToleration).
_GKE = "cloud.google.com/gke-"


def check_nodes(
    nodes: Sequence[Object], pods: Sequence[Object] | None, template: Object, count: int, *, bound: int = 0
) -> list[Finding]:
    """Return what the nodes say to ``count`` pods of one template.

    Args:
        nodes: all nodes of the cluster.
        pods: all pods of the cluster, for what is taken; None when they may not be listed.
        template: pod template of the job.
        count: pods of the job.
        bound: pods of it that have their node, or need none any more.
    """
    spec = template.get("spec") or {}
    asked = requests_of(spec)
    ready = [node for node in nodes if is_ready(node)]
    labelled = [node for node in ready if matches(node, spec)]
    able = [node for node in labelled if _fits(allocatable(node), asked)]
    tolerated = [node for node in able if not untolerated(node, spec)]
    back = _uncordon(nodes, spec, asked)
    return [
        _labels_finding(nodes, ready, labelled, spec),
        _size_finding(labelled, able, asked, back),
        _taints_finding(able, tolerated, spec, back),
        _free_finding(tolerated, pods, asked, count, bound),
    ]


def is_ready(node: Object) -> bool:
    """Whether a node takes pods at all."""
    conditions = (node.get("status") or {}).get("conditions") or []
    up = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return up and not _is_cordoned(node)


def _is_cordoned(node: Object) -> bool:
    return bool((node.get("spec") or {}).get("unschedulable"))


def _uncordon(nodes: Sequence[Object], spec: Object, asked: Mapping[str, Decimal]) -> str:
    """Return the command, with what joins it to another, that gives back a node that would take the pods."""
    for node in nodes:
        kept_away = [taint for taint in untolerated(node, spec) if taint["key"] != _CORDON]
        if _is_cordoned(node) and matches(node, spec) and not kept_away and _fits(allocatable(node), asked):
            return f"kubectl uncordon {node['metadata']['name']}; or "
    return ""


def matches(node: Object, spec: Object) -> bool:
    """Whether a node has the labels that nodeSelector and the required node affinity ask for."""
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    terms = affinity.get("nodeSelectorTerms") or []
    return not terms or any(all(_holds(rule, labels) for rule in term.get("matchExpressions") or []) for term in terms)


def untolerated(node: Object, spec: Object) -> list[Object]:
    """Return the taints of a node that keep pods of a specification away."""
    taints = (node.get("spec") or {}).get("taints") or []
    tolerations = list(spec.get("tolerations") or [])
    if any(label.startswith(_GKE) for label in node["metadata"].get("labels") or {}):
        tolerations += [{"key": name, "operator": "Exists"} for name in requests_of(spec) if "/" in name]
    return [
        taint
        for taint in taints
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(each, taint) for each in tolerations)
    ]


def requests_of(spec: Object) -> dict[str, Decimal]:
    """Return what one pod asks for: the sum over its containers; a limit without a request counts as one."""
    asked: dict[str, Decimal] = defaultdict(Decimal)
    for container in spec.get("containers") or []:
        resources = container.get("resources") or {}
        for name, amount in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
            asked[name] += parse_quantity(amount)
    return dict(asked)


def allocatable(node: Object) -> dict[str, Decimal]:
    """Return what a node has for pods."""
    status = node.get("status") or {}
    return {name: parse_quantity(amount) for name, amount in (status.get("allocatable") or {}).items()}


def free(node: Object, pods: Sequence[Object]) -> dict[str, Decimal]:
    """Return what is left on a node beside the pods that run on it."""
    left = allocatable(node)
    for pod in pods:
        spec = pod.get("spec") or {}
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if spec.get("nodeName") != node["metadata"]["name"] or ended:
            continue
        for name, amount in {**requests_of(spec), "pods": Decimal(1)}.items():
            left[name] = left.get(name, Decimal(0)) - amount
    return left


def _labels_finding(
    nodes: Sequence[Object], ready: Sequence[Object], labelled: Sequence[Object], spec: Object
) -> Finding:
    layer, selector = "node pool", spec.get("nodeSelector") or {}
    cordoned = [node["metadata"]["name"] for node in nodes if _is_cordoned(node)]
    held = f"; cordoned: {', '.join(cordoned)}" if cordoned else ""
    if not ready:
        look = f"kubectl uncordon {cordoned[0]}" if cordoned else "kubectl get nodes"
        return fail(layer, f"none of {len(nodes)} nodes takes pods{held}", f"{look}; ask the cluster's administrator")
    if not labelled:
        asked = ", ".join(f"{key}={value}" for key, value in selector.items()) or "those of cluster.affinity"
        return fail(
            layer,
            f"none of {len(ready)} nodes that take pods has the labels asked for: {asked}{held}",
            "change cluster.node_selector or cluster.affinity; kubectl get nodes --show-labels",
        )
    return ok(layer, f"{len(labelled)} of {len(nodes)} nodes are ready and have the labels asked for{held}")


def _size_finding(
    labelled: Sequence[Object], able: Sequence[Object], asked: Mapping[str, Decimal], back: str
) -> Finding:
    layer, devices = "GPUs", {name: amount for name, amount in asked.items() if "/" in name}
    if not labelled:
        return skip(layer, "no node to look at")
    for name, amount in devices.items():
        most = max(allocatable(node).get(name, Decimal(0)) for node in labelled)
        if most < amount:
            found = f"the largest offers {show_quantity(most)}" if most else "none of these nodes offers any"
            remedy = "lower cluster.gpus_per_node" if most else "install the device plugin, or choose another node pool"
            return fail(layer, f"a pod asks for {show_quantity(amount)} {name}; {found}", back + remedy)
    if not able:
        short = Counter(
            name for node in labelled for name, amount in asked.items() if allocatable(node).get(name, 0) < amount
        )
        name = short.most_common(1)[0][0]
        return fail(
            layer,
            f"a pod asks for {show_quantity(asked[name])} {name}; no node that has the rest is that large",
            f"{back}lower cluster.cpus or cluster.memory_gib",
        )
    words = ", ".join(f"{show_quantity(amount)} {name}" for name, amount in devices.items()) or "no GPU"
    return ok(layer, f"{len(able)} nodes are large enough for a pod ({words})")


def _taints_finding(able: Sequence[Object], tolerated: Sequence[Object], spec: Object, back: str) -> Finding:
    layer = "taints"
    if not able:
        return skip(layer, "no node to look at")
    if tolerated:
        away = len(able) - len(tolerated)
        return ok(
            layer, "no node keeps the pods away" if not away else f"{away} of {len(able)} nodes keep the pods away"
        )
    kept_away = [untolerated(node, spec) for node in able]
    open_to_some = [taints for taints in kept_away if not any(each["key"].startswith(TROUBLE) for each in taints)]
    taints = min(open_to_some or kept_away, key=len)
    shown = ", ".join(
        f"{each['key']}{'=' + each['value'] if each.get('value') else ''}:{each['effect']}" for each in taints
    )
    if not open_to_some:
        wait = f"{back}wait, or ask the cluster's administrator"
        return fail(layer, f"every large enough node is in trouble: {shown}", wait)
    whole = [
        *(spec.get("tolerations") or []),
        *map(_toleration, taints),
    ]  # a list that is given replaces the one before
    return fail(
        layer,
        f"all {len(able)} large enough nodes have taints the pods do not tolerate, such as {shown}",
        f"{back}cluster.tolerations: [{', '.join(map(_flow, whole))}]",
    )


def _toleration(taint: Object) -> Object:
    value = {"operator": "Equal", "value": taint["value"]} if taint.get("value") else {"operator": "Exists"}
    return {"key": taint["key"], **value, "effect": taint["effect"]}


def _flow(toleration: Object) -> str:
    """Write a toleration as YAML in one line; a value may be a word that YAML reads as something else."""
    shown = {key: json.dumps(value) if key == "value" else value for key, value in toleration.items()}
    return f"{{{', '.join(f'{key}: {value}' for key, value in shown.items())}}}"


def _free_finding(
    nodes: Sequence[Object], pods: Sequence[Object] | None, asked: Mapping[str, Decimal], count: int, bound: int
) -> Finding:
    layer, needed = "free now", count - bound
    if needed <= 0:
        return ok(layer, "no pod of the job needs a node any more")
    if not nodes or pods is None:
        return skip(layer, "no node to look at" if not nodes else "other namespaces' pods may not be listed")
    room = sum(_times(free(node, pods), asked) for node in nodes)
    whole = sum(_times(allocatable(node), asked) for node in nodes)
    if whole < count:
        return fail(
            layer,
            f"the job has {count} pods; all suitable nodes together take {whole} even when empty",
            "lower cluster.nodes or the resources of a pod",
        )
    if room < needed:
        return warn(layer, f"room for {room} of {needed} pods at the moment: the job waits until others end")
    return ok(layer, f"room for {room} such pods, {needed} needed")


def _times(has: Mapping[str, Decimal], asked: Mapping[str, Decimal]) -> int:
    amounts = [int(max(has.get(name, Decimal(0)), Decimal(0)) // amount) for name, amount in asked.items() if amount]
    return min([*amounts, int(max(has.get("pods", Decimal(110)), Decimal(0)))])


def _fits(has: Mapping[str, Decimal], asked: Mapping[str, Decimal]) -> bool:
    return all(has.get(name, Decimal(0)) >= amount for name, amount in asked.items())


def _holds(rule: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(rule["key"]), rule.get("values") or []
    match rule["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    return True  # Gt and Lt: the scheduler will say


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")
