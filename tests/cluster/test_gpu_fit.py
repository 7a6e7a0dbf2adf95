"""Jobs and the memory that the nodes' labels give a GPU, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mtft import exit_codes
from tests.cluster.cluster import Cluster
from tests.cluster.launching import DOCUMENT, Launcher

# Nobody else's pods ask for it.
RESOURCE = "example.com/small"
ASKED = DOCUMENT | {"cluster": {"image": "localhost/none:1", "gpu_resource": RESOURCE}}


@pytest.fixture
def small_node(control_plane: Cluster) -> Iterator[str]:
    name, size = "small-0", {"cpu": "32", "memory": "1Ti", "pods": "10", RESOURCE: "2"}
    ready = {"type": "Ready", "status": "True", "reason": "Fake", "message": "nothing runs here"}
    node: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {f"{RESOURCE}.memory": "8192"}},
        "status": {"allocatable": size, "capacity": size, "conditions": [ready]},
    }
    control_plane.kubectl("create", "-f", "-", text=json.dumps(node))
    yield name
    control_plane.kubectl("delete", "node", name)


@pytest.mark.parametrize(
    "verb", [["run"], ["validate", "--server"], ["batch", "--models", "m2m100_418m"]], ids=lambda verb: verb[0]
)
def test_a_training_that_no_node_has_room_for_is_refused(launcher: Launcher, small_node: str, verb: list[str]) -> None:
    assert launcher(*verb, document=ASKED) == exit_codes.BAD_INPUT, launcher.out + launcher.err
    assert f"of node {small_node}, has 8 GiB ({RESOURCE}.memory)" in launcher.err
    assert launcher.json("list") == []


def test_who_insists_sends_it_and_the_doctor_says_why_not(launcher: Launcher, small_node: str) -> None:
    name = launcher.json("run", "--force", document=ASKED)["name"]
    for asked in ((name,), ()):
        layers = launcher.json("doctor", *asked, document=None if asked else ASKED, code=exit_codes.FAILED)
        found = {each["layer"]: each for each in layers}["GPU memory"]
        assert found["verdict"] == "fail" and small_node in found["message"] and "qlora" in found["fix"]


def test_what_is_not_known_is_said_and_sent(
    control_plane: Cluster, launcher: Launcher, small_node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_plane.kubectl("label", "node", small_node, f"{RESOURCE}.memory-")
    assert launcher("run", document=ASKED) == exit_codes.DONE
    assert f"node {small_node} has no label {RESOURCE}.memory" in launcher.err
    rights = [
        {"apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
    ]
    monkeypatch.setenv("KUBECONFIG", str(control_plane.user(launcher.namespace, rights)))
    assert launcher("run", "--rerun", document=ASKED) == exit_codes.DONE
    assert "you may not list nodes" in launcher.err and "cluster.gpu_memory_gib" in launcher.err
    image = {"image": "localhost/none:1", "gpu_resource": RESOURCE}
    known = DOCUMENT | {"cluster": {**image, "gpu_memory_gib": 1}}
    for verb in (["run", "--rerun"], ["validate", "--server"]):
        assert launcher(*verb, document=known) == exit_codes.BAD_INPUT
        assert "cluster.gpu_memory_gib is 1" in launcher.err and "accepted" not in launcher.err
    layers = {each["layer"]: each for each in launcher.json("doctor", document=known, code=exit_codes.FAILED)}
    assert layers["nodes"]["verdict"] == "skip" and layers["GPU memory"]["verdict"] == "fail"
