"""Nodes for the control plane level: the scheduler binds pods to them, nothing runs there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane

_STAGES = Path(__file__).parent / "kwok.yaml"
GPU_TAINT = {"key": "pool", "value": "gpu", "effect": "NoSchedule"}


def start_fake_nodes(plane: ControlPlane) -> None:
    """Add two plain nodes and a tainted pool of two with 8 GPUs each; kwok keeps them alive and ends their pods."""
    nodes = [_plain("plain-0"), _plain("plain-1"), _gpu("gpu-0"), _gpu("gpu-1")]
    # Not applied: the server takes a node's status from its creator, as a kubelet is one, but from no later writer.
    plane.cluster.kubectl("create", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))
    command: list[str | Path] = [plane.tools["kwok"], f"--kubeconfig={plane.kubeconfig('kwok')}", f"--config={_STAGES}"]
    command += ["--manage-all-nodes=true", "--node-lease-duration-seconds=40"]
    plane.processes.start("kwok", command)


def _plain(name: str) -> dict[str, Any]:
    return _node(name, "plain", {"cpu": "256", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "1000"})


def _gpu(name: str) -> dict[str, Any]:
    size = {"cpu": "96", "memory": "1Ti", "ephemeral-storage": "1Ti", "pods": "110", "nvidia.com/gpu": "8"}
    node = _node(name, "gpu", size)
    node["metadata"]["labels"]["nvidia.com/gpu.product"] = "NVIDIA-A100-SXM4-80GB"
    node["spec"] = {"taints": [GPU_TAINT]}
    return node


def _node(name: str, pool: str, size: dict[str, str]) -> dict[str, Any]:
    labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name, "pool": pool}
    ready = {"type": "Ready", "status": "True", "reason": "Fake", "message": "nothing runs here"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "status": {"allocatable": size, "capacity": size, "conditions": [ready]},
    }
