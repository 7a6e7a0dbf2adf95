"""The cluster's programs, built once from pinned Go modules: ``<cache>/mtft/tools/<key>/bin``.

The key covers every pin, so a changed pin builds beside the old programs and ``tools/current`` follows. Cold takes
about 15 minutes on two cores, warm nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.parts import CACHE, MissingPart

MODULE = Path(__file__).parent / "tools"  # its go.mod pins Kubernetes
ROOT = CACHE / "tools"
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
OPERATOR = "github.com/kubeflow/training-operator"
OPERATOR_VERSION = "v1.9.4"
_KEPT_BUILDS = 2
# Changed when the build itself changes, so that older results are not taken for its own.
_RECIPE = "1"


@dataclass(frozen=True)
class GoProgram:
    """One program that its module builds alone.

    Attributes:
        name: what it is called in ``bin``.
        package: the Go package of its ``main``.
        version: the pinned version of its module.
        version_variable: the linker variable that makes it report the version; None: it knows by itself.
    """

    name: str
    package: str
    version: str
    version_variable: str | None = None


PROGRAMS = (
    GoProgram("training-operator", f"{OPERATOR}/cmd/training-operator.v1", OPERATOR_VERSION),
    GoProgram("coredns", "github.com/coredns/coredns", "v1.12.1"),
    GoProgram("kwok", "sigs.k8s.io/kwok/cmd/kwok", "v0.8.0"),
    GoProgram("helm3", "helm.sh/helm/v3/cmd/helm", "v3.22.0", "helm.sh/helm/v3/internal/version.version"),
    GoProgram("helm4", "helm.sh/helm/v4/cmd/helm", "v4.2.4", "helm.sh/helm/v4/internal/version.version"),
)


@dataclass(frozen=True)
class Tools:
    """A finished build.

    Attributes:
        folder: holds ``bin`` and ``training-operator`` (the manifests of the operator's module).
    """

    folder: Path

    def __getitem__(self, name: str) -> Path:
        """Return the program of that name."""
        return self.folder / "bin" / name

    @property
    def operator_manifests(self) -> Path:
        """Return ``manifests/base`` of the operator: CRDs, RBAC, webhook."""
        return self.folder / "training-operator" / "manifests" / "base"


def tools(report: Callable[[str], None] = lambda line: None) -> Tools:
    """Return the programs of the current pins, building them first where they are not there yet.

    Raises:
        MissingPart: Go is missing, or a program does not build (the text holds the end of Go's words).
    """
    target = ROOT / _key()
    if not target.is_dir():
        ROOT.mkdir(parents=True, exist_ok=True)
        with _lock(ROOT / ".lock"):
            if not target.is_dir():
                _build(target, report)
    _point_to(target)
    return Tools(target)


def built_tools() -> Tools:
    """Return the programs of the current pins where they are built; tests never begin a quarter of an hour's build.

    Raises:
        MissingPart: they are not built.
    """
    folder = ROOT / _key()
    if not folder.is_dir():
        raise MissingPart("the cluster's programs are not built yet; `make tools` does it once, in about 15 minutes")
    return Tools(folder)


def kubernetes_version() -> str:
    """Return the version go.mod pins, for example ``v1.34.4``."""
    found = re.search(r"^\tk8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert found, "go.mod requires k8s.io/kubernetes"
    return found[1]


def _key() -> str:
    digest = hashlib.sha256(json.dumps([_RECIPE, [vars(program) for program in PROGRAMS]]).encode())
    for name in ("go.mod", "go.sum", "main.go"):
        digest.update((MODULE / name).read_bytes())
    return f"{kubernetes_version()}-{digest.hexdigest()[:12]}"


def _build(target: Path, report: Callable[[str], None]) -> None:
    if not shutil.which("go"):
        raise MissingPart("the cluster's programs are built from Go modules, and there is no go on this machine")
    with tempfile.TemporaryDirectory(prefix=".build-", dir=ROOT) as folder:
        built = Path(folder) / "built"
        binaries = built / "bin"
        binaries.mkdir(parents=True)
        report(f"building Kubernetes {kubernetes_version()} (one binary; 7 minutes on 2 cores)")
        _go("build", "-ldflags", _kubernetes_flags(), "-o", str(binaries / "kubernetes"), ".", cwd=MODULE)
        for name in KUBERNETES:
            (binaries / name).symlink_to("kubernetes")
        for program in PROGRAMS:
            report(f"building {program.name} {program.version}")
            _install(program, binaries / program.name)
        _copy_manifests(built / "training-operator")
        built.rename(target)
    _sweep(keep=target)


def _kubernetes_flags() -> str:
    version = kubernetes_version()
    major, minor = version.removeprefix("v").split(".")[:2]
    # Without these the server reports a version that clients cannot parse.
    variables = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in variables.items())


def _install(program: GoProgram, binary: Path) -> None:
    flags = "-s -w"
    if program.version_variable:
        flags += f" -X {program.version_variable}={program.version}"
    with tempfile.TemporaryDirectory(dir=binary.parent.parent) as folder:
        _go("install", "-ldflags", flags, f"{program.package}@{program.version}", GOBIN=folder)
        (installed,) = Path(folder).iterdir()
        installed.rename(binary)


def _copy_manifests(target: Path) -> None:
    """Keep the operator's CRDs, roles and webhooks as its module ships them."""
    downloaded = json.loads(_go("mod", "download", "-json", f"{OPERATOR}@{OPERATOR_VERSION}"))
    # Modules are read-only in Go's cache; a copy of ours is not.
    shutil.copytree(Path(downloaded["Dir"]) / "manifests", target / "manifests", copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _go(*arguments: str, cwd: Path = ROOT, **environment: str) -> str:
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -trimpath", "GOWORK": "off", **environment}
    done = subprocess.run(
        ["go", *arguments], cwd=cwd, env={**os.environ, **settings}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MissingPart(f"go {' '.join(arguments)} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def _point_to(target: Path) -> None:
    current = ROOT / "current"
    if current.is_symlink() and current.readlink() == Path(target.name):
        return
    with tempfile.TemporaryDirectory(prefix=".link-", dir=ROOT) as folder:
        link = Path(folder) / "current"
        link.symlink_to(target.name)
        link.rename(current)


def _sweep(keep: Path) -> None:
    """Remove all but the newest builds; a build is 0.5 GB."""
    builds = [path for path in ROOT.glob("v*") if path.is_dir() and path != keep]
    for old in sorted(builds, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT_BUILDS - 1 :]:
        shutil.rmtree(old)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
