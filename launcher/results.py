"""What the pods of a job leave behind: which of them decided it, restarts, verdict and scores. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.pod_reasons import Ending
from launcher.printed import placed
from launcher.progress import Progress
from launcher.state_words import Name
from mtft.text import printable

SCORES = {"bleu": "BLEU", "chrf": "chrF"}
KEPT = {"numbers": "numbers", "entities": "names and units"}
ERRORS = {"off_target": "other language", "empty": "empty", "repetition": "repetition"}


def decisive_ending(state: Name, ended: Mapping[str, Ending]) -> Ending | None:
    """Return the ending that decided the job: of a failed one the first that is permanent, else the master's."""
    by_name = [ended[name] for name in sorted(ended)]
    if state == "Failed":
        bad = [each for each in by_name if each.exit_code != 0]
        permanent = [each for each in bad if each.exit_code is not None and each.exit_code < 128]
        return next(iter(permanent or bad), None)
    good = [each for each in by_name if each.exit_code == 0]
    if state == "Succeeded":
        return next((each for each in good if each.message), next(iter(good), None))
    return next(iter(by_name), None) if state == "Restarting" else None


def restarts_of(message: Mapping[str, Any], progress: Progress, pods: Sequence[Mapping[str, Any]]) -> int | None:
    """Return how often the trainer started after the first time, from what it said, else from its pods."""
    attempt = message.get("attempt") or progress.attempt
    if isinstance(attempt, int):
        return attempt - 1
    counts = [
        int(each.get("restartCount", 0))
        for pod in pods
        for each in (pod.get("status") or {}).get("containerStatuses") or []
    ]
    return sum(counts) or None


def verdict_of(message: Mapping[str, Any]) -> str | None:
    """Return the gate's verdict of a termination message."""
    verdict = message.get("verdict") or _part(_part(message, "finished"), "gate").get("verdict")
    return str(verdict) if verdict else None


def reasons_of(message: Mapping[str, Any], place: str) -> tuple[str, ...]:
    """Return why the gate gave its verdict, each reason on one line; its commands end with ``place``."""
    reasons = _part(_part(message, "finished"), "gate").get("reasons")
    return tuple(printable(placed(str(each), place)) for each in reasons) if isinstance(reasons, list) else ()


def scores_of(message: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return per direction the scores and rates of a termination message, and how they differ from the base's."""
    scores = _part(_part(message, "finished"), "scores")
    found: dict[str, dict[str, float]] = {}
    for direction in _part(scores, "tuned"):
        tuned, base = _part(_part(scores, "tuned"), direction), _part(_part(scores, "base"), direction)
        found[direction] = {}
        for name, digits in {**dict.fromkeys(SCORES, 2), **dict.fromkeys((*KEPT, *ERRORS), 4)}.items():
            now, before = tuned.get(name), base.get(name)
            if isinstance(now, int | float):
                found[direction][name] = round(now, digits)
                if isinstance(before, int | float):
                    found[direction][f"{name}_delta"] = round(now - before, digits)
    return found


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a mapping inside a message, empty where a pod of somebody else's making wrote something other."""
    part = values.get(name)
    return part if isinstance(part, Mapping) else {}
