"""Ranks that the kernel killed because the host's memory ran out: seen by the supervisor, heeded by the next start."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")
_MARK = "out-of-memory"


def kernel_kills(groups: Path = _GROUPS, own: Path = _OWN_GROUP) -> int:
    """Return how many processes of this container the kernel killed for want of memory; 0 where it does not say.

    Args:
        groups: where the control groups are mounted.
        own: says which group this process is in.
    """
    with contextlib.suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers == "":
                mounted, events = groups, "memory.events"
            elif "memory" in controllers.split(","):  # version 1
                mounted, events = groups / "memory", "memory.oom_control"
            else:
                continue
            # Inside a container its group is the root of the mount, whatever the name says.
            for folder in (mounted / name.lstrip("/"), mounted):
                if (folder / events).exists():
                    return _count(folder / events)
    return 0


def mark(attempt: Path, node: int) -> None:
    """Note that the kernel ended a rank of this node in an attempt."""
    with contextlib.suppress(OSError):  # a full volume: the next start tries with what it has
        attempt.mkdir(parents=True, exist_ok=True)
        (attempt / f"{_MARK}-{node}").touch()


def kills(logs: Path) -> int:
    """Return how many attempts the kernel ended that way, on whatever node."""
    return len({path.parent for path in logs.glob(f"attempt-*/{_MARK}-*")})


def _count(events: Path) -> int:
    found = re.search(r"^oom_kill (\d+)$", events.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
