"""A lease on a piece of work that only one process should do: owner and expiry in a file, renewed while it is done.

The holder is not needed for correctness: each builds in a folder of its own, and what is complete appears in one
rename. So a clock that is wrong, or two processes that take over the same expired lease, cost double work only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from mtft import files

_log = logging.getLogger("mtft.lease")

LEASE_SECONDS = 60.0
POLL_SECONDS = 1.0


@contextlib.contextmanager
def hold(
    path: Path, *, now: Callable[[], float] = time.time, pause: Callable[[float], object] = time.sleep
) -> Iterator[None]:
    """Wait until the lease is free or expired, hold it, and remove it at the end.

    Args:
        path: the lease file; its folder exists.
        now: the clock, in seconds since the epoch.
        pause: waits that many seconds.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    waited_for = ""
    while not _take(path, owner, now):
        if (other := _read(path)[0]) != waited_for:
            waited_for = other
            _log.info("waiting for %s, which does the same work (%s)", other or "another process", path.name)
        pause(POLL_SECONDS)
    done = threading.Event()
    heart = threading.Thread(target=_renew, args=(path, owner, now, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        if _read(path)[0] == owner:
            path.unlink(missing_ok=True)


def _take(path: Path, owner: str, now: Callable[[], float]) -> bool:
    text = json.dumps({"owner": owner, "expires": now() + LEASE_SECONDS}) + "\n"
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as lease:
        lease.write(text)
        return True
    other, expires = _read(path)
    if expires > now() and not _is_dead(other):
        return False
    files.write_text(path, text)
    return _read(path)[0] == owner


def _is_dead(owner: str) -> bool:
    """Whether the owner was a process of this machine that is gone."""
    host, _, rest = owner.partition(":")
    process = rest.partition(":")[0]
    return host == socket.gethostname() and process.isdigit() and not psutil.pid_exists(int(process))


def _read(path: Path) -> tuple[str, float]:
    """Return owner and expiry; of a lease that is just being written, nobody and its age."""
    try:
        lease = json.loads(path.read_text(encoding="utf-8"))
        return str(lease["owner"]), float(lease["expires"])
    except FileNotFoundError:
        return "", 0.0
    except (ValueError, KeyError, TypeError):
        with contextlib.suppress(FileNotFoundError):
            return "", path.stat().st_mtime + LEASE_SECONDS
        return "", 0.0


def _renew(path: Path, owner: str, now: Callable[[], float], done: threading.Event) -> None:
    while not done.wait(LEASE_SECONDS / 4):
        if _read(path)[0] != owner:
            return
        with contextlib.suppress(OSError):
            files.write_json(path, {"owner": owner, "expires": now() + LEASE_SECONDS})
