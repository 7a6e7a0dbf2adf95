"""How pods that are gone ended, from what the operator said of them in events of their job. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from launcher import labels
from launcher.pod_reasons import Ending, ended_with, last_seen

# The operator tells the first of every pod that fails, the second where it sees the container end before the pod.
_EXITED = re.compile(r"Pod: \S+ exited with code (?P<code>\d+)$")
_ENDED = re.compile(
    rf"Error pod \S+ container {labels.CONTAINER} exitCode: (?P<code>\d+) terminated message: (?P<message>.*)$",
    re.DOTALL,
)
_RETRIED_FROM = 128  # exit codes from here on are tried again, so they decide nothing


def by_object(events: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return UID -> the events about that object."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        found[event["involvedObject"].get("uid", "")].append(event)
    return found


def told_ending(events: Iterable[Mapping[str, Any]]) -> Ending | None:
    """Return the ending that decided a failed job, from the events about it; None where none tells it."""
    bare, full = None, None
    for event in sorted(events, key=last_seen):
        said = event.get("message") or ""
        found = _EXITED.search(said) or _ENDED.search(said)
        if not found or not 0 < int(found["code"]) < _RETRIED_FROM:
            continue
        message = found.groupdict().get("message")
        terminated = {"exitCode": int(found["code"]), "reason": event.get("reason"), "message": message}
        if message is None:
            bare = ended_with(terminated)
        else:
            full = ended_with(terminated)
    return full or bare
