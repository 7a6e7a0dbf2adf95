"""What the doctor says of nodes, quantities and namespaces, from objects as an API server gives them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import yaml

from launcher.cluster import connect
from launcher.doctor import settled_of
from launcher.doctor_access import check_pod, check_webhook
from launcher.doctor_nodes import check_nodes, requests_of
from launcher.findings import Finding
from launcher.quantities import parse_quantity, show_quantity
from tests.unit.api_server import Server, status, thing

POOL = {"key": "pool", "value": "gpu", "effect": "NoSchedule"}
TOLERATED = {"key": "pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}


def node(
    name: str = "gpu-1", *, ready: bool = True, taints: tuple[dict[str, str], ...] = (), **allocatable: str
) -> Any:
    return {
        "metadata": {"name": name, "labels": {"pool": "gpu"}},
        "spec": {"taints": list(taints)},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110", **allocatable},
        },
    }


GPUS: dict[str, Any] = {"nvidia.com/gpu": "8"}


DEVICE = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}


def on_gke(node: Any) -> Any:
    node["metadata"]["labels"]["cloud.google.com/gke-nodepool"] = "gpus"
    return node


def template(gpus: int = 4, **spec: Any) -> dict[str, Any]:
    limits = {"cpu": "4", "memory": "16Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {"spec": {"containers": [{"name": "pytorch", "resources": {"limits": limits}}], **spec}}


def found(
    nodes: list[Any], asked: dict[str, Any], *, count: int = 1, pods: list[Any] | None = None
) -> dict[str, Finding]:
    return {each.layer: each for each in check_nodes(nodes, pods if pods is not None else [], asked, count)}


def test_all_is_well() -> None:
    findings = found([node(**GPUS)], template())
    assert {each.verdict for each in findings.values()} == {"ok"}
    assert findings["free now"].message == "room for 2 such pods, 1 needed"


@pytest.mark.parametrize(
    ("nodes", "asked", "layer", "verdict", "words"),
    [
        ([], template(), "node pool", "fail", "none of 0 nodes takes pods"),
        ([node(ready=False, **GPUS)], template(), "node pool", "fail", "none of 1 nodes takes pods"),
        ([node(**GPUS)], template(nodeSelector={"pool": "a100"}), "node pool", "fail", "pool=a100"),
        ([node()], template(), "GPUs", "fail", "none of these nodes offers any"),
        ([node(**GPUS)], template(16), "GPUs", "fail", "the largest offers 8"),
        ([node(memory="8Gi", **GPUS)], template(), "GPUs", "fail", "16Gi memory"),
        ([node(taints=(POOL,), **GPUS)], template(), "taints", "fail", "pool=gpu:NoSchedule"),
        ([node(taints=(POOL,), **GPUS)], template(tolerations=[TOLERATED]), "taints", "ok", "no node keeps"),
        (
            [node(taints=(POOL,), **GPUS)],
            template(tolerations=[{**TOLERATED, "effect": "NoExecute"}]),
            "taints",
            "fail",
            "pool=gpu:NoSchedule",
        ),
        (
            [node(taints=(POOL,), **GPUS)],
            template(tolerations=[{"operator": "Exists"}]),
            "taints",
            "ok",
            "no node keeps",
        ),
        ([node(taints=({**POOL, "effect": "PreferNoSchedule"},), **GPUS)], template(), "taints", "ok", "no node keeps"),
        ([node(taints=(POOL,), **GPUS), node("b", **GPUS)], template(), "taints", "ok", "1 of 2 nodes keep"),
        ([node()], template(0), "GPUs", "ok", "no GPU"),
        ([node(taints=(DEVICE,), **GPUS)], template(), "taints", "fail", "nvidia.com/gpu=present:NoSchedule"),
        ([on_gke(node(taints=(DEVICE,), **GPUS))], template(), "taints", "ok", "no node keeps"),
        ([on_gke(node(taints=(POOL,), **GPUS))], template(), "taints", "fail", "pool=gpu:NoSchedule"),
    ],
)
def test_what_keeps_pods_from_nodes(
    nodes: list[Any], asked: dict[str, Any], layer: str, verdict: str, words: str
) -> None:
    finding = found(nodes, asked)[layer]
    assert finding.verdict == verdict and words in finding.message
    assert (finding.fix is not None) == (verdict == "fail")


def test_a_cordoned_node_is_told_by_name() -> None:
    cordoned = node("old", **GPUS)
    cordoned["spec"]["unschedulable"] = True
    alone = found([cordoned], template())["node pool"]
    assert (alone.verdict, alone.message) == ("fail", "none of 1 nodes takes pods; cordoned: old")
    assert alone.fix is not None and alone.fix.startswith("kubectl uncordon old; ")
    beside = found([node(**GPUS), cordoned], template())["node pool"]
    assert (beside.verdict, beside.message.endswith("asked for; cordoned: old")) == ("ok", True)
    other = found([node(**GPUS), cordoned], template(nodeSelector={"pool": "a100"}))["node pool"]
    assert other.verdict == "fail" and other.message.endswith("pool=a100; cordoned: old")


def test_the_fix_of_a_taint_is_a_toleration_of_ours() -> None:
    fix = found([node(taints=(POOL,), **GPUS)], template())["taints"].fix
    assert fix == 'cluster.tolerations: [{key: pool, operator: Equal, value: "gpu", effect: NoSchedule}]'


def test_the_fix_of_several_taints_ends_in_a_list_that_works() -> None:
    other = {"key": "extra", "effect": "NoExecute"}
    nodes = [node(taints=(POOL, other, {"key": "third", "effect": "NoSchedule"}), **GPUS)]
    nodes.append(node("b", taints=(POOL, other), **GPUS))
    nodes.append(node("c", taints=({"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"},), **GPUS))
    given: dict[str, Any] = {"tolerations": [TOLERATED]}
    finding = found(nodes, template(**given))["taints"]
    assert finding.message.endswith("such as extra:NoExecute")
    listed = yaml.safe_load((finding.fix or "").removeprefix("cluster.tolerations: "))
    assert listed == [TOLERATED, {"key": "extra", "operator": "Exists", "effect": "NoExecute"}]
    assert found(nodes, template(tolerations=listed))["taints"].verdict == "ok"
    listed = yaml.safe_load((found(nodes, template())["taints"].fix or "").removeprefix("cluster.tolerations: "))
    assert found(nodes, template(tolerations=listed))["taints"].verdict == "ok"


@pytest.mark.parametrize(("layer", "gpus"), [("taints", 0), ("GPUs", 4)])
def test_a_cordoned_node_that_would_serve_is_named_before_other_remedies(layer: str, gpus: int) -> None:
    cordoned = node("plain", **GPUS)
    cordoned["spec"] |= {
        "unschedulable": True,
        "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}],
    }
    finding = found([node(taints=(POOL,)), cordoned], template(gpus))[layer]
    assert finding.verdict == "fail" and (finding.fix or "").startswith("kubectl uncordon plain; or ")
    cordoned["spec"]["taints"].append(DEVICE)
    assert "uncordon" not in (found([node(taints=(POOL,)), cordoned], template(gpus))[layer].fix or "")


def test_what_others_hold_is_not_free() -> None:
    other = {
        "metadata": {"name": "x"},
        "spec": {"nodeName": "gpu-1", **template(6)["spec"]},
        "status": {"phase": "Running"},
    }
    over = {**other, "status": {"phase": "Succeeded"}}
    assert found([node(**GPUS)], template(), pods=[other])["free now"].verdict == "warn"
    assert found([node(**GPUS)], template(), pods=[over])["free now"].verdict == "ok"
    assert found([node(**GPUS)], template(), count=3)["free now"].verdict == "fail"
    assert {each.layer: each.verdict for each in check_nodes([node(**GPUS)], None, template(), 1)}["free now"] == "skip"


@pytest.mark.parametrize(
    ("count", "bound", "verdict", "words"),
    [
        (2, 2, "ok", "no pod of the job needs a node"),
        (2, 1, "warn", "room for 0 of 1 pods"),
        (1, 0, "warn", "room for 0 of 1 pods"),
    ],
)
def test_a_job_needs_room_only_for_pods_without_a_node(count: int, bound: int, verdict: str, words: str) -> None:
    own = {"metadata": {"name": "x"}, "spec": {"nodeName": "gpu-1", **template(8)["spec"]}, "status": {}}
    finding = check_nodes([node(**GPUS)], [own], template(), count, bound=bound)[-1]
    assert finding.verdict == verdict and words in finding.message


@pytest.mark.parametrize(
    ("phases", "ends", "settled"),
    [
        (["Running"], False, (1, 1)),
        (["Running", ""], False, (2, 1)),
        (["Failed", "Running"], False, (1, 1)),
        ([], True, (2, 2)),
    ],
)
def test_what_of_a_job_is_there_already(phases: list[str], ends: bool, settled: tuple[int, int]) -> None:
    pods = [{"spec": {"nodeName": "gpu-1"} if phase else {}, "status": {"phase": phase}} for phase in phases]
    job = {"status": {"conditions": [{"type": "Succeeded", "status": "True"}] if ends else []}}
    assert settled_of(job, pods, 2) == settled


def test_a_node_takes_so_many_pods() -> None:
    finding = found([node(pods="1")], template(0), count=2)["free now"]
    assert (finding.verdict, finding.message.rpartition("together ")[2]) == ("fail", "take 1 even when empty")


def test_affinity_is_read_as_the_scheduler_reads_it() -> None:
    def with_rule(**rule: Any) -> dict[str, Any]:
        terms = {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}
        return template(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})

    for rule, verdict in (
        ({"key": "pool", "operator": "In", "values": ["gpu", "b"]}, "ok"),
        ({"key": "pool", "operator": "NotIn", "values": ["gpu"]}, "fail"),
        ({"key": "zone", "operator": "Exists"}, "fail"),
        ({"key": "zone", "operator": "DoesNotExist"}, "ok"),
    ):
        assert found([node(**GPUS)], with_rule(**rule))["node pool"].verdict == verdict


def test_requests_go_over_limits() -> None:
    container = {"resources": {"limits": {"cpu": "4"}, "requests": {"cpu": "500m", "memory": "1Gi"}}}
    assert requests_of({"containers": [container, container]}) == {"cpu": Decimal(1), "memory": Decimal(2 * 2**30)}


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("500m", "0.5", "0.5"),
        ("10Gi", str(10 * 2**30), "10Gi"),
        ("2e3", "2000", "2000"),
        (8, "8", "8"),
        ("128974848", "128974848", "123Mi"),
        ("1G", "1000000000", "953.7Mi"),
        ("0", "0", "0"),
    ],
)
def test_quantities(text: str | int, value: str, shown: str) -> None:
    assert parse_quantity(text) == Decimal(value)
    assert show_quantity(parse_quantity(text)) == shown


@pytest.mark.parametrize("text", ["", "ten", "1Q", "1 Gi", "--1"])
def test_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a Kubernetes quantity"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ('admission webhook "policies" denied the request: no label owner', "fail"),
        ('User "me" cannot create resource "pytorchjobs" in API group "kubeflow.org" in the namespace "team"', "skip"),
        ("exceeded quota: q, requested: pods=1", "skip"),
    ],
)
def test_what_refuses_a_job_is_told_unless_another_layer_does(server: Server, said: str, verdict: str) -> None:
    server.answers = [status(403, "Forbidden", said)]
    finding = check_webhook(connect(), {"kind": "PyTorchJob", **thing("a", "1")})
    assert finding.verdict == verdict and (verdict == "skip" or said in finding.message)


@pytest.mark.parametrize(
    ("code", "said", "verdict"),
    [
        (400, 'admission webhook "policies" denied the request: no bare pods', "warn"),
        (403, 'admission webhook "policies" denied the request: no bare pods', "warn"),
        (422, "pods \"a\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: no bare pods", "warn"),
        (422, "spec.tolerations[0].operator: Unsupported value", "fail"),
        (403, 'pods "a" is forbidden: pod rejected: RuntimeClass "x" not found', "fail"),
        (403, 'pods "a" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes', "fail"),
        (403, 'pods "a" is forbidden: maximum memory usage per Container is 1Gi, but limit is 32Gi', "fail"),
        (403, 'pods "a" is forbidden: failed quota: q: must specify limits.memory for: pytorch', "fail"),
        (403, "exceeded quota: q, requested: pods=1", "skip"),
        (403, 'User "me" cannot create resource "pods" in API group "" in the namespace "team"', "skip"),
        (500, 'Internal error occurred: failed calling webhook "mesh": connection refused', "fail"),
    ],
)
def test_what_refuses_a_pod_is_held_against_the_job_where_it_meets_the_operator_too(
    server: Server, code: int, said: str, verdict: str
) -> None:
    server.answers = [status(code, "any", said)] * (8 if code == 500 else 1)
    finding = check_pod(connect(), {"metadata": {}, "spec": {}})
    assert finding.verdict == verdict and (verdict == "skip" or said in finding.message)
