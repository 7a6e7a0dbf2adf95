"""Programs of ours as forks of a process that has loaded what they need; ``chaos/warm.py`` says what that leaves out.

Whoever starts one names the module that loads it all beforehand: ``forks.preload("tests.trainer.loaded")``.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from chaos import warm

_CONTEXT = multiprocessing.get_context("forkserver")


def preload(module: str) -> None:
    """Let the process that all are forked from import a module; before the first of them starts."""
    _CONTEXT.set_forkserver_preload([module])


class Fork:
    """As much of ``subprocess.Popen`` as tests use, for ``python -m MODULE ...``; its output as text.

    Args:
        command: interpreter, ``-m``, module and arguments.
        environment: all of it.
        folder: it starts there.
        joined: whether its errors come with its output.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, *, joined: bool = False
    ) -> None:
        self._command = list(command)
        reader, writer = os.pipe()
        output = Connection(writer, readable=False)
        self._process = _CONTEXT.Process(target=_be, args=(self._command, dict(environment), folder, output, joined))
        self._process.start()
        output.close()
        self.stdout = os.fdopen(reader, encoding="utf-8")

    def __enter__(self) -> Fork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.stdout.close()
        self._process.join()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._command, timeout)
        return self._process.exitcode

    def communicate(self, timeout: float) -> tuple[str, int]:
        """Return its output and its status; unlike the standard one's, the limit begins when the output has ended."""
        return self.stdout.read(), self.wait(timeout)

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            assert self._process.pid is not None
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _be(command: list[str], environment: dict[str, str], folder: Path, output: Connection, joined: bool) -> None:
    os.chdir(folder)
    warm.fork_what_is_started()
    # New streams, as what the server writes to may be of another kind: a file, where this is a pipe.
    os.dup2(output.fileno(), 1)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if joined:
        os.dup2(output.fileno(), 2)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
    warm.become(command[2:], env=environment)
