"""What builds images here: buildah without any engine, else a docker engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.cluster.image_archives import write_archive
from tests.cluster.parts import CACHE, IMAGES, MissingPart, ensure_packages, find, program

ROOT = CACHE / "images"

# Settings of this machine that a build needs and that the image must not keep.
_BUILD_SETTINGS = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)


class BuildFailed(Exception):
    """A build ended badly; the text is the end of what it said."""


class Builder(Protocol):
    """Builds images and writes them as archives.

    Attributes:
        saves_parts: an archive may leave out the layers of its base image.
    """

    @property
    def saves_parts(self) -> bool: ...

    def build(self, context: Path, name: str, *, target: str | None = None, arguments: Mapping[str, str]) -> None:
        """Build a folder's Dockerfile and keep the result under this name.

        Raises:
            BuildFailed: it ended badly.
        """
        ...

    def identity(self, name: str) -> str | None:
        """Return the digest of an image's configuration, 64 hex digits; None when there is no such image."""
        ...

    def save(self, name: str, archive: Path, base: Path | None = None) -> None:
        """Write an image as an archive; one of its base image may spare the layers that are in there."""
        ...

    def remove(self, name: str) -> None:
        """Take a name from an image."""
        ...

    def prune(self) -> None:
        """Remove what no name leads to."""
        ...

    def names(self, repository: str) -> list[str]:
        """Return the images of a repository, the newest first."""
        ...


def builder() -> Builder:
    """Return what builds images on this machine.

    Raises:
        MissingPart: nothing does; the text says what would.
    """
    if find("docker") and _run(["docker", "info"], check=False).returncode == 0:
        return Docker()
    ensure_packages(IMAGES)
    if os.geteuid() != 0:
        raise MissingPart("buildah builds here as root only; become root, or start a docker engine")
    return Buildah()


@dataclass(frozen=True)
class Buildah:
    """Buildah, with a store of its own and no isolation but a changed root, which works inside containers too."""

    store: Path = ROOT / "storage"
    saves_parts: bool = True

    def build(self, context: Path, name: str, *, target: str | None = None, arguments: Mapping[str, str]) -> None:
        """Build with every layer kept for the next time, and with this machine's cache of wheels."""
        wheels = _wheel_cache()
        with _secrets({"UV_CACHE_DIR": "/var/cache/uv"}) as secrets:
            options = [*_build_options(target, arguments), *secrets, "--volume", f"{wheels}:/var/cache/uv"]
            self._buildah("build", "--quiet", "--layers", "--network", "host", "--tag", name, *options, context)

    def identity(self, name: str) -> str | None:
        """Return the digest that the store gives an image."""
        found = self._buildah("images", "--no-trunc", "--quiet", name, check=False)
        return found.strip().removeprefix("sha256:") or None

    def save(self, name: str, archive: Path, base: Path | None = None) -> None:
        """Write an archive in the OCI layout."""

        def push(folder: Path, compress: bool) -> None:
            how = (
                ["--compression-format", "zstd", "--compression-level", "1"] if compress else ["--disable-compression"]
            )
            self._buildah("push", "--quiet", "--format", "oci", *how, name, f"oci:{folder}:image")

        with _building(archive) as (folder, beside):
            write_archive(push, folder, beside, name, base)

    def remove(self, name: str) -> None:
        """Take a name from an image; its layers stay for the next build."""
        self._buildah("rmi", "--force", name)

    def prune(self) -> None:
        """Remove every layer that no name leads to."""
        self._buildah("rmi", "--prune")

    def names(self, repository: str) -> list[str]:
        """Return the images of a repository, the newest first."""
        images = json.loads(self._buildah("images", "--json"))
        ordered = sorted(images, key=lambda image: str(image["createdatraw"]), reverse=True)
        names = [name for image in ordered for name in image["names"] or []]
        return [name for name in names if name.startswith(f"{repository}:")]

    @contextmanager
    def mounted(self, name: str) -> Iterator[Path]:
        """Give the root folder of a container of an image."""
        container = self._buildah("from", "--pull-never", name).strip()
        try:
            yield Path(self._buildah("mount", container).strip())
        finally:
            self._buildah("rm", container)

    def configuration(self, name: str) -> dict[str, object]:
        """Return an image's configuration as in the OCI image specification, history included."""
        image: dict[str, object] = json.loads(self._buildah("inspect", "--type", "image", name))["OCIv1"]
        return image

    def _buildah(self, *arguments: str | Path, check: bool = True) -> str:
        (ROOT / "tmp").mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(ROOT / "tmp")}
        place: list[str | Path] = ["--root", self.store, "--runroot", ROOT / "run", "--storage-driver", "overlay"]
        return _run([program("buildah"), *place, *arguments], check=check, environment=environment).stdout


@dataclass(frozen=True)
class Docker:
    """A docker engine of version 23 or later."""

    saves_parts: bool = False

    def build(self, context: Path, name: str, *, target: str | None = None, arguments: Mapping[str, str]) -> None:
        """Build in the engine, which keeps layers and wheels itself."""
        with _secrets({}) as secrets:
            options = [*_build_options(target, arguments), *secrets]
            _run(["docker", "build", "--quiet", "--network", "host", "--tag", name, *options, context])

    def identity(self, name: str) -> str | None:
        """Return the digest that the engine gives an image."""
        done = _run(["docker", "image", "inspect", "--format", "{{.Id}}", name], check=False)
        return done.stdout.strip().removeprefix("sha256:") or None

    def save(self, name: str, archive: Path, base: Path | None = None) -> None:
        """Write a whole archive: the engine knows no other."""
        with _building(archive) as (_, beside):
            _run(["docker", "save", "--output", beside, name])

    def remove(self, name: str) -> None:
        """Take a name from an image."""
        _run(["docker", "image", "rm", name])

    def prune(self) -> None:
        """Leave it to the engine, which is not ours to tidy."""

    def names(self, repository: str) -> list[str]:
        """Return the images of a repository, the newest first."""
        done = _run(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository])
        return done.stdout.split()


def _build_options(target: str | None, arguments: Mapping[str, str]) -> list[str]:
    options = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
    return [*options, "--target", target] if target else options


def _wheel_cache() -> Path:
    """Return the folder in which uv keeps wheels on this machine."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uv"
    folder = Path(os.environ.get("UV_CACHE_DIR") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _secrets(settings: Mapping[str, str]) -> Iterator[list[str]]:
    """Give the options that pass this machine's network settings to a build and to nothing it leaves behind."""
    values = dict(settings) | {name: os.environ[name] for name in _BUILD_SETTINGS if name in os.environ}
    options = []
    if bundle := os.environ.get("SSL_CERT_FILE"):
        values |= {"SSL_CERT_FILE": "/run/secrets/ca", "PIP_CERT": "/run/secrets/ca"}
        options = ["--secret", f"id=ca,src={bundle}"]
    with tempfile.NamedTemporaryFile("w", prefix="mtft-build-") as script:
        script.writelines(f"{name}='{value}'\n" for name, value in values.items())
        script.flush()
        yield [*options, "--secret", f"id=env,src={script.name}"]


@contextmanager
def _building(archive: Path) -> Iterator[tuple[Path, Path]]:
    """Give a working folder and the file in it that becomes the archive, complete or not at all."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=archive.parent, prefix=".building-"))
    try:
        (folder / "layout").mkdir()
        yield folder / "layout", folder / archive.name
        (folder / archive.name).rename(archive)
    finally:
        shutil.rmtree(folder)


def _run(
    command: Sequence[str | Path], *, check: bool = True, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if check and done.returncode != 0:
        shown = " ".join(str(part) for part in command[:12])
        raise BuildFailed(f"{shown} ... exited {done.returncode}: {(done.stderr or done.stdout).strip()[-3000:]}")
    return done
