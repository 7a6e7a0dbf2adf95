"""Whether a training fits the GPUs of the nodes its pods may go to, as the nodes' labels tell."""

from __future__ import annotations

from typing import Any

import pytest

from launcher import gpu_fit
from launcher.cluster_errors import Forbidden
from launcher.pytorchjob import render
from mtft.errors import InputError
from mtft.settings import Resolved, resolve

GIVEN = {"model": "m2m100_418m", "data": {"train": "/mnt/mtft/t"}}
TAINT = {"key": "pool", "value": "gpu", "effect": "NoSchedule"}


def node(
    name: str, mib: str | None, *, resource: str = "nvidia.com/gpu", pool: str = "a", **spec: Any
) -> dict[str, Any]:
    labels = {"pool": pool} | ({} if mib is None else {f"{resource}.memory": mib})
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": {resource: "2"}}}


SMALL, LARGE = node("small", "8192"), node("large", "81920", pool="b")
CORDONED = node("cordoned", "81920", taints=[{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}])


class Nodes:
    """A cluster that has these nodes, or does not show them."""

    def __init__(self, *nodes: Any, hidden: bool = False) -> None:
        self.nodes, self.hidden, self.calls = nodes, hidden, 0
        self.items = nodes

    def list(self, *_: Any, **__: Any) -> Nodes:
        self.calls += 1
        if self.hidden:
            raise Forbidden("no")
        return self


def planned(**cluster: Any) -> tuple[Resolved, Any]:
    document = GIVEN | {"cluster": {"image": "localhost/none:1", **cluster}}
    return resolve(document), render(document, "m2m100_418m")[-1]


def told(nodes: Nodes, **cluster: Any) -> str | None:
    return gpu_fit.refuse_unfit(nodes, [planned(**cluster)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "cluster"),
    [
        ([SMALL], {}),
        ([SMALL, LARGE], {"node_selector": {"pool": "a"}}),
        ([SMALL, node("away", "81920", taints=[TAINT])], {}),
        ([SMALL, node("other", "81920", resource="nvidia.com/mig-1g.10gb")], {}),
        ([node("one", "9728", resource="nvidia.com/mig-1g.10gb")], {"gpu_resource": "nvidia.com/mig-1g.10gb"}),
    ],
)
def test_no_gpu_that_the_pods_may_go_to_has_room(nodes: list[Any], cluster: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"needs about 13\.\d GiB .*the largest GPU .* of node (small|one), has [89]"):
        told(Nodes(*nodes), **cluster)


def test_every_model_that_fits_nowhere_is_named_after_one_look_at_the_nodes() -> None:
    nodes = Nodes(SMALL)
    with pytest.raises(InputError) as refused:
        gpu_fit.refuse_unfit(nodes, [planned(), planned()])  # type: ignore[arg-type]
    assert str(refused.value).count("needs about") == 2 and "--force" in str(refused.value)
    assert nodes.calls == 1


@pytest.mark.parametrize(
    ("nodes", "cluster"),
    [
        ([SMALL, LARGE], {}),
        ([SMALL, CORDONED], {}),
        ([SMALL, node("pool", "81920", taints=[TAINT])], {"tolerations": [{"key": "pool", "operator": "Exists"}]}),
    ],
)
def test_one_gpu_with_room_is_enough(nodes: list[Any], cluster: dict[str, Any]) -> None:
    assert told(Nodes(*nodes), **cluster) is None


@pytest.mark.parametrize("cluster", [{"gpus_per_node": 0}, {"gpu_memory_gib": 80}])
def test_nodes_are_not_asked_where_nothing_hangs_on_them(cluster: dict[str, Any]) -> None:
    nodes = Nodes(SMALL)
    assert told(nodes, **cluster) is None
    assert nodes.calls == 0


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        (Nodes(hidden=True), "you may not list nodes"),
        (Nodes(node("bare", None), SMALL), "node bare has no label nvidia.com/gpu.memory"),
        (Nodes(node("odd", "8Gi")), "node odd has no label nvidia.com/gpu.memory"),
        (Nodes(node("zero", "0")), "node zero has no label nvidia.com/gpu.memory that tells a size"),
        (Nodes(), "no node that the pods may go to has 1 nvidia.com/gpu now"),
    ],
)
def test_what_is_not_known_is_a_note_with_the_setting_that_tells(nodes: Nodes, why: str) -> None:
    note = told(nodes)
    assert note is not None and why in note and "cluster.gpu_memory_gib" in note


@pytest.mark.parametrize(
    ("cluster", "verdict", "words"),
    [
        ({}, "fail", "of node small, has 8 GiB"),
        ({"gpu_memory_gib": 1}, "fail", "cluster.gpu_memory_gib is 1"),
        ({"gpu_memory_gib": 80}, "ok", "13."),
        ({"gpus_per_node": 0}, "skip", "no GPU"),
        ({"node_selector": {"pool": "c"}}, "skip", "cluster.gpu_memory_gib"),
    ],
)
def test_the_doctor_says_the_same(cluster: dict[str, Any], verdict: str, words: str) -> None:
    one, job = planned(**cluster)
    found = gpu_fit.check_fit(one, [SMALL], job)
    assert found.verdict == verdict and words in found.message
    assert (found.fix is None) == (verdict != "fail")
