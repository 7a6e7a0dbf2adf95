"""The words for what a job is doing: its state, the phase within it, and why it does not go on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from launcher import labels, printed
from launcher.job_objects import condition, rank_of
from launcher.pod_reasons import NO_SERVICE, UNSEEN, Ending, is_broken, is_silent, waiting_reason
from launcher.progress import Progress

Name = Literal[
    "Queued", "Suspended", "Cancelled", "Pending", "Running", "Restarting", "Succeeded", "Failed", "Deleting", "Deleted"
]


def phase_of(
    state: Name,
    job: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]] | None,
    progress: Progress,
    failures: Mapping[str, str],
) -> str:
    """Return what is going on within a state, in a word or two; the pods are None when they were not asked for."""
    if state == "Running":
        if any(is_broken(pod, failures) for pod in pods or ()):
            return "blocked"
        waiting = [reason for pod in pods or () if (reason := waiting_reason(pod))]
        known = progress.attempt or any(map(is_silent, pods or ()))
        return progress.phase if known or not waiting else "waiting for its other pods"
    if state == "Pending":
        if not pods:
            return "waiting to run" if pods is None else "no pods yet"
        if _refused(job, failures).startswith((NO_SERVICE, UNSEEN)):
            return "unseen"
        if any(is_broken(pod, failures) for pod in pods):
            return "blocked"
        return "starting" if all(map(_placed, pods)) else "unscheduled"
    words: dict[Name, str] = {
        "Queued": "waiting in its queue",
        "Suspended": "stopped by hand",
        "Cancelled": "stopped for good",
        "Restarting": "a pod is being replaced",
        "Succeeded": "finished",
        "Failed": "failed",
        "Deleting": "being deleted",
        "Deleted": "gone",
    }
    return words[state]


def reason_of(
    state: Name,
    job: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]] | None,
    decisive: Ending | None,
    queue_says: str | None,
    failures: Mapping[str, str],
) -> str | None:
    """Say in words why a job waits, restarts or failed; None where there is nothing to say.

    Args:
        state: of the job.
        job: the PyTorchJob.
        pods: its pods; None when they were not asked for.
        decisive: how the pod that decided it ended.
        queue_says: why its queue lets it wait, where that was asked.
        failures: UID of a pod -> why it is not scheduled or mounted, of the job -> what of it is refused or not told.
    """
    if state == "Failed":
        return decisive.reason if decisive else _no_reason(job, pods)
    if state == "Queued":
        return queue_says or f"queue {job['metadata']['labels'][labels.QUEUE]} has not admitted it yet"
    if state in ("Suspended", "Cancelled"):
        return f"`{printed.launch('resume', job)}` continues it"
    if state == "Succeeded":
        return None if pods is None or (decisive and decisive.message) else _no_verdict(job, pods)
    if state == "Deleting":
        return None
    # Once the operator has told of a start, the Services were there: an event that says otherwise is older.
    if (refused := _refused(job, failures)) and (state == "Pending" or not refused.startswith(NO_SERVICE)):
        return refused
    if waiting := [(rank_of(pod), reason) for pod in pods or () if (reason := waiting_reason(pod, failures))]:
        return min(waiting)[1]
    if state == "Restarting":
        return decisive.reason if decisive else "a pod was lost"
    if state == "Pending" and pods is not None and not pods:
        return f"no pods yet: the operator has not seen it or may make none; `{printed.launch('doctor', job)}` tells"
    return None


def _no_verdict(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> str:
    why = "its pods left no word of it" if pods else "its pods are gone"
    return f"verdict unknown: {why}; `{printed.launch('fetch', job, ' --what report')}` tells"


def _no_reason(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]] | None) -> str:
    said = (condition(job, "Failed") or {}).get("message") or "nobody says why"
    if pods is None:
        return said
    run = f"`{printed.launch('fetch', job, ' --what run')}` brings console_output.txt, which has the reason"
    return f"{said} (its pods are gone); {run}"


def _refused(job: Mapping[str, Any], failures: Mapping[str, str]) -> str:
    return failures.get(job["metadata"].get("uid", ""), "")


def _placed(pod: Mapping[str, Any]) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName"))
