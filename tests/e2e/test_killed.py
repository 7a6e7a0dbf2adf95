"""A rank killed while it publishes: the next start finishes the run, and nothing half-made was ever visible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mtft import exit_codes, files
from tests.e2e.conftest import CHECKOUT, QUICK
from trainer.checkpoints import is_complete

MODEL = "opus_mt_en_fr"
PLACES = {
    "a checkpoint before its name": ("pathlib.Path.rename", "before", "checkpoints/.step-4.tmp"),
    "the deliverable after its name": ("pathlib.Path.rename", "after", "/.lora.tmp"),
    "the end": ("os.replace", "before", "finished.json"),
    "after the end": ("os.replace", "after", "finished.json"),
}


@pytest.fixture
def start(
    standins: Callable[[str], Path], training_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Start one attempt of a job of six steps as a pod does, with its rank killed at a place or not."""
    settings = yaml.safe_load("{" + ", ".join(f"{s.replace('=', ': ')}" for s in QUICK) + "}")
    document: dict[str, dict[str, object]] = {"data": {"train": str(training_file)}}
    more = {"checkpoint.every_steps": 2, "train.max_steps": 6, "train.device": "cpu"}
    for path, value in {**settings, **more}.items():
        part, name = path.split(".")
        document.setdefault(part, {})[name] = value
    document["model"] = {"key": MODEL, "path": str(standins("marian"))}
    config = tmp_path_factory.mktemp("killed") / "config.json"
    config.write_text(json.dumps(document))

    def start(root: Path, place: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trainer", "--config", str(config), "--model", MODEL, "--job", "one"]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        if place is not None:
            function, when, at = PLACES[place]
            environment |= {"MTFT_TEST_KILL": f"{function}:1:{when}", "MTFT_TEST_KILL_AT": at}
            command += ["--worker-module", "tests.e2e.dying"]
        return subprocess.run(
            [*command, "--root", str(root)], env=environment, capture_output=True, text=True, timeout=250, check=False
        )

    return start


@pytest.fixture
def unbroken(
    start: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Give the SHA-256 of every deliverable file of a run that nothing disturbed."""
    root = tmp_path_factory.mktemp("unbroken")
    done = start(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return deliverable(root)


def deliverable(root: Path) -> dict[str, str]:
    (run,) = (root / "outputs" / MODEL / "runs").iterdir()
    return {path.name: files.sha256_file(path) for path in (run / "lora").iterdir()}


@pytest.mark.timeout(900)
def test_the_next_start_ends_as_if_nothing_had_happened(
    start: Callable[..., subprocess.CompletedProcess[str]], unbroken: dict[str, str], tmp_path: Path
) -> None:
    """One job is killed at every place in turn, each start going on from what the one before left."""
    for place in PLACES:
        killed = start(tmp_path, place)
        ended = place == "after the end"
        assert killed.returncode == (0 if ended else exit_codes.RETRY), killed.stdout + killed.stderr
        (run,) = (tmp_path / "outputs" / MODEL / "runs").iterdir()
        assert (run / "finished.json").exists() is ended, place
        assert all(is_complete(path) for path in (run / "checkpoints").glob("step-*")), place
        assert (run / "lora").exists() is (place != "a checkpoint before its name")
        if (run / "lora").exists():
            assert deliverable(tmp_path) == unbroken, place
    done = start(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert deliverable(tmp_path) == unbroken
    assert json.loads((run / "finished.json").read_text())["steps"] == 6
    hidden = {path.name for path in run.rglob(".*")}
    assert not hidden, "leftovers of the killed starts"
