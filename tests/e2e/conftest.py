"""The launcher as a person starts it, and one finished run per family to look at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.corpus import generate, write_jsonl
from mtft import exit_codes
from tests.conftest import require

CHECKOUT = Path(__file__).resolve().parents[2]

# Enough steps to go through every phase, no more.
QUICK = (
    "eval.beams=2",
    "eval.every=1000",
    "eval.max_dev_rows=6",
    "eval.max_test_rows=11",
    "eval.bootstrap_samples=50",
    "cluster.gpus_per_node=0",
    "tracking.log_every_steps=4",
)


# Exit codes of a job that trained: better than the base, or not.
TRAINED = (exit_codes.DONE, exit_codes.NOT_PROMOTED)


@dataclass(frozen=True)
class Launcher:
    """Starts ``mtft-launch`` in a folder of its own."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "launcher", *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(CHECKOUT)}

    def __call__(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            input=text,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    def local(self, model: str, base: Path, data: Path, *arguments: str) -> list[str]:
        """Return the arguments of a quick local run."""
        sets = [part for setting in QUICK for part in ("--set", setting)]
        given = ["--model", model, "--backend", "local", "--model-path", str(base), "--data", str(data)]
        return [*given, *sets, *arguments]

    def runs(self, model: str) -> list[Path]:
        return sorted((self.folder / "outputs" / model / "runs").glob("*"))


@pytest.fixture(scope="session")
def training_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six hundred generated pairs in both directions, 30 documents."""
    path = tmp_path_factory.mktemp("data") / "train.jsonl.gz"
    write_jsonl(path, generate("assessment", 600, seed=3))
    return path


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    """A launcher in an empty folder."""
    return Launcher(tmp_path)


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a volume of so many MiB: ``small_volume(2)``."""
    made: list[Path] = []

    def mount(mib: int) -> Path:
        folder = tmp_path / f"volume-{mib}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
            require("mount", "mounting a small volume needs root")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", str(folder)], check=True)


@dataclass(frozen=True)
class Finished:
    """A run that went to its end, and the arguments that started it."""

    model: str
    base: Path
    folder: Path
    launcher: Launcher
    arguments: list[str]
    output: str


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, standins: Callable[[str], Path], training_file: Path
) -> Callable[[str], Finished]:
    """Give the finished run of a model key: 8 steps, OPUS's in two processes; made once.

    All five keys train in two processes in ``make real-short``.
    """
    made: dict[str, Finished] = {}

    def get(model: str) -> Finished:
        if model not in made:
            launcher = Launcher(tmp_path_factory.mktemp(model))
            base = standins(model)
            processes = "2" if model.startswith("opus") else "1"
            arguments = launcher.local(model, base, training_file, "--max-steps", "8", "--processes", processes)
            done = launcher(*arguments)
            assert done.returncode in TRAINED, done.stdout + done.stderr
            (folder,) = launcher.runs(model)
            made[model] = Finished(model, base, folder, launcher, arguments, done.stdout)
        return made[model]

    return get
