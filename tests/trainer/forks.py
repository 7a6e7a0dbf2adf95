"""A trainer whose processes are forks of one that has torch loaded; see ``chaos/warm.py`` for what that leaves out."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from chaos import warm

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.trainer.loaded"])


class Fork:
    """As much of ``subprocess.Popen`` as tests use, its output as text."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        reader, writer = os.pipe()
        output = Connection(writer, readable=False)
        self._process = _CONTEXT.Process(target=_be, args=(list(command), dict(environment), folder, output))
        self._process.start()
        output.close()
        self.stdout = os.fdopen(reader, encoding="utf-8")

    def __enter__(self) -> Fork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stdout.close()
        self._process.join()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("python -m trainer", timeout)
        return self._process.exitcode

    def communicate(self, timeout: float) -> tuple[str, int]:
        return self.stdout.read(), self.wait(timeout)

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _be(command: list[str], environment: dict[str, str], folder: Path, output: Connection) -> None:
    os.chdir(folder)
    warm.fork_what_is_started()
    warm.become(command[2:], env=environment, stdout=output.fileno())
