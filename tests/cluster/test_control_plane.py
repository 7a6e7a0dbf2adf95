"""The control plane refuses and allows what a real one does, and the operator does its part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cluster import __main__ as by_hand
from tests.cluster.cluster import Cluster, KubectlFailed
from tests.cluster.parts import MissingPart
from tests.cluster.playing import eventually

RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
GPU_POOL: dict[str, Any] = {
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}],
}


def replica(count: int, container: str = "pytorch") -> dict[str, Any]:
    containers = [{"name": container, "image": "localhost/none", "command": ["true"]}]
    return {"replicas": count, "restartPolicy": "OnFailure", "template": {"spec": {"containers": containers}}}


def job(namespace: str, name: str, **replicas: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    spec = {"nprocPerNode": "2", "pytorchReplicaSpecs": replicas}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": metadata, "spec": spec}


def pod(namespace: str, name: str, security: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "main", "image": "localhost/none", "securityContext": security or {}}
    if "nodeSelector" in spec:
        container["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **spec}}


def as_user(cluster: Cluster, user: Any, *arguments: str) -> str:
    return Cluster(user, cluster.client).kubectl(*arguments)


def test_a_user_may_do_what_the_role_says_and_nothing_else(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("rbac")
    user = control_plane.user(namespace, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}])

    assert as_user(control_plane, user, "get", "pods", "--output", "name") == ""
    with pytest.raises(KubectlFailed, match=r"cannot list resource \"secrets\" in API group"):
        as_user(control_plane, user, "get", "secrets")
    with pytest.raises(KubectlFailed, match=r"cannot list resource \"pods\" .* in the namespace \"default\""):
        as_user(control_plane, user, "get", "pods", "--namespace", "default")


def test_the_webhook_refuses_a_job_without_a_container_named_pytorch(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("webhook")

    with pytest.raises(
        KubectlFailed, match=r"validator\.pytorchjob.* must have at least one container with name pytorch"
    ):
        control_plane.apply(job(namespace, "odd", Master=replica(1, container="main")))

    assert control_plane.get("pytorchjobs", "--namespace", namespace) == []


def test_a_job_gets_its_pods_services_and_environment(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("job")
    control_plane.apply(job(namespace, "two", Master=replica(1), Worker=replica(1)))

    def pods() -> dict[str, Any]:
        found = control_plane.get("pods", "--namespace", namespace)
        return {one["metadata"]["name"]: one["spec"] for one in found} if len(found) == 2 else {}

    made = eventually(pods)
    services = eventually(lambda: control_plane.get("services", "--namespace", namespace))

    assert set(made) == {"two-master-0", "two-worker-0"} == {one["metadata"]["name"] for one in services}
    environment = {one["name"]: one.get("value") for one in made["two-worker-0"]["containers"][0]["env"]}
    assert environment["MASTER_ADDR"] == "two-master-0"
    assert environment["RANK"] == "1"
    assert environment["WORLD_SIZE"] == "4"
    assert [one["name"] for one in made["two-worker-0"]["initContainers"]] == ["init-pytorch"]
    assert "initContainers" not in made["two-master-0"]


def test_a_deleted_job_takes_its_pods_with_it(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("gone")
    control_plane.apply(job(namespace, "one", Master=replica(1)))
    eventually(lambda: [one for one in pods_of(control_plane, namespace) if one["spec"].get("nodeName")])

    control_plane.kubectl("delete", "pytorchjob", "one", "--namespace", namespace)

    eventually(lambda: not pods_of(control_plane, namespace))


def pods_of(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get("pods", "--namespace", namespace)
    return found


def test_a_restricted_namespace_takes_only_restricted_pods(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("restricted", restricted=True)

    with pytest.raises(KubectlFailed, match=r"violates PodSecurity \"restricted"):
        control_plane.apply(pod(namespace, "lax"))
    control_plane.apply(pod(namespace, "strict", RESTRICTED_CONTAINER))


@pytest.mark.usefixtures("idle_nodes")
def test_workers_of_a_restricted_namespace_need_the_operators_template(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("template", restricted=True)
    master, worker = replica(1), replica(1)
    for one in (master, worker):
        one["template"]["spec"]["containers"][0]["securityContext"] = RESTRICTED_CONTAINER
    control_plane.apply(job(namespace, "two", Master=master, Worker=worker))

    def refusals() -> list[str]:
        events = control_plane.get("events", "--namespace", namespace)
        return [one["message"] for one in events if "violates PodSecurity" in one["message"]]

    assert 'container "init-pytorch" must set securityContext' in eventually(refusals)[0]
    try:
        control_plane.init_template(True)
        eventually(lambda: len(pods_of(control_plane, namespace)) == 2)
    finally:
        control_plane.init_template(False)


@pytest.mark.usefixtures("idle_nodes")
def test_gpu_pods_go_to_the_tainted_pool_and_only_with_its_toleration(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("gpu")
    without = {"nodeSelector": GPU_POOL["nodeSelector"]}
    control_plane.apply(pod(namespace, "with", **GPU_POOL), pod(namespace, "without", **without))

    def node(name: str) -> str | None:
        found: str | None = control_plane.get("pod", name, "--namespace", namespace)["spec"].get("nodeName")
        return found

    def refusal() -> str | None:
        conditions = control_plane.get("pod", "without", "--namespace", namespace)["status"].get("conditions", [])
        return next((one["message"] for one in conditions if one.get("reason") == "Unschedulable"), None)

    nodes = control_plane.get("nodes", "--selector", "pool=gpu")
    assert eventually(lambda: node("with")) in {one["metadata"]["name"] for one in nodes}
    assert "untolerated taint" in eventually(refusal)
    assert node("without") is None


def test_the_claim_of_a_namespace_is_shared_and_bound(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("claim")

    claim = control_plane.get("persistentvolumeclaim", "mtft", "--namespace", namespace)

    assert claim["status"]["accessModes"] == ["ReadWriteMany"]
    assert claim["status"]["phase"] == "Bound"


def test_a_second_start_does_not_take_the_first_for_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_hand, "CACHE", tmp_path)
    monkeypatch.setattr(by_hand, "STATE", tmp_path / "cluster")
    (tmp_path / "cluster").mkdir()
    with by_hand._starting(), pytest.raises(MissingPart, match="another `make cluster-up` is starting it"):
        by_hand._up("control-plane")
    with pytest.raises(MissingPart, match="what is left of one that runs no more: `make cluster-down`"):
        by_hand._up("control-plane")
