"""The image that the Dockerfile makes, run with nothing that a restricted pod would not have."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mtft.redaction import looks_secret, names_secret
from tests.cluster.image_builders import Buildah, builder
from tests.cluster.images import mtft_image
from tests.cluster.parts import NODE, MissingPart, ensure_packages
from tests.conftest import require
from tests.e2e.cluster.container import Box

CHECKOUT = Path(__file__).resolve().parents[3]
MODEL = "opus_mt_en_fr"
STORAGE = "/mnt/mtft"

# The libraries may have to be downloaded and packed first.
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    try:
        engine = builder()
        if not isinstance(engine, Buildah):
            require("image", "a docker engine is used here, which does not give the files of an image; stop it")
        ensure_packages({"runc": NODE["runc"]})
        name = mtft_image().name
    except MissingPart as missing:
        require("image", str(missing))
    with engine.mounted(name) as root:
        yield Box(root, engine.configuration(name), tmp_path_factory.mktemp("containers"))


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume as a cluster prepares it: group 0 writes, what is made below stays in the group."""
    folder = tmp_path / "volume"
    folder.mkdir()
    os.chown(folder, 0, 0)
    folder.chmod(0o2775)
    return folder


def test_its_own_command_is_the_self_test(image: Box, volume: Path) -> None:
    done = replace(image, mounts={STORAGE: volume}).run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "UID 12345, GID 0, groups 0, umask 002, PID 1\n" in done.stdout
    assert "import bitsandbytes: ok" in done.stdout
    assert "secrets in the environment: none" in done.stdout
    assert f"write access to {STORAGE}: ok" in done.stdout


def test_the_self_test_fails_without_a_volume(image: Box) -> None:
    done = image.run("python", "-m", "trainer", "--self-test")
    assert done.returncode == 2
    assert f"write access to {STORAGE}: FAILED (Read-only file system)" in done.stdout


def test_the_launcher_starts(image: Box) -> None:
    done = image.run("mtft-launch", "--version")
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    assert (done.returncode, done.stdout) == (0, f"mtft {version}\n"), done.stderr
    assert image.run("mtft-launch", "models").stdout.count("opus_mt_") >= 2


def test_the_configuration_is_what_a_restricted_pod_needs(image: Box) -> None:
    config = image.configuration["config"]
    assert re.fullmatch(r"[1-9]\d*:0", config["User"]), "a kubelet cannot tell whether a name is root"
    assert not config.get("Entrypoint")
    assert config["Cmd"][0] == "python", "no shell between the runtime and the supervisor"
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == "mtft"
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", labels["version"])
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels["revision"])
    assert labels["description"]


def test_nothing_of_the_builder_is_left(image: Box) -> None:
    environment = dict(entry.split("=", 1) for entry in image.configuration["config"]["Env"])
    assert not [name for name, value in environment.items() if names_secret(name) or looks_secret(value)]
    assert not {"SSL_CERT_FILE", "UV_CACHE_DIR", "PIP_CERT"} & set(environment)
    assert "://" not in json.dumps([image.configuration["history"], image.configuration["config"]])
    left = [image.root / name for name in ("root/.cache/uv", "opt/uv", "run/secrets", "build", "code", "var/cache/uv")]
    assert not [path for folder in left if folder.is_dir() for path in folder.iterdir()]


def test_no_tool_that_builds_or_installs(image: Box) -> None:
    folders = [image.root / folder for folder in ("opt/mtft/bin", "usr/local/bin", "usr/bin", "bin")]
    tools = re.compile(r"(.*-)?(gcc|g\+\+|cc|c\+\+|clang|ld|as|make|cmake|rustc|cargo|go|uv|uvx|pip3?|git)(-[\d.]+)?")
    assert not [path.name for folder in folders for path in folder.iterdir() if tools.fullmatch(path.name)]
    assert "No module named pip" in image.run("python", "-m", "pip", "--version").stderr


def test_no_file_gives_rights_away(image: Box) -> None:
    raised, open_to_all, open_to_us = [], [], []
    for folder, _, names in os.walk(image.root):
        for path in (Path(folder, name) for name in names):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                continue
            raised += [path] if status.st_mode & (stat.S_ISUID | stat.S_ISGID) else []
            open_to_all += [path] if status.st_mode & stat.S_IWOTH else []
            open_to_us += [path] if status.st_mode & stat.S_IWGRP and status.st_gid == 0 else []
    assert (raised, open_to_all, open_to_us) == ([], [], [])
    storage = (image.root / STORAGE.lstrip("/")).stat()
    assert (stat.S_IMODE(storage.st_mode), storage.st_gid) == (0o2775, 0)


def test_the_bytecode_is_there_and_current(image: Box) -> None:
    program = """
import importlib.util, struct, torch, transformers, mtft.config, trainer.worker, launcher.cli
for module in (torch, transformers, mtft.config, trainer.worker, launcher.cli):
    with open(importlib.util.cache_from_source(module.__file__), "rb") as compiled:
        _, flags, seconds, size = struct.unpack("<4I", compiled.read(16))
    import os
    status = os.stat(module.__file__)
    assert flags == 0 and seconds == int(status.st_mtime) and size == status.st_size, module
print("current")
"""
    done = image.run("python", "-c", program)
    assert done.stdout == "current\n", done.stderr


def test_uv_is_that_of_the_makefile() -> None:
    """The Dockerfile must build alone, so the release is written twice."""
    wanted = re.search(r"UV_VERSION := (\S+)", (CHECKOUT / "Makefile").read_text())
    used = re.search(r"ARG UV_VERSION=(\S+)", (CHECKOUT / "Dockerfile").read_text())
    assert wanted and used and wanted[1] == used[1]


def test_a_stopped_run_says_143_and_the_next_pod_finishes_it(
    image: Box, volume: Path, standins: Callable[[str], Path], training_file: Path
) -> None:
    shutil.copytree(standins("marian"), volume / "base")
    shutil.copy(training_file, volume / "train.jsonl.gz")
    document = {
        "data": {"train": f"{STORAGE}/train.jsonl.gz"},
        "model": {"path": f"{STORAGE}/base"},
        "train": {"max_steps": 30},
        "cluster": {"gpus_per_node": 0},
        "checkpoint": {"every_steps": 5},
        "eval": {"beams": 2, "every": 1000, "max_dev_rows": 6, "max_test_rows": 11, "bootstrap_samples": 50},
        "tracking": {"log_every_steps": 1},
    }
    (volume / "config.json").write_text(json.dumps(document))
    command = ["python", "-m", "trainer", "--config", f"{STORAGE}/config.json", "--model", MODEL, "--job", "image"]
    box = replace(image, mounts={STORAGE: volume})
    with box.started(*command) as (process, kill):
        _wait_for_checkpoint(volume, process)
        subprocess.run([*kill, "TERM"], check=True)
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 143, output + errors
    done = box.run(*command, user=54321)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (volume / "outputs" / MODEL / "runs").iterdir()
    assert json.loads((run / "finished.json").read_text())
    assert "continuing from step-" in done.stdout
    written = [path for path in (volume / "outputs").rglob("*") if not path.is_symlink()]
    assert not [path for path in written if not path.stat().st_mode & stat.S_IWGRP], "another UID goes on with it"
    assert {path.stat().st_gid for path in written} == {0}


def _wait_for_checkpoint(volume: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not list(volume.glob(f"outputs/{MODEL}/runs/*/checkpoints/step-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no checkpoint in four minutes"
        time.sleep(0.5)
