"""Runs that are killed or stopped go on from their last complete checkpoint."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
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
    sets = ("--set", "checkpoint.every_steps=5", "--set", "tracking.log_every_steps=1")
    return launcher.local(
        MODEL, standins("marian"), training_file, "--max-steps", str(STEPS), *sets, "--processes", "2"
    )


@pytest.fixture
def unbroken(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of the same run when nothing stops it."""
    launcher = Launcher(tmp_path_factory.mktemp("unbroken"))
    done = launcher(*arguments)
    assert done.returncode in TRAINED, done.stdout + done.stderr
    (run,) = launcher.runs(MODEL)
    return run


def logged(run: Path) -> list[list[object]]:
    """Return what every logged step says of the training itself."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "epoch", "loss", "nll", "lr", "grad_norm", "target_tokens")
    return [[line[name] for name in names] for line in lines if line["type"] == "train"]


@pytest.mark.timeout(900)
def test_the_same_command_continues_the_run(launcher: Launcher, arguments: list[str], unbroken: Path) -> None:
    """Its supervisor is killed, it is asked to stop, one rank of it is asked, its machine dies."""
    assert interrupt(launcher, arguments, kill_supervisor, at_step=1) == 1
    (run,) = launcher.runs(MODEL)
    assert interrupt(launcher, arguments, ask_to_stop, at_step=12) == 130
    said: list[str] = []
    assert interrupt(launcher, arguments, ask_one_rank, at_step=18, said=said) == 1
    assert "(exit 143): asked to stop: saved step" in "".join(said)
    assert interrupt(launcher, arguments, lose_machine, at_step=25, said=said) == -signal.SIGKILL
    assert "continuing from step-" in "".join(said)
    assert not (run / "finished.json").exists()
    done = launcher(*arguments)
    assert done.returncode in TRAINED, done.stdout + done.stderr
    assert "continuing from step-" in done.stdout
    assert launcher.runs(MODEL) == [run]
    assert [line[0] for line in logged(run)] == list(range(1, STEPS + 1))
    assert logged(run) == logged(unbroken)
    assert json.loads((run / "finished.json").read_text())["steps"] == STEPS
    adapter = Path("lora") / "adapter_model.safetensors"
    assert files.sha256_file(run / adapter) == files.sha256_file(unbroken / adapter)


def kill_supervisor(launcher: psutil.Process) -> None:
    """Its lock on the job goes with it: two sets of ranks in one run folder would spoil each other's files."""
    launcher.children()[0].kill()


def ask_to_stop(launcher: psutil.Process) -> None:
    launcher.terminate()


def ask_one_rank(launcher: psutil.Process) -> None:
    """The other rank has to hear of it at the same step."""
    (rank,) = (each for each in launcher.children(recursive=True) if each.environ().get("RANK") == "1")
    rank.send_signal(signal.SIGUSR1)


def lose_machine(launcher: psutil.Process) -> None:
    """Everything at once, without a word."""
    for each in (launcher, *launcher.children(recursive=True)):
        each.kill()


def interrupt(
    launcher: Launcher,
    arguments: list[str],
    how: Callable[[psutil.Process], None],
    at_step: int,
    said: list[str] | None = None,
) -> int:
    """Start a run, disturb it once it has logged a step, and return its exit code with nothing left behind."""
    said = [] if said is None else said
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
            said.append(line)
            if line.startswith("{") and json.loads(line).get("step", 0) >= at_step:
                break
        started = psutil.Process(process.pid)
        below = started.children(recursive=True)
        how(started)
        _, alive = psutil.wait_procs(below, timeout=30)
        assert alive == []
        said += process.stdout
        return process.wait(timeout=120)
