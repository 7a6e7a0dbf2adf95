"""Helm as tests call it, and the objects it renders."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import CHECKOUT

CHART = CHECKOUT / "helm" / "mtft"
VERSIONS = ("helm3", "helm4")
_SECONDS = 300


class HelmFailed(Exception):
    """Helm refused; the text is what it wrote to standard error."""


@dataclass(frozen=True)
class Helm:
    """One Helm program.

    Attributes:
        program: where it is.
        home: folder for all that it keeps.
        kubeconfig: the cluster it talks to; None: none.
    """

    program: Path
    home: Path
    kubeconfig: Path | None = field(default=None)

    @property
    def name(self) -> str:
        """Return helm3 or helm4."""
        return self.program.name

    def __call__(self, *arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
        """Run Helm and return what it printed; ``values`` is given as a values file.

        Raises:
            HelmFailed: it exited with another code than 0.
        """
        command = [str(self.program), *map(str, arguments), *(["--values", "-"] if values is not None else [])]
        done = subprocess.run(
            command,
            input=None if values is None else json.dumps(values, ensure_ascii=False),
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise HelmFailed(done.stderr.strip())
        return done.stdout

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start Helm with its output and its errors in pipes."""
        command = [str(self.program), *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self._environment(), stdout=pipe, stderr=pipe, text=True)

    def _environment(self) -> dict[str, str]:
        # Nothing of the user's own: neither plugins nor repositories nor a cluster.
        folders = {f"HELM_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CONFIG", "CACHE", "DATA")}
        cluster = {"KUBECONFIG": str(self.kubeconfig or self.home / "none")}
        # It lives too short to be worth collecting its garbage: a quarter of its time.
        return {**os.environ, **folders, **cluster, "GOGC": "off"}

    def template(
        self, release: str, *arguments: str | Path, values: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Return the objects of a release, without the pod of ``helm test``.

        Raises:
            HelmFailed: the chart refuses the values.
        """
        text = self("template", release, CHART, "--skip-tests", *arguments, values=values)
        return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


def jobs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ConfigMaps and PyTorchJobs of runs among the objects of a release."""
    kinds = ("ConfigMap", "PyTorchJob")
    return [each for each in objects if each["kind"] in kinds and "mtft/run" in each["metadata"]["labels"]]


def by_name(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return objects by kind and name, without Helm's own labels: who manages it, and by which chart."""
    found = {}
    for each in objects:
        metadata = each["metadata"]
        metadata["labels"].pop("helm.sh/chart", None)
        templates = [role["template"] for role in each.get("spec", {}).get("pytorchReplicaSpecs", {}).values()]
        for labels in (metadata["labels"], *(template["metadata"]["labels"] for template in templates)):
            assert labels.pop("app.kubernetes.io/managed-by") in ("Helm", "mtft-launch")
        found[each["kind"], metadata["name"]] = each
    assert len(found) == len(objects), "two objects of one name"
    return found
