"""Processes of a cluster: each in a session of its own, its pid in a file, so that anybody can end exactly these."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

_POLL_SECONDS = 0.1
_READY_SECONDS = 120.0
_STOP_SECONDS = 10.0
# Go's garbage collection takes a fifth of a short-lived API server's time; at 400 % it takes 0.3 GiB instead.
_ENVIRONMENT = {"GOGC": "400"}


class ClusterFailed(Exception):
    """A part of the test cluster did not do its work; the text holds the end of its log."""


class Processes:
    """The processes started for one state folder.

    ``pids/<name>`` holds pid and start time, so that a pid used again by another program is never taken for ours;
    ``logs/<name>`` holds what the process wrote.
    """

    def __init__(self, state: Path) -> None:
        self._pids = state / "pids"
        self._logs = state / "logs"

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start a process that lives until ``stop``, whatever happens to the one that started it."""
        self._pids.mkdir(parents=True, exist_ok=True)
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / name).open("ab") as log:
            child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **_ENVIRONMENT, **(environment or {})},
                start_new_session=True,
            )
        write_pid(self._pids / name, child.pid)

    def restart(self, name: str, away_seconds: float = 0.0) -> None:
        """Kill a process and start it again as it was, so many seconds later."""
        process = running(self._pids / name)
        assert process is not None, f"{name} does not run"
        command = process.cmdline()
        self.stop(name)
        time.sleep(away_seconds)
        self.start(name, command)

    def running(self, name: str) -> bool:
        """Whether the process of that name is alive."""
        return running(self._pids / name) is not None

    def wait(self, name: str, condition: Callable[[], bool], seconds: float = _READY_SECONDS) -> None:
        """Return as soon as the condition holds.

        Raises:
            ClusterFailed: the process ended before, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if not self.running(name):
                raise ClusterFailed(f"{name} ended while it was starting:\n{self.log_end(name)}")
            if time.monotonic() > deadline:
                raise ClusterFailed(f"{name} is not ready after {seconds:.0f} s:\n{self.log_end(name)}")
            time.sleep(_POLL_SECONDS)

    def log_end(self, name: str) -> str:
        """Return the last lines of a process's log."""
        path = self._logs / name
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:]) if path.exists() else "(no log)"

    def stop(self, *names: str) -> None:
        """End these processes, or all; what they hold in memory is thrown away, as their data is."""
        recorded = [path.name for path in sorted(self._pids.glob("*"))]
        alive = [process for name in names or recorded if (process := running(self._pids / name))]
        for process in alive:
            _kill_group(process.pid)
        psutil.wait_procs(alive, timeout=_STOP_SECONDS)
        for name in names or recorded:
            (self._pids / name).unlink(missing_ok=True)


def write_pid(path: Path, pid: int) -> None:
    """Record a running process."""
    path.write_text(json.dumps({"pid": pid, "started": psutil.Process(pid).create_time()}))


def running(path: Path) -> psutil.Process | None:
    """Return the process a file records; None when it has ended or nothing is recorded."""
    try:
        recorded = json.loads(path.read_text())
        process = psutil.Process(recorded["pid"])
        if process.create_time() != recorded["started"] or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    return process


def free_ports(count: int) -> list[int]:
    """Return TCP ports of the loopback that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def answers(url: str) -> bool:
    """Whether a health address answers 200; its certificate is not looked at."""
    # Health is no secret, and the address is one that this machine's own child listens on.
    context = ssl._create_unverified_context()
    # A proxy of this machine's environment must not see loopback addresses.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
