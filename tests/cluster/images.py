"""The images of the test cluster as archives for containerd: a Debian base, the pause image, and mtft itself.

No registry is asked. The libraries of mtft are gigabytes and change seldom, its code changes all the time: so mtft
comes as two archives, and after a change of code only a small one is made and imported.

``python -m tests.cluster.images`` makes all of them and prints where they are.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.image_builders import ROOT, Builder, BuildFailed, builder
from tests.cluster.parts import MissingPart, find, program

CHECKOUT = Path(__file__).resolve().parents[2]

# The Python of the tests; venv, because the image's first stage makes one.
_SUITE = "bookworm"
_PACKAGES = "python3,python3-venv,ca-certificates"
# What the Dockerfile reads; .dockerignore lets nothing else through.
_SOURCES = ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock", "README.md", "LICENSE")
_PACKAGES_OF_OURS = ("mtft", "launcher", "trainer")
_KEPT = 4
_NEEDED_GB = 30  # the libraries as uv's cache, files, layer and archive


@dataclass(frozen=True)
class Image:
    """An image and the archive that carries it.

    Attributes:
        name: repository and tag; the tag changes with the content.
        archive: what ``ctr images import`` takes.
        base: the image whose layers the archive leaves out; None: it has them all.
    """

    name: str
    archive: Path
    base: Image | None = None

    @property
    def parts(self) -> list[Image]:
        """Return what has to be imported, in this order."""
        return [*([self.base] if self.base else []), self]


def base_image() -> Image:
    """Return a small Debian with Python 3.11 as ``python3`` and certificates.

    Raises:
        MissingPart: this machine cannot make it; the text says what it lacks.
        BuildFailed: making it failed.
    """
    image = _image("localhost/mtft-base", _key(_SUITE, _PACKAGES))
    with _one_at_a_time():
        engine = builder()
        if not (image.archive.is_file() and engine.identity(image.name)):
            with _folder() as context:
                _debootstrap(context / "base.tar")
                (context / "Dockerfile").write_text('FROM scratch\nADD base.tar /\nCMD ["python3"]\n')
                engine.build(context, image.name, arguments={})
            engine.save(image.name, image.archive)
            _keep(engine, "localhost/mtft-base", 1)
    return image


def pause_image() -> Image:
    """Return the image whose one process holds the namespaces of a pod.

    Raises:
        MissingPart: this machine cannot make it; the text says what it lacks.
        BuildFailed: making it failed.
    """
    source = Path(__file__).parent / "pause" / "main.go"
    image = _image("localhost/mtft-pause", _key(source.read_text()))
    with _one_at_a_time():
        if not image.archive.is_file():
            if not find("go"):
                raise MissingPart("there is no go on this machine, which builds the pause image")
            engine = builder()
            with _folder() as context:
                command = ["env", "CGO_ENABLED=0", "GOFLAGS=", program("go"), "build", "-trimpath", "-ldflags=-s -w"]
                _call(*command, "-o", context / "pause", source)
                (context / "Dockerfile").write_text(
                    'FROM scratch\nCOPY pause /\nUSER 65535:65535\nENTRYPOINT ["/pause"]\n'
                )
                engine.build(context, image.name, arguments={})
            engine.save(image.name, image.archive)
            _keep(engine, "localhost/mtft-pause", 1)
    return image


def mtft_image() -> Image:
    """Return the image of this checkout; import its ``parts``.

    Cold it takes many minutes and 10 GB, after a change of code seconds.

    Raises:
        MissingPart: this machine cannot make it; the text says what it lacks.
        BuildFailed: the Dockerfile does not build.
    """
    base = base_image()
    with _one_at_a_time(), _sources() as sources:
        engine = builder()
        image = _image("localhost/mtft", _key(base.name, _digest(sources)))
        record = image.archive.with_suffix(".json")
        if image.archive.is_file() and record.is_file() and engine.identity(image.name):
            made = _recorded(image, json.loads(record.read_text())["libraries"])
            if all(part.archive.is_file() for part in made.parts):
                return made
        arguments = {"BASE_IMAGE": base.name, "VERSION": _version(), "REVISION": _revision()}
        libraries = _libraries(engine, sources, arguments) if engine.saves_parts else None
        engine.build(sources, image.name, arguments=arguments)
        engine.save(image.name, image.archive, base=libraries.archive if libraries else None)
        record.write_text(json.dumps({"libraries": libraries.name if libraries else None}))
        _keep(engine, "localhost/mtft", _KEPT)
    return Image(image.name, image.archive, libraries)


def _libraries(engine: Builder, sources: Path, arguments: dict[str, str]) -> Image:
    """Return the image of everything but our code; what is older goes, for each takes 10 GB."""
    repository, target = "localhost/mtft-libraries", "dependencies"
    engine.build(sources, f"{repository}:building", target=target, arguments=arguments)
    image = _image(repository, (engine.identity(f"{repository}:building") or "")[:16])
    if not image.archive.is_file():
        _keep(engine, "localhost/mtft", 0)
        engine.build(sources, image.name, target=target, arguments=arguments)
        _keep(engine, repository, 1)
        engine.prune()
        engine.save(image.name, image.archive)
    return image


def _recorded(image: Image, libraries: str | None) -> Image:
    if libraries is None:
        return image
    return Image(image.name, image.archive, _image(*libraries.split(":")))


def _keep(engine: Builder, repository: str, count: int) -> None:
    """Remove all but the newest images of a repository, and their archives."""
    names = engine.names(repository)
    for name in [name for name in names if not name.endswith(":building")][count:]:
        engine.remove(name)
    kept = {_image(*name.split(":")).archive.stem for name in engine.names(repository)}
    for path in ROOT.glob(f"archives/{repository.rpartition('/')[2]}@*"):
        if path.stem not in kept:
            path.unlink()


def _image(repository: str, tag: str) -> Image:
    return Image(f"{repository}:{tag}", ROOT / "archives" / f"{repository.rpartition('/')[2]}@{tag}.tar")


def _debootstrap(archive: Path) -> None:
    """Write a minimal Debian as a tar file."""
    if os.geteuid() != 0 or not find("debootstrap"):
        raise MissingPart("debootstrap makes the base image and needs root; install it and become root")
    root = archive.parent / "root"
    _call(program("debootstrap"), "--variant=minbase", f"--include={_PACKAGES}", _SUITE, root)
    for folder, pattern in (("var/cache/apt/archives", "*.deb"), ("var/lib/apt/lists", "*_*")):
        for path in (root / folder).glob(pattern):
            path.unlink()
    _call("tar", "-C", root, "--one-file-system", "-cf", archive, ".")
    shutil.rmtree(root)


def _call(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildFailed(f"{command[0]} exited {done.returncode}: {(done.stdout + done.stderr).strip()[-3000:]}")


@contextmanager
def _sources() -> Iterator[Path]:
    """Give a copy of what the Dockerfile reads, for a checkout may change while the image is built."""
    with _folder() as folder:
        for name in _SOURCES:
            shutil.copy2(CHECKOUT / name, folder)
        for package in _PACKAGES_OF_OURS:
            shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


def _version() -> str:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def _revision() -> str:
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _digest(folder: Path) -> str:
    """Return the SHA-256 of every path and its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _key(*(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files))


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@contextmanager
def _folder() -> Iterator[Path]:
    """Give a folder on the disk of the cache, where there is room."""
    (ROOT / "tmp").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "tmp") as folder:
        yield Path(folder)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep two processes from building the same."""
    ROOT.mkdir(parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Make every image and print its name and archives."""
    try:
        for make in (pause_image, base_image, mtft_image):
            for part in make().parts:
                print(f"{part.name}  {part.archive}  {part.archive.stat().st_size / 1e6:.1f} MB", flush=True)
    except (BuildFailed, MissingPart) as error:
        full = f"; {_NEEDED_GB} GB must be free below {ROOT}" if "no space left" in str(error).lower() else ""
        sys.exit(f"the images cannot be made: {error}{full}")


if __name__ == "__main__":
    main()
