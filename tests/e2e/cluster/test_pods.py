"""The full test cluster runs pods: two of a job find each other by name, share the claim, and finish."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import base_image

# Each pod writes its rank; the worker asks the master by name, as torchrun does.
MASTER = """
import http.server, os, pathlib, time
pathlib.Path("/data/master").write_text(os.environ["RANK"])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"here is the master")
server = http.server.HTTPServer(("", int(os.environ["MASTER_PORT"])), Answer)
server.timeout = 1
while not pathlib.Path("/data/worker").exists():
    server.handle_request()
print("worker wrote", pathlib.Path("/data/worker").read_text())
"""
WORKER = """
import os, pathlib, time, urllib.request
url = f"http://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
for _ in range(60):
    try:
        print(urllib.request.urlopen(url, timeout=5).read().decode())
        break
    except OSError as error:
        print("not yet:", error)
        time.sleep(0.5)
pathlib.Path("/data/worker").write_text(os.environ["RANK"])
"""


def replica(code: str, image: str, gpus: int = 0) -> dict[str, Any]:
    container = {
        "name": "pytorch",
        "image": image,
        "command": ["python3", "-u", "-c", code],
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 4321, "runAsGroup": 0},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "mtft"}}],
        "terminationGracePeriodSeconds": 1,
    }
    pod["securityContext"]["seccompProfile"] = {"type": "RuntimeDefault"}  # type: ignore[index]
    return {"replicas": 1, "restartPolicy": "Never", "template": {"spec": pod}}


def job(namespace: str, **replicas: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "pair", "namespace": namespace},
        "spec": {"pytorchReplicaSpecs": replicas},
    }


def finished(cluster: Cluster, namespace: str, seconds: float = 180) -> str:
    """Wait for the end of the job and return the name of its last condition."""
    deadline = time.monotonic() + seconds
    while True:
        status = cluster.get("pytorchjob", "pair", "--namespace", namespace).get("status", {})
        last = [one["type"] for one in status.get("conditions", []) if one["status"] == "True"][-1:]
        if last and last[0] in ("Succeeded", "Failed"):
            return str(last[0])
        if time.monotonic() > deadline:
            pytest.fail(cluster.kubectl("describe", "pods", "--namespace", namespace))
        time.sleep(0.5)


@pytest.mark.parametrize("restricted", [False, True], ids=["open", "restricted"])
def test_two_pods_find_each_other_share_the_claim_and_succeed(full_cluster: Cluster, restricted: bool) -> None:
    namespace = full_cluster.namespace("pair", restricted=restricted)
    image = base_image().name

    full_cluster.apply(job(namespace, Master=replica(MASTER, image, gpus=1), Worker=replica(WORKER, image)))

    assert finished(full_cluster, namespace) == "Succeeded"
    assert "worker wrote 1" in full_cluster.kubectl("logs", "pair-master-0", "--namespace", namespace)
    assert "here is the master" in full_cluster.kubectl("logs", "pair-worker-0", "--namespace", namespace)


def test_a_job_that_asks_for_more_gpus_than_there_are_waits(full_cluster: Cluster) -> None:
    namespace = full_cluster.namespace("pair")
    full_cluster.apply(job(namespace, Master=replica(MASTER, base_image().name, gpus=3)))

    full_cluster.kubectl("wait", "--for=create", "pod/pair-master-0", "--namespace", namespace, "--timeout=60s")
    unscheduled = '--for=jsonpath={.status.conditions[?(@.type=="PodScheduled")].reason}=Unschedulable'
    full_cluster.kubectl("wait", unscheduled, "pod/pair-master-0", "--namespace", namespace, "--timeout=60s")
    message = full_cluster.get("pod", "pair-master-0", "--namespace", namespace)["status"]["conditions"][0]["message"]

    assert "Insufficient nvidia.com/gpu" in message
