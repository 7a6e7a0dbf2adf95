"""A real API server, the operator's schema and webhook, and Pod Security take every manifest we render."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.manifests import as_yaml
from tests.cluster.cluster import Cluster, KubectlFailed
from tests.goldens import EXAMPLES, cases, objects

STRICT = ("create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-")


@pytest.fixture(scope="module")
def namespace(control_plane: Cluster) -> Iterator[str]:
    """Give a restricted namespace with the account that a document names, and a PriorityClass of its own name."""
    name = control_plane.namespace("goldens", restricted=True)
    control_plane.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "trainer", "namespace": name}},
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": 1000,
        },
    )
    yield name
    control_plane.kubectl("delete", "priorityclass", name)


def placed(case: str, namespace: str) -> list[dict[str, Any]]:
    manifests = copy.deepcopy(objects(case))
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
    return manifests


def taken(cluster: Cluster, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the server would store; unknown and doubled fields are errors."""
    texts = [json.loads(cluster.kubectl(*STRICT, text=as_yaml([manifest]))) for manifest in manifests]
    assert len(texts) == len(manifests)
    return texts


def assert_within(sent: Any, stored: Any, path: str = "") -> None:
    """Assert that everything sent is stored as it was; the server may add to it."""
    if isinstance(sent, dict):
        for key, value in sent.items():
            assert key in stored, f"{path}.{key} was dropped"
            assert_within(value, stored[key], f"{path}.{key}")
    elif isinstance(sent, list):
        assert len(sent) == len(stored), path
        for index, value in enumerate(sent):
            assert_within(value, stored[index], f"{path}[{index}]")
    else:
        assert sent == stored, path


@pytest.mark.parametrize("case", cases())
def test_the_server_stores_what_was_rendered(control_plane: Cluster, namespace: str, case: str) -> None:
    manifests = placed(case, namespace)
    for sent, stored in zip(manifests, taken(control_plane, manifests), strict=True):
        assert_within(sent, stored)


@pytest.mark.parametrize("case", cases())
def test_pods_are_taken_where_restricted_is_enforced(control_plane: Cluster, namespace: str, case: str) -> None:
    for manifest in placed(case, namespace):
        if manifest["kind"] != "PyTorchJob":
            continue
        for role, replica in manifest["spec"]["pytorchReplicaSpecs"].items():
            name = f"{manifest['metadata']['name']}-{role.lower()}-0"
            metadata = {**replica["template"]["metadata"], "name": name, "namespace": namespace}
            spec = replica["template"]["spec"]
            if "priorityClassName" in spec:
                spec["priorityClassName"] = namespace  # a given cluster may have one of the document's name
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
            stored = json.loads(control_plane.kubectl(*STRICT, text=as_yaml([pod])))
            assert stored["status"]["qosClass"] == "Guaranteed"


def test_pod_security_is_really_asked(control_plane: Cluster, namespace: str) -> None:
    template = placed("minimal", namespace)[1]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    del template["spec"]["containers"][0]["securityContext"]["capabilities"]
    metadata = {**template["metadata"], "name": "loose", "namespace": namespace}
    with pytest.raises(KubectlFailed, match="violates PodSecurity"):
        control_plane.kubectl(
            *STRICT, text=as_yaml([{"apiVersion": "v1", "kind": "Pod", **template, "metadata": metadata}])
        )


@pytest.mark.parametrize(("case", "pods"), [("minimal", ["master-0"]), ("queue", ["master-0", "worker-0"])])
def test_the_operator_makes_the_pods(control_plane: Cluster, case: str, pods: list[str]) -> None:
    # Not where "restricted" is enforced: the operator's own init container is refused there.
    namespace = control_plane.namespace("operator")
    manifests = placed(case, namespace)
    name = manifests[1]["metadata"]["name"]
    control_plane.kubectl("create", "-f", "-", text=as_yaml(manifests))
    try:
        for rank, suffix in enumerate(pods):
            pod = f"{name}-{suffix}"
            control_plane.kubectl("wait", "--for=create", f"pod/{pod}", "-n", namespace, "--timeout=60s")
            spec = control_plane.get("pod", pod, "-n", namespace)["spec"]
            variables = [entry["name"] for entry in spec["containers"][0]["env"]]
            assert len(variables) == len(set(variables))
            values = {entry["name"]: entry.get("value") for entry in spec["containers"][0]["env"]}
            assert (values["RANK"], values["MASTER_ADDR"]) == (str(rank), f"{name}-master-0")
            assert spec["restartPolicy"] == "Never"  # ExitCode: the operator makes a new pod, the kubelet nothing
    finally:
        control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_misspelt_field_is_refused(control_plane: Cluster, namespace: str) -> None:
    manifests = placed("minimal", namespace)
    manifests[1]["spec"]["runPolicy"]["cleanPodPolicie"] = "Running"
    with pytest.raises(KubectlFailed, match="cleanPodPolicie"):
        taken(control_plane, manifests)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_apply(control_plane: Cluster, namespace: str, example: Path) -> None:
    place = namespace if example.stem != "claim" else "default"  # the namespace has its claim already
    printed = control_plane.kubectl("apply", "--dry-run=server", "-n", place, "-f", example).splitlines()
    assert len(printed) == len(list(yaml.safe_load_all(example.read_text(encoding="utf-8"))))
    assert all(line.endswith(" created (server dry run)") for line in printed), printed
