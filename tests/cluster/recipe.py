"""The commands of docs/recipes/helm.md, run with bash in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chart.helm import Helm
from tests.cluster.cluster import Cluster
from tests.cluster.releases import Release
from tests.conftest import CHECKOUT

PAGE = CHECKOUT / "docs" / "recipes" / "helm.md"
NEEDS_PODS = "<!-- needs pods -->"
_BLOCK = re.compile(rf"({NEEDS_PODS}\n)?```sh\n(.*?)```", re.DOTALL)
_SECONDS = 600


@dataclass(frozen=True)
class Block:
    """Some commands of the page.

    Attributes:
        text: the commands.
        needs_pods: whether pods must run for them.
    """

    text: str
    needs_pods: bool


def blocks() -> list[Block]:
    """Return every block of the page in order."""
    return [Block(text, bool(mark)) for mark, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8"))]


@dataclass(frozen=True)
class Terminal:
    """A person's shell with one Helm, in a namespace that the page calls ``mtft``.

    Attributes:
        folder: where it is.
        namespace: the one that is meant.
        environment: its environment.
        replaced: what else of the page's text is another here.
    """

    folder: Path
    namespace: str
    environment: Mapping[str, str]
    replaced: Mapping[str, str]

    def run(self, text: str) -> str:
        """Run commands until one fails; return what they printed."""
        for written, meant in self._texts():
            text = re.sub(written, meant, text)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _texts(self) -> Iterator[tuple[str, str]]:
        yield r"(-n |namespace |serviceaccount:)mtft\b", rf"\g<1>{self.namespace}"
        for written, meant in self.replaced.items():
            yield re.escape(written), meant


def terminal(
    cluster: Cluster, helm: Helm, folder: Path, namespace: str, replaced: Mapping[str, str] | None = None
) -> Terminal:
    """Return a shell in a folder where ``helm/mtft`` is the chart, and helm and kubectl are the ones of the test."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    (programs / "helm").symlink_to(helm.program)
    (programs / "kubectl").symlink_to(cluster.client)
    (folder / "helm").symlink_to(CHECKOUT / "helm")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HELM_")},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "KUBECONFIG": str(cluster.kubeconfig),
        **{f"HELM_{kind}_HOME": str(helm.home / kind.lower()) for kind in ("CONFIG", "CACHE", "DATA")},
    }
    return Terminal(folder, namespace, environment, replaced or {})


def run_lines(release: Release, folder: Path, *starts: str) -> None:
    """Run the lines of the page that begin so and are about the release."""
    lines = [line for block in blocks() for line in block.text.splitlines()]
    for start in starts:
        (line,) = {line for line in lines if line.startswith(start) and re.search(rf"\b{release.name}\b", line)}
        terminal(release.cluster, release.helm, folder / start.replace(" ", "-"), release.namespace).run(line)
