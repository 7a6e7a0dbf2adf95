"""Kills from inside: a process that ends, or ends others, in the middle of a file operation.

``MTFT_CHAOS_KILL`` holds a list of :class:`Fault` as JSON. The operations are those that every publication goes
through; the path is looked at, so a kill can be aimed at a save, at an export or at the flip of a pointer.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

VARIABLE = "MTFT_CHAOS_KILL"
OPERATIONS = ("replace", "rename", "link", "symlink", "unlink", "mkdir", "fsync")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kill.

    Attributes:
        module: whose process it happens in; of the ranks, in rank 0.
        parts: of paths: operations on one of them count.
        nth: the operation it happens at, from 1; 0: none, they are only counted.
        before: whether the operation is still to come.
        victim: ``rank`` is the process itself; ``supervisor`` the one above, whose death ends it; or ``all`` at once.
        mark: a file outside the volume that appears just before; where they are counted, of as many bytes.
        supervisor: its pid; 0: the process itself.
    """

    module: str
    parts: tuple[str, ...]
    nth: int
    before: bool
    victim: str
    mark: Path
    supervisor: int = 0


def text(*faults: Fault) -> str:
    """Return faults as the variable holds them."""
    return json.dumps([asdict(fault) for fault in faults], default=str)


def arm(module: str) -> None:
    """Be killed as the environment says, where this process runs that module."""
    if VARIABLE not in os.environ:
        return
    faults = [Fault(**{**each, "mark": Path(each["mark"])}) for each in json.loads(os.environ[VARIABLE])]
    if module == "trainer":
        # What it starts inherits the variable and has to know whom to kill.
        faults = [replace(fault, supervisor=os.getpid()) for fault in faults]
        os.environ[VARIABLE] = text(*faults)
    for fault in faults:
        if module == fault.module and os.environ.get("RANK", "0") == "0":
            wrap(fault.parts, _killing(fault) if fault.nth else counting(fault.mark))


def wrap(parts: Iterable[str], reached: Callable[[int, bool], None]) -> None:
    """Call ``reached(n, before)`` around the nth operation on a path that holds one of these parts, in this process."""
    wanted, done = tuple(parts), 0

    def around(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*given: Any, **options: Any) -> Any:
            nonlocal done
            if not any(part in path for path in _paths(given) for part in wanted):
                return operation(*given, **options)
            done += 1
            number = done
            reached(number, True)
            try:
                return operation(*given, **options)
            finally:
                reached(number, False)

        return wrapped

    for name in OPERATIONS:
        setattr(os, name, around(getattr(os, name)))


def kill_all(supervisor: int, *, last: int = 0) -> None:
    """Kill a process and everything below it; ``last``, which may be the caller, at the end."""
    try:
        top = psutil.Process(supervisor)
        everything = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in everything:
        if each.pid != last:
            kill(each.pid)
    if last:
        kill(last)


def kill(pid: int) -> None:
    """Send SIGKILL to a process that may be gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def counting(mark: Path) -> Callable[[int, bool], None]:
    """Return what adds a byte to a file for each operation it is told of."""

    def reached(_number: int, before: bool) -> None:
        if before:
            with mark.open("ab") as out:
                out.write(b".")

    return reached


def _killing(fault: Fault) -> Callable[[int, bool], None]:
    def reached(number: int, before: bool) -> None:
        if number != fault.nth or before is not fault.before:
            return
        os.close(os.open(fault.mark, os.O_CREAT | os.O_WRONLY))
        if fault.victim == "all":
            kill_all(fault.supervisor, last=os.getpid())
        elif fault.victim == "supervisor":
            kill(fault.supervisor)
            signal.pause()  # its death ends this process, in the middle of what it was doing
        kill(os.getpid())

    return reached


def _paths(given: tuple[Any, ...]) -> list[str]:
    """Return the paths an operation was given; of a descriptor, the file it is."""
    found = []
    for each in given:
        if isinstance(each, int):
            try:
                found.append(str(Path(f"/proc/self/fd/{each}").readlink()))
            except OSError:
                continue
        else:
            found.append(str(each))
    return found
