"""A lease on work that only one process should do at a time: owner and expiry in a file, renewed while it is done.

Made for NFS: no file lock, only links and renames. The holder is not needed for correctness: each works beside, and
what is complete appears in one rename. So a clock that is wrong, or two processes that take over the same expired
lease, cost double work only; one that must not go on then asks :meth:`Held.check`. A holder whose clock was ahead keeps
nobody waiting for longer: a lease that nobody renews for ``LEASE_SECONDS`` is over, whatever expiry it names.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mtft import files
from mtft.errors import Retry

_log = logging.getLogger("mtft.lease")

LEASE_SECONDS = 60.0
POLL_SECONDS = 1.0
_QUIET_SECONDS = 2.0  # a person is told of a longer wait
# Who finds a lease expired moves it away, looks at it, and puts back one that is younger: meanwhile it has no name.
_AWAY_SECONDS = 0.5


@dataclass(frozen=True)
class Held:
    """A lease this process has."""

    path: Path
    owner: str

    def check(self) -> None:
        """Do nothing while the lease is still this process's own.

        Raises:
            Retry: it expired, as on a machine that slept or whose clock jumped, and another process took it.
        """
        if (now := _owner(self.path)) != self.owner:
            raise Retry(f"{self.path}: taken over by {now or 'nobody'} while this process held it; run again")


@contextlib.contextmanager
def hold(
    path: Path,
    *,
    now: Callable[[], float] = time.time,
    elapsed: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
    patience: float | None = None,
    poll: float = POLL_SECONDS,
    say: Callable[[str], object] | None = None,
) -> Iterator[Held]:
    """Wait until the lease is free or expired, hold it, and remove it at the end.

    Args:
        path: the lease file; its folder exists.
        now: the clock, in seconds since the epoch.
        elapsed: a clock in seconds that nobody sets.
        pause: waits that many seconds; what it raises ends the wait.
        patience: seconds to wait for another holder; None: without end.
        poll: seconds between two looks.
        say: told whom a wait of more than a moment is for.

    Raises:
        Retry: it was not free within ``patience``.
    """
    held = Held(path, f"{machine()}:{os.getpid()}:{secrets.token_hex(4)}")
    waited_for, waited = "", 0.0
    tell = _teller(path, patience, say)
    watch = _Watch(now, elapsed)
    while not _take(held, watch):
        if (other := read(path)[0]) != waited_for:
            waited_for = other
            _log.info("waiting for %s, which does the same work (%s)", other or "another process", path.name)
        if patience is not None and waited >= patience:
            raise Retry(f"{path}: held by {other or 'another process'} for over {patience:.0f} s; run again later")
        if waited >= _QUIET_SECONDS:
            tell(other)
        pause(poll)
        waited += poll
    done = threading.Event()
    heart = threading.Thread(target=_renew, args=(held, now, done), daemon=True)
    heart.start()
    try:
        yield held
    finally:
        done.set()
        heart.join()
        with contextlib.suppress(OSError):  # what was done stays done, and the lease is over by itself
            if read(path)[0] == held.owner:
                path.unlink(missing_ok=True)


def is_live(path: Path, now: Callable[[], float] = time.time) -> bool:
    """Tell whether somebody holds this lease."""
    owner, expires = read(path)
    if expires > now() + LEASE_SECONDS:  # by a clock that was ahead: the age of the file tells more
        expires = _expiry_by_age(path)
    return expires > now() and not _is_dead(owner)


def read(path: Path) -> tuple[str, float]:
    """Return owner and expiry in seconds since the epoch; of a damaged lease, nobody and its age."""
    try:
        lease = json.loads(files.read_steadily(path))
        return str(lease["owner"]), float(lease["expires"])
    except FileNotFoundError:
        return "", 0.0
    except (ValueError, KeyError, TypeError):
        return "", _expiry_by_age(path)


def _expiry_by_age(path: Path) -> float:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime + LEASE_SECONDS
    return 0.0


@dataclass
class _Watch:
    """What a waiter sees of a lease: one that stays as it is for too long is over."""

    now: Callable[[], float]
    elapsed: Callable[[], float]
    seen: tuple[str, float] | None = None
    since: float = 0.0

    def is_live(self, path: Path) -> bool:
        found, at = read(path), self.elapsed()
        if found != self.seen:
            self.seen, self.since = found, at
        return at - self.since < LEASE_SECONDS and is_live(path, self.now)


def _take(held: Held, watch: _Watch) -> bool:
    # Looked at first, because each try to put one writes to the volume.
    if watch.is_live(held.path):
        return False
    if _put(held, watch.now):
        return True
    if watch.is_live(held.path):  # put by another between the two
        return False
    # Of several that find it expired, one moves it away; a younger one, taken meanwhile, is put back.
    aside = held.path.with_name(f".{held.path.name}.{secrets.token_hex(4)}.tmp")
    try:
        held.path.rename(aside)
    except FileNotFoundError:
        return False
    try:
        if watch.is_live(aside):
            with contextlib.suppress(OSError):
                os.link(aside, held.path)
            return False
        return _put(held, watch.now)
    finally:
        aside.unlink(missing_ok=True)


def _owner(path: Path) -> str:
    """Return who holds a lease; nobody only at a second look."""
    if owner := read(path)[0]:
        return owner
    time.sleep(_AWAY_SECONDS)
    return read(path)[0]


def _put(held: Held, now: Callable[[], float]) -> bool:
    """Give the lease its name, which fails where the name exists."""
    beside = held.path.with_name(f".{held.path.name}.{secrets.token_hex(4)}.tmp")
    try:
        beside.write_text(_content(held, now), encoding="utf-8")
        return files.link_new(beside, held.path)
    finally:
        beside.unlink(missing_ok=True)


def _renew(held: Held, now: Callable[[], float], done: threading.Event) -> None:
    while not done.wait(LEASE_SECONDS / 4):
        with contextlib.suppress(OSError):
            if _owner(held.path) != held.owner:
                return
            files.write_text(held.path, _content(held, now))


def _content(held: Held, now: Callable[[], float]) -> str:
    return json.dumps({"owner": held.owner, "expires": now() + LEASE_SECONDS}) + "\n"


def machine() -> str:
    """Return the name of this machine, and of the container where processes have numbers of their own."""
    try:
        return f"{socket.gethostname()}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def _teller(path: Path, patience: float | None, say: Callable[[str], object] | None) -> Callable[[str], None]:
    """Return what says whom a wait is for, each holder once."""
    told: set[str] = set()

    def tell(owner: str) -> None:
        if say is not None and owner not in told:
            told.add(owner)
            most = "" if patience is None else f"; {patience:.0f} s at most"
            say(f"waiting for {_in_words(owner)}, which holds {path}{most}")

    return tell


def _in_words(owner: str) -> str:
    machine, _, rest = owner.partition(":")
    place, process = machine.partition("/")[0], rest.partition(":")[0]
    return f"process {process} on {place}" if place and process else "another process"


def _is_dead(owner: str) -> bool:
    """Whether the owner was a process of this machine that is gone."""
    where, _, rest = owner.partition(":")
    process = rest.partition(":")[0]
    if where != machine() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except OSError as error:
        return error.errno == errno.ESRCH
    return False
