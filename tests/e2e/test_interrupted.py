"""Runs that are killed or stopped go on from their last complete checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mtft import files
from tests.e2e.conftest import TRAINED, Launcher

MODEL = "opus_mt_en_fr"
STEPS = 40


@pytest.fixture
def arguments(launcher: Launcher, standins: Callable[[str], Path], training_file: Path) -> list[str]:
    """A run that logs every step and saves every fifth."""
    return settings(launcher, standins, training_file)


def settings(launcher: Launcher, standins: Callable[[str], Path], training_file: Path) -> list[str]:
    sets = ("--set", "checkpoint.every_steps=5", "--set", "tracking.log_every_steps=1")
    return launcher.local(
        MODEL, standins("marian"), training_file, "--max-steps", str(STEPS), *sets, "--processes", "2"
    )


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, standins: Callable[[str], Path], training_file: Path) -> str:
    """Give the SHA-256 of the adapter of the same run when nothing stops it."""
    launcher = Launcher(tmp_path_factory.mktemp("unbroken"))
    done = launcher(*settings(launcher, standins, training_file))
    assert done.returncode in TRAINED, done.stdout + done.stderr
    (run,) = launcher.runs(MODEL)
    return files.sha256_file(run / "lora" / "adapter_model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_same_command_continues_the_run(
    launcher: Launcher, arguments: list[str], unbroken: str, number: signal.Signals
) -> None:
    code = interrupt(launcher, arguments, number, at_step=12)
    assert code == (-9 if number == signal.SIGKILL else 130)
    (run,) = launcher.runs(MODEL)
    assert not (run / "finished.json").exists()
    done = launcher(*arguments)
    assert done.returncode in TRAINED, done.stdout + done.stderr
    assert "continuing from step-" in done.stdout
    assert launcher.runs(MODEL) == [run]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["type"] == "train"] == list(range(1, STEPS + 1))
    assert json.loads((run / "finished.json").read_text())["steps"] == STEPS
    assert files.sha256_file(run / "lora" / "adapter_model.safetensors") == unbroken


def test_a_killed_supervisor_takes_its_ranks_with_it(launcher: Launcher, arguments: list[str]) -> None:
    """Its lock on the job is gone with it: two sets of ranks in one run folder would spoil each other's files."""
    with subprocess.Popen(
        launcher.command(*arguments), cwd=launcher.folder, env=launcher.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("{"))
        below = psutil.Process(process.pid).children(recursive=True)
        below[0].kill()
        _, alive = psutil.wait_procs(below, timeout=20)
        assert alive == []
        assert process.wait(timeout=20) == 1


def interrupt(launcher: Launcher, arguments: list[str], number: signal.Signals, at_step: int) -> int:
    """Start a run, send a signal once it has logged a step, and return its exit code with nothing left behind."""
    with subprocess.Popen(
        launcher.command(*arguments),
        cwd=launcher.folder,
        env=launcher.environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{") and json.loads(line).get("step", 0) >= at_step:
                break
        below = psutil.Process(process.pid).children(recursive=True)
        if number == signal.SIGKILL:
            # The machine dies: everything at once, without a word.
            for each in (psutil.Process(process.pid), *below):
                each.kill()
        else:
            os.kill(process.pid, number)
        for _ in drained(process.stdout):
            pass
        code = process.wait(timeout=120)
    _, alive = psutil.wait_procs(below, timeout=30)
    assert alive == []
    return code


def drained(stream: Iterator[str]) -> Iterator[str]:
    """Read what is left, so that the process can end."""
    yield from stream
