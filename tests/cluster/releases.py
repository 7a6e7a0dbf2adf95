"""A release of the chart on a real API server, and what is stored of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from tests.chart.helm import CHART, Helm
from tests.cluster.cluster import Cluster
from tests.cluster.playing import eventually

VALUES: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl"},
    "cluster": {"image": "localhost/none:1", "gpus_per_node": 0, "cpus": 0.1, "memory_gib": 0.25, "claim": "adapters"},
    "models": {key: {"enabled": False} for key in ("mbart50_mmt_fr", "mbart50_mmt_en", "m2m100_418m")},
    "chart": {"claim": {"create": True, "size": "1Gi"}},
}
# Everything a release could leave.
KINDS = "pytorchjobs,jobs,cronjobs,pods,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,pvc"
NOT_OURS = {"configmap/kube-root-ca.crt", "serviceaccount/default", "persistentvolumeclaim/mtft"}


def newer(folder: Path) -> Path:
    """Return a copy of the chart with a later version."""
    chart = shutil.copytree(CHART, folder / "mtft")
    about = (CHART / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(re.sub(r"(?m)^((?:appV|v)ersion:) .*$", r'\1 "99.0.0"', about))
    return chart


class Release:
    """One release in a namespace of its own."""

    def __init__(self, helm: Helm, cluster: Cluster, name: str = "weekly", namespace: str | None = None) -> None:
        self.helm, self.cluster, self.name = helm, cluster, name
        self.namespace = namespace or cluster.namespace("release")

    def __call__(self, verb: str, *arguments: str | Path, values: dict[str, Any] | None = None) -> str:
        return self.helm(verb, self.name, *arguments, "--namespace", self.namespace, values=values)

    def jobs(self) -> dict[str, dict[str, Any]]:
        found = self.cluster.get("pytorchjobs", "--namespace", self.namespace, "-l", f"mtft/batch={self.name}")
        return {each["metadata"]["name"]: each for each in found}

    def stored(self) -> dict[str, Any]:
        """Return what tells whether anything was done: of jobs, what was asked for; of the rest, every write."""
        kinds = "configmaps,pods,persistentvolumeclaims"
        others = self.cluster.get(kinds, "--namespace", self.namespace, "-l", "app.kubernetes.io/part-of=mtft")
        marks: dict[str, Any] = {
            name: (job["metadata"]["uid"], job["metadata"]["generation"], job["spec"], job["metadata"]["labels"])
            for name, job in self.jobs().items()
        }
        fixed = [each for each in others if each["kind"] == "ConfigMap"]
        marks |= {each["metadata"]["name"] + " map": each["metadata"]["resourceVersion"] for each in fixed}
        return marks | {each["metadata"]["name"] + " uid": each["metadata"]["uid"] for each in others}

    def texts(self) -> dict[str, str]:
        """Return what each job mounts."""
        found = self.cluster.get("configmaps", "--namespace", self.namespace, "-l", f"mtft/batch={self.name}")
        return {each["metadata"]["name"]: each["data"]["config.json"] for each in found}

    def left(self) -> set[str]:
        names = self.cluster.kubectl("get", KINDS, "--namespace", self.namespace, "-o", "name").split()
        return {name.removesuffix(".kubeflow.org") for name in names} - NOT_OURS

    def running(self) -> dict[str, Any]:
        """Wait until every job has its pod; return what is stored then."""
        jobs = self.jobs()
        eventually(lambda: len([key for key in self.stored() if "-master-0 uid" in key]) == len(jobs))
        return self.stored()
