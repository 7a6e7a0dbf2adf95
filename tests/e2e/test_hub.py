"""A base from the hub: found in the local cache, known by its commit and files, and never exchanged behind a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mtft.models import card
from tests.e2e.conftest import TRAINED, Launcher

MODEL = "opus_mt_en_fr"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path: Path, standins: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the snapshot of the base in a hub cache of its own, laid out as the hub's client does."""
    repository = tmp_path / "hub" / f"models--{card(MODEL).base.replace('/', '--')}"
    folder = repository / "snapshots" / COMMIT
    shutil.copytree(standins("marian"), folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def test_base_is_pinned_by_the_first_start(launcher: Launcher, snapshot: Path, training_file: Path) -> None:
    arguments = launcher.local(MODEL, snapshot, training_file, "--max-steps", "2", "--job", "one")
    at = arguments.index("--model-path")
    del arguments[at : at + 2]
    done = launcher(*arguments)
    assert done.returncode in TRAINED, done.stdout + done.stderr
    (run,) = launcher.runs(MODEL)
    base = json.loads((run / "provenance.json").read_text())["base"]
    assert (base["revision"], len(base["sha256"])) == (COMMIT, 64)
    assert json.loads((run / "lora" / "adapter_config.json").read_text())["revision"] == COMMIT
    translated = launcher("translate", "--model", MODEL, text="The cod.\n")
    assert translated.returncode == 0, translated.stderr

    (run / "finished.json").unlink()
    (snapshot / "generation_config.json").write_text("{}")
    again = launcher(*arguments)
    assert again.returncode == 2
    assert f"the files of {card(MODEL).base} at {COMMIT} changed since run {run.name} began" in again.stdout


def test_base_that_is_nowhere_is_one_message(
    launcher: Launcher, training_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    arguments = launcher.local(MODEL, tmp_path, training_file)
    at = arguments.index("--model-path")
    del arguments[at : at + 2]
    done = launcher(*arguments)
    assert done.returncode == 2
    assert "neither in the hub cache nor can it be downloaded" in done.stdout and "Traceback" not in done.stderr


def test_base_that_is_only_a_pickle_is_refused_before_the_data_are_read(
    launcher: Launcher, snapshot: Path, training_file: Path
) -> None:
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    arguments = launcher.local(MODEL, snapshot, training_file)
    at = arguments.index("--model-path")
    del arguments[at : at + 2]
    done = launcher(*arguments)
    assert done.returncode == 2
    assert f"{card(MODEL).base} at {COMMIT} holds its weights only as a pickle (pytorch_model.bin)" in done.stdout
    assert "comparing training rows" not in done.stdout and "Traceback" not in done.stderr
