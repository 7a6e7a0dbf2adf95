"""A trainer that starts in a blink: each of its processes is a fork of this one, which has loaded everything.

Pids, sessions, signals, pipes, exit statuses and deaths are those of real processes; only exec and the seconds of
imports are missing. So hundreds of starts take minutes. ``make chaos`` compares with runs that were started cold.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import inspect
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from chaos import faults

NAMES_VARIABLE = "MTFT_CHAOS_MODULES"
"""Names a file to which each forked process adds the modules it had loaded at its end."""

_EXECUTED = subprocess.Popen
_MODULES = ("trainer", "trainer.preparation", "trainer.ranks", "trainer.worker")
_NAME_BYTES = 15  # of a process, as far as Linux keeps it
_RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGHUP)


class Forked(subprocess.Popen[bytes]):
    """``python -m MODULE ...`` as a fork of this process; any other command is executed as ever."""

    def __init__(self, args: Sequence[str], **options: Any) -> None:
        command = _module(args)
        if command is None:
            super().__init__(args, **options)
            return
        self.args = args
        self.stdin = self.stdout = self.stderr = None
        self.returncode: Any = None
        # What poll(), wait() and terminate() of the standard class look at.
        self._child_created, self._waitpid_lock, self._sigint_wait_secs = True, threading.Lock(), 0.25
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that comes before the fork is a process of its own would run this one's handler there.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _RESET)
        self.pid = os.fork()
        if self.pid == 0:
            become(command, held=held, **options)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def load() -> None:
    """Load what a trainer's processes need and let all that this process starts be forks; starts no thread."""
    logging.disable(logging.WARNING)  # what the libraries miss on a machine without a GPU
    import trainer.building
    import trainer.preparation
    import trainer.ranks
    import trainer.report
    import trainer.session
    import trainer.supervisor  # noqa: F401

    logging.disable(logging.NOTSET)
    fork_what_is_started()


def fork_what_is_started() -> None:
    """Let all that this process starts, and what that starts, be forks."""
    import torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler as ranks_of_torchrun

    setattr(ranks_of_torchrun, "Popen", Forked)  # noqa: B010 - it does not export the name it looks up
    subprocess.Popen = Forked  # type: ignore[misc,assignment]
    # torchrun logs who called; with source lines that takes a second where thousands of modules are loaded.
    inspect.stack = functools.partial(inspect.stack, context=0)


def load_what(names: Path) -> None:
    """Load every module that processes have written down there (:data:`NAMES_VARIABLE`)."""
    for name in sorted(set(names.read_text().split())):
        with contextlib.suppress(Exception):  # some are made up by others, or want another place
            importlib.import_module(name)
    gc.freeze()  # else each fork's first collection copies all of it


def start(arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start ``python -m trainer`` with its output in a file."""
    return _start(Forked, arguments, output, environment)


def start_cold(arguments: Sequence[str], output: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start it as a pod does, with everything to load anew."""
    return _start(_EXECUTED, arguments, output, environment)


def _start(
    kind: Callable[..., subprocess.Popen[bytes]], arguments: Sequence[str], output: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with output.open("wb") as log:
        command = [sys.executable, "-m", "trainer", *arguments]
        return kind(command, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True)


def runs_as(process: psutil.Process) -> str | None:
    """Return the module that a forked process of this machine runs; None: it is gone, or not one yet."""
    try:
        name = process.name()
    except psutil.NoSuchProcess:
        return None
    return next((each for each in _MODULES if each[:_NAME_BYTES] == name), None)


def _module(args: Sequence[str]) -> list[str] | None:
    """Return module and arguments of a command of this interpreter; None: it is another one."""
    words = [str(word) for word in args]
    if words[:1] != [sys.executable]:
        return None
    words = [word for word in words[1:2] if word != "-u"] + words[2:]
    return words[1:] if words[:1] == ["-m"] else None


def become(
    command: list[str],
    *,
    env: Mapping[str, str],
    stdin: int | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    start_new_session: bool = False,
    held: Iterable[int] = (),
) -> None:
    """Be, in a fork, the process of a command, and end; ``held`` is its signal mask."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        if not command[0].startswith("trainer"):  # which lets an interrupt end it while it is imported
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        if start_new_session:
            os.setsid()
        _redirect(stdout, stderr)
        os.environ.clear()
        os.environ.update(env)
        logging.disable(logging.NOTSET)
        warnings.simplefilter("ignore", RuntimeWarning)  # runpy's: the module is loaded already
        sys.argv = command
        Path("/proc/self/comm").write_text(command[0][:_NAME_BYTES])
        faults.arm(command[0])
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            _leave_names()
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
        finally:  # never back into what the parent was doing, whose objects and locks are copies here
            os._exit(code)


def _leave_names() -> None:
    if names := os.environ.get(NAMES_VARIABLE):
        with Path(names).open("a") as out:
            out.write("".join(f"{name}\n" for name in list(sys.modules) if "__mp_main__" not in name))


def _redirect(stdout: int | IO[Any] | None, stderr: int | IO[Any] | None) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    targets = [nothing, *(_descriptor(given, own) for given, own in ((stdout, 1), (stderr, 2)))]
    # First away from the numbers they go to, which may be those of one another.
    for number, copy in enumerate([os.dup(target) for target in targets]):
        os.dup2(copy, number)
    os.closerange(3, max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1)


def _descriptor(given: int | IO[Any] | None, own: int) -> int:
    if given is None:
        return own
    return given if isinstance(given, int) else given.fileno()
