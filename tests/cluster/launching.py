"""mtft-launch against a test cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.cluster import Cluster, connect
from launcher.pytorchjob import render
from launcher.resources import JOBS, PODS
from mtft.runs import JOB_UID_FILE

DOCUMENT = {
    "model": "m2m100_418m",
    "data": {"train": "/mnt/mtft/data/train.jsonl"},
    "cluster": {"image": "localhost/none:1", "gpus_per_node": 0},
}


class Launcher:
    """Runs verbs as one user in one namespace and keeps what they printed."""

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        monkeypatch.chdir(folder)
        self.namespace, self.folder, self._capsys = namespace, folder, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str, document: dict[str, Any] | None = None) -> int:
        """Run a verb; with a document as its configuration."""
        if document is not None:
            (self.folder / "given.json").write_text(json.dumps(document))
            arguments = (*arguments, "--config", "given.json")
        self._capsys.readouterr()
        code = main([*arguments, "-n", self.namespace])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: str, document: dict[str, Any] | None = None, code: int = 0) -> Any:
        """Run a verb with ``-o json`` and return what it printed; it must leave with this code."""
        assert self(*arguments, "-o", "json", document=document) == code, self.out + self.err
        return json.loads(self.out)

    @property
    def cluster(self) -> Cluster:
        """Give the cluster as the launcher sees it."""
        return connect(None, self.namespace)


def end_pod(cluster: Cluster, name: str, exit_code: int, message: str = "") -> None:
    """Play a pod's end, which kubelet reports in a real cluster."""
    terminated = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message}
    status = {
        "phase": "Failed" if exit_code else "Succeeded",
        "containerStatuses": [
            {
                "name": "pytorch",
                "image": "none",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": {"terminated": terminated},
            }
        ],
    }
    cluster.patch(PODS, name, {"status": status}, part="status")


def until_state(cluster: Cluster, name: str, kind: str, eventually: Callable[..., Any]) -> dict[str, Any]:
    """Wait until the operator has set a condition, and return the job."""
    from launcher.job_objects import condition

    def there() -> dict[str, Any] | None:
        job = cluster.get(JOBS, name)
        return job if condition(job, kind) else None

    found: dict[str, Any] = eventually(there)
    return found


def changed(**cluster: Any) -> dict[str, Any]:
    return {**DOCUMENT, "cluster": {**DOCUMENT["cluster"], **cluster}}  # type: ignore[dict-item]


def names(launcher: Launcher) -> list[str]:
    return sorted(job["metadata"]["name"] for job in launcher.cluster.list(JOBS).items)


def rendered(launcher: Launcher, name: str | None = None, **settings: Any) -> list[dict[str, Any]]:
    return render({**DOCUMENT, **settings}, "m2m100_418m", name=name, namespace=launcher.namespace)


def without_uid(data: dict[str, str] | None) -> dict[str, str] | None:
    """Return what a ConfigMap held when it was sent."""
    return data and {name: text for name, text in data.items() if name != JOB_UID_FILE}


def without_defaults(spec: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a job's specification without the one field the CRD fills in."""
    if spec is not None and spec["runPolicy"].get("suspend") is False:
        del spec["runPolicy"]["suspend"]
    return spec
