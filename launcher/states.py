"""What a job is doing, from its PyTorchJob, its pods and its last log lines.

Pure: no cluster, no clock. A job ends only when the operator says so: while it replaces a lost or evicted pod, its
conditions change between Restarting and Running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from launcher import labels, printed
from launcher.job_objects import condition, gpus_of, is_replacing, parse_time, pod_count, replicas, roles
from launcher.pod_reasons import UNSEEN, Ending, ending, runs, started_unseen
from launcher.progress import STARTED_AGAIN, Progress
from launcher.results import decisive_ending, reasons_of, restarts_of, scores_of, verdict_of
from launcher.state_words import Name, phase_of, reason_of
from mtft import exit_codes
from mtft.text import printable_lines

TERMINAL: tuple[Name, ...] = ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class JobState:
    """One job, as a person asks for it; None where nothing is known.

    Attributes:
        state: of the job as a whole.
        phase: what is going on within that state.
        percent: share of the training steps done, 0 to 100.
        eta_s: seconds of training left, without the final evaluation.
        loss: nats per real target token.
        tokens_per_second: real target tokens a second, all processes together.
        quiet_s: seconds since the last step was logged.
        restarts: starts of the trainer after the first.
        resumed_at: step of the checkpoint the present start continues from.
        nodes: the cluster's nodes the pods are on.
        pods, pods_wanted: pods that run, and that the job has when it runs.
        gpus: GPUs of all its pods.
        queue: Kueue queue it was given to.
        reason: why it waits, restarts or failed, why it was started again, or why nobody knows what came of it, in
            words.
        exit_code: exit status of the pod that decided the job.
        verdict: the gate's: ``promoted``, ``better``, ``not better`` or ``regressed`` (``mtft.exit_codes``).
        verdict_reasons: why, what counts against the model first.
        scores: per direction BLEU, chrF (points) and rates (0 to 1) on test, and how they differ from the base's.
        age_s: seconds since the job was made.
        took_s: seconds to its end, or to now, from its last start: made anew, resumed or admitted by its queue.
    """

    name: str
    namespace: str
    model: str | None
    batch: str | None
    state: Name
    phase: str
    percent: float | None = None
    step: int | None = None
    total_steps: int | None = None
    eta_s: float | None = None
    loss: float | None = None
    tokens_per_second: float | None = None
    quiet_s: float | None = None
    restarts: int | None = None
    resumed_at: int | None = None
    nodes: tuple[str, ...] = ()
    pods: int = 0
    pods_wanted: int = 1
    gpus: int = 0
    queue: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    run_id: str | None = None
    verdict: str | None = None
    verdict_reasons: tuple[str, ...] = ()
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    age_s: float | None = None
    took_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in TERMINAL

    @property
    def launcher_code(self) -> int | None:
        """Exit code of the launcher for a job that ended, was cancelled or is gone, else None."""
        if self.state in ("Failed", "Cancelled", "Deleted"):
            return exit_codes.FAILED
        if self.state == "Succeeded":
            return exit_codes.of_verdict(self.verdict)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return every field, for JSON and YAML."""
        return {
            **asdict(self),
            "nodes": list(self.nodes),
            "verdict_reasons": list(self.verdict_reasons),
            "scores": {name: dict(values) for name, values in self.scores.items()},
        }


def job_state(
    job: Mapping[str, Any],
    pods: Sequence[Mapping[str, Any]] | None,
    *,
    now: datetime,
    progress: Progress | None = None,
    queue_says: str | None = None,
    failures: Mapping[str, str] = MappingProxyType({}),
    told: Ending | None = None,
) -> JobState:
    """Return the state of a job.

    Args:
        job: the PyTorchJob as the API server gives it.
        pods: its pods; None when they were not asked for, which leaves to the operator what it says of them.
        now: the present, with time zone.
        progress: what the log of its first pod says, where it was read.
        queue_says: why its queue lets it wait, where that was asked.
        failures: UID of a pod -> why it is not scheduled or mounted, of the job -> why its pods or
            Services are refused.
        told: what the operator said of the pod that decided a failed job, which counts where no pod is left to ask.
    """
    state, progress = _state(job, pods), progress or Progress()
    asked, pods = pods, pods or ()
    if state == "Pending" and started_unseen(pods, now):
        failures = {job["metadata"].get("uid", ""): _unseen(job), **failures}
    ended = {pod["metadata"]["name"]: found for pod in pods if (found := ending(pod))}
    decisive = decisive_ending(state, ended) or (told if state == "Failed" else None)
    message: Mapping[str, Any] = decisive.message if decisive else {}
    reason = reason_of(state, job, asked, decisive, queue_says, failures) or progress.unread
    if state == "Running" and not reason and progress.ended_before:
        reason = STARTED_AGAIN + progress.ended_before
    return JobState(
        **_identity(job),
        **_placement(job, pods),
        **_times(job, state, now),
        **(_live(progress, now) if state == "Running" else {}),
        state=state,
        phase=phase_of(state, job, asked, progress, failures),
        restarts=restarts_of(message, progress, pods),
        resumed_at=progress.resumed_at,
        reason=reason and printable_lines(reason),  # it holds words of the cluster and of logs
        exit_code=decisive.exit_code if decisive else None,
        run_id=message.get("run_id") or progress.run_id,
        verdict=verdict_of(message),
        verdict_reasons=reasons_of(message, printed.in_namespace(job["metadata"]["namespace"])),
        scores=scores_of(message),
    )


def is_queued(job: Mapping[str, Any]) -> bool:
    """Whether a job waits in a queue."""
    return _state(job, None) == "Queued"


def _state(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]] | None) -> Name:
    for kind in TERMINAL:
        if condition(job, kind):
            return kind
    if job["metadata"].get("deletionTimestamp"):
        return "Deleting"
    if ((job.get("spec") or {}).get("runPolicy") or {}).get("suspend") or condition(job, "Suspended"):
        if labels.CANCELLED in (job["metadata"].get("annotations") or {}):
            return "Cancelled"
        return "Queued" if (job["metadata"].get("labels") or {}).get(labels.QUEUE) else "Suspended"
    # While one of several pods is replaced, the operator says Running and Restarting in turns: by the order in which it
    # happens to look at Master and Worker.
    if condition(job, "Restarting") or (condition(job, "Running") and is_replacing(job)):
        return "Restarting"
    if condition(job, "Running"):
        # The condition stays while a lost pod is being replaced: then nothing trains.
        return "Running" if pods is None or any(map(runs, pods)) else "Restarting"
    return "Pending"


def _unseen(job: Mapping[str, Any]) -> str:
    return (
        f"{UNSEEN}: it cannot make the job's Service (its quota is used up, or another has its name), or does not run; "
        f"`{printed.launch('doctor', job)}` tells what to do"
    )


def _identity(job: Mapping[str, Any]) -> dict[str, Any]:
    meta = job["metadata"]
    given = meta.get("labels") or {}
    named = {"model": labels.MODEL, "batch": labels.BATCH, "queue": labels.QUEUE}
    return {"name": meta["name"], "namespace": meta["namespace"], **{key: given.get(it) for key, it in named.items()}}


def _placement(job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "nodes": tuple(sorted({node for pod in pods if (node := (pod.get("spec") or {}).get("nodeName"))})),
        "pods": sum(map(runs, pods)),
        "pods_wanted": pod_count(job),
        "gpus": sum(replicas(role) * gpus_of(role.get("template") or {}) for role in roles(job)),
    }


def _times(job: Mapping[str, Any], state: Name, now: datetime) -> dict[str, Any]:
    status = job.get("status") or {}
    until = parse_time(status.get("completionTime")) or (_condition_time(status, state) if state in TERMINAL else now)
    return {
        "age_s": _seconds(parse_time(job["metadata"].get("creationTimestamp")), now),
        "took_s": _seconds(parse_time(status.get("startTime")), until),
    }


def _live(progress: Progress, now: datetime) -> dict[str, Any]:
    since = _seconds(progress.at, now)
    left = progress.eta_s
    if left is not None and since is not None:
        left = max(0.0, left - since)
    return {
        "percent": progress.percent,
        "step": progress.step,
        "total_steps": progress.total,
        "eta_s": left,
        "loss": progress.loss,
        "tokens_per_second": progress.tokens_per_second,
        "quiet_s": since,
    }


def _condition_time(status: Mapping[str, Any], state: Name) -> datetime | None:
    found = [each for each in status.get("conditions") or [] if each["type"] == state]
    return parse_time(found[-1].get("lastTransitionTime")) if found else None


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 1) if start and end else None
