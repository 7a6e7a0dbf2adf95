"""A real node: the kubelet on this machine. One at a time, as root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import ControlPlane
from tests.cluster.network import GATEWAY
from tests.cluster.processes import free_ports

NAME = "node-0"
GPUS = 2  # advertised, not there: jobs that ask for them are scheduled and find no device
SAVED = "sysctls.json"  # in the state: kernel settings before the kubelet
# What the kubelet sets for the whole machine at its start, below /proc/sys.
_SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")


def start_kubelet(plane: ControlPlane) -> None:
    """Start the kubelet of a control plane that listens on the bridge; returns when the node is ready and has GPUs.

    Raises:
        ClusterFailed: it ended or was not ready in time.
    """
    state = plane.state
    (state / SAVED).write_text(json.dumps({name: Path("/proc/sys", name).read_text() for name in _SYSCTLS}))
    (state / "resolv.conf").write_text("")  # pods know no name server but ours
    (state / "kubelet.json").write_text(json.dumps(_configuration(plane), indent=2))
    command: list[str | Path] = [plane.tools["kubelet"], "--config", state / "kubelet.json"]
    command += ["--root-dir", state / "kubelet", "--cert-dir", state / "kubelet-keys"]
    command += ["--kubeconfig", plane.kubeconfig("kubelet"), "--hostname-override", NAME, "--node-ip", GATEWAY]
    plane.processes.start("kubelet", command)
    plane.processes.wait("kubelet", lambda: _ready(plane))
    _advertise_gpus(plane)


def _configuration(plane: ControlPlane) -> dict[str, Any]:
    state = plane.state
    (health,) = free_ports(1)
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": GATEWAY,
        "healthzPort": health,
        # The API server calls with the certificate that it was given for this; its roles say what it may.
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plane.keys / "api.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{state}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [GATEWAY],
        "clusterDomain": "cluster.local",
        "resolvConf": str(state / "resolv.conf"),
        "podLogsDir": str(state / "pod-logs"),
        "volumePluginDir": str(state / "volume-plugins"),
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,  # a lower one needs CAP_SYS_RESOURCE
        # A shared disk that is nearly full, or an image that nobody uses now, is no reason to evict or remove.
        # A machine whose disk was full for a moment must not lose its images: nothing could pull them again.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        # A kubelet that sees a changed claim or Secret late makes tests slow.
        "syncFrequency": "10s",
    }


def _ready(plane: ControlPlane) -> bool:
    conditions = [one for node in plane.cluster.get("nodes") for one in node["status"].get("conditions", [])]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _advertise_gpus(plane: ControlPlane) -> None:
    patch = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": str(GPUS)}]
    kubectl = plane.cluster.kubectl
    kubectl("patch", "node", NAME, "--subresource=status", "--type=json", "-p", json.dumps(patch))
    shown = "--for=jsonpath={.status.allocatable.nvidia\\.com/gpu}=" + str(GPUS)
    kubectl("wait", f"node/{NAME}", shown, "--timeout=60s")
