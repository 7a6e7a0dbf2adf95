"""A job of tiny workers under the real supervisor and torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import yaml

from mtft import runs
from tests import forks
from tests.trainer import workers

CHECKOUT = Path(__file__).parents[2]
MODEL = "opus_mt_en_fr"
WORKERS = "tests.trainer.workers"


Start = Callable[[], tuple[int, str]]
"""Start a job once; its exit code and what it printed."""
StartAs = Callable[[bool], tuple[int, str]]
"""The same, attended or not."""


class Started(Protocol):
    """A supervisor that was started, with what it prints."""

    @property
    def stdout(self) -> IO[str] | None: ...
    @property
    def returncode(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...
    def communicate(self, *, timeout: float) -> tuple[str, object]: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


@dataclass
class Bench:
    """A storage root with one job in it."""

    root: Path
    prefix: tuple[str, ...] = ()
    """Command that starts the supervisor's."""
    forked: bool = False
    """Whether its processes are forks of one that has torch loaded, not commands that load it each time."""

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(runs.job_file(self.root, MODEL, "job").read_text())
        return found

    @property
    def folder(self) -> Path:
        return runs.RunPaths.at(self.root, MODEL, self.record["run_id"]).folder

    def reason(self, rank: int, attempt: int = 1) -> dict[str, Any]:
        text = (self.folder / "logs" / f"attempt-{attempt}" / f"rank-{rank}.json").read_text()
        found: dict[str, Any] = json.loads(text)
        return found

    def configure(self, **values: Any) -> None:
        data = self.root / "rows.jsonl"
        data.write_text('{"source": "Cod.", "target": "Morue.", "source_lang": "en"}\n')
        document = {"data": {"train": str(data)}, "storage": {"root": str(self.root)}, **values}
        (self.root / "job.yaml").write_text(yaml.safe_dump(document))

    @contextmanager
    def started(self, plan: Mapping[str, str], job: str = "job", **environment: str) -> Iterator[Started]:
        command = [sys.executable, "-m", "trainer", "--config", str(self.root / "job.yaml"), "--model", MODEL]
        command += ["--job", job, "--preparation-module", WORKERS, "--worker-module", WORKERS]
        inherited = {**os.environ, "PYTHONPATH": str(CHECKOUT), workers.PLAN: json.dumps(plan), **environment}
        with self._start(command, inherited) as process:
            try:
                yield process
            finally:
                process.kill()

    def _start(self, command: list[str], environment: Mapping[str, str]) -> AbstractContextManager[Started]:
        if self.forked:
            assert not self.prefix
            forks.preload("tests.trainer.loaded")
            return forks.Fork(command, environment, self.root)
        return subprocess.Popen(
            [*self.prefix, *command], env=environment, stdout=subprocess.PIPE, text=True, cwd=self.root
        )

    def run(self, plan: Mapping[str, str], job: str = "job") -> tuple[int | None, str]:
        with self.started(plan, job) as process:
            output, _ = process.communicate(timeout=120)
            return process.returncode, output


def until(process: Started, word: str) -> str:
    """Read the output up to a line that starts with this word, and return that line."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(word))
