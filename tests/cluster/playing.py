"""Jobs on a control plane without kubelets: the operator makes the pods, the test says what became of them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.pytorchjob import render
from tests.cluster.cluster import Cluster

SECONDS = 60  # bound of every wait
MODEL = "opus_mt_en_fr"
DOCUMENT: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl"},
    "cluster": {"image": "example.org/mtft:1.0", "gpus_per_node": 0, "cpus": 1, "memory_gib": 1},
}
FINISHED = {
    "scores": {"base": {"en-fr": {"bleu": 30.0, "chrf": 55.0}}, "tuned": {"en-fr": {"bleu": 33.5, "chrf": 57.0}}},
}


@dataclass
class Played:
    """A job and its pods."""

    cluster: Cluster
    namespace: str
    name: str

    @property
    def master(self) -> str:
        """Name of the first pod."""
        return f"{self.name}-master-0"

    def job(self) -> Any:
        """Return the PyTorchJob as it is."""
        return self.cluster.get("pytorchjob", self.name, "-n", self.namespace)

    def pods(self) -> list[Any]:
        """Return its pods as they are."""
        found: list[Any] = self.cluster.get(
            "pods", "-n", self.namespace, "-l", f"training.kubeflow.org/job-name={self.name}"
        )
        return found

    def has(self, condition: str) -> bool:
        """Whether a condition of the job holds."""
        conditions = (self.job().get("status") or {}).get("conditions") or []
        return any(each["type"] == condition and each["status"] == "True" for each in conditions)

    def await_pod(self, other_than: str = "") -> str:
        """Wait until the master pod is bound to a node; return its uid, another than the one given."""

        def uid() -> str:
            for each in self.pods():
                bound = each["spec"].get("nodeName") and not each["metadata"].get("deletionTimestamp")
                if each["metadata"]["name"] == self.master and bound and each["metadata"]["uid"] != other_than:
                    return str(each["metadata"]["uid"])
            return ""

        return str(eventually(uid))

    def runs(self, pod: str | None = None) -> None:
        """Let a pod run."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._become(pod, "Running", {"running": {"startedAt": now}})

    def ends(
        self, code: int, message: Mapping[str, Any] | str = "", pod: str | None = None, phase: str | None = None
    ) -> None:
        """Let a pod end with an exit code and what the trainer leaves as its termination message.

        With a phase the pod is left in it, as a kubelet does for a moment between the end of a container and its pod's.
        """
        text = message if isinstance(message, str) else json.dumps(message)
        terminated = {"exitCode": code, "reason": "Error" if code else "Completed", "message": text}
        self._become(pod, phase or ("Failed" if code else "Succeeded"), {"terminated": terminated})

    def evicted(self) -> None:
        """Let the master pod be evicted from its node."""
        self._patch(self.master, {"phase": "Failed", "reason": "Evicted", "message": "low on memory"})

    def _become(self, pod: str | None, phase: str, state: Mapping[str, Any]) -> None:
        container = {
            "name": "pytorch",
            "image": "example.org/mtft:1.0",
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        self._patch(pod or self.master, {"phase": phase, "containerStatuses": [container]})

    def _patch(self, pod: str, status: Mapping[str, Any]) -> None:
        text = json.dumps({"status": status})
        self.cluster.kubectl(
            *("patch", "pod", pod, "-n", self.namespace, "--subresource=status", "--type=merge", "-p", text)
        )


def submit(cluster: Cluster, namespace: str, *, batch: str | None = None, **settings: Any) -> Played:
    """Send a new job; ``settings`` go over the cluster part of its document."""
    document = {**DOCUMENT, "model": MODEL, "cluster": {**DOCUMENT["cluster"], **settings}}
    objects = render(document, MODEL, batch=batch, nonce=secrets.token_hex(4), namespace=namespace)
    cluster.apply(*objects)
    return Played(cluster, namespace, objects[-1]["metadata"]["name"])


def eventually(look: Callable[[], Any]) -> Any:
    """Return what ``look`` gives as soon as it gives something."""
    last = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < last, f"waited {SECONDS} s in vain"
        time.sleep(0.2)
    return found


def cap(cluster: Cluster, namespace: str, hard: Mapping[str, str]) -> None:
    """Make the namespace's ResourceQuota ``q``, or change it; return when it is in force."""
    meta = {"name": "q", "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": dict(hard)}})
    eventually(lambda: cluster.get("resourcequota", "q", "-n", namespace).get("status", {}).get("hard") == hard)
