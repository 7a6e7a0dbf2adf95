"""What a job is doing, from its PyTorchJob, its pods and its last log lines.

Pure: no cluster, no clock. A job ends only when the operator says so: while it replaces a lost or evicted pod, its
conditions change between Restarting and Running.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from launcher import labels
from launcher.job_objects import condition, gpus_of, parse_time, rank_of, replicas, roles
from launcher.pod_reasons import Ending, ending, is_broken, waiting_reason
from launcher.progress import Progress
from mtft import exit_codes

Name = Literal[
    "Queued", "Suspended", "Cancelled", "Pending", "Running", "Restarting", "Succeeded", "Failed", "Deleting"
]
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
        reason: why it waits, restarts or failed, in words.
        exit_code: exit status of the pod that decided the job.
        verdict: the gate's: ``promoted``, ``better``, ``not better`` or ``regressed`` (``mtft.exit_codes``).
        scores: per direction BLEU and chrF on test, and how much they differ from the base's.
        age_s: seconds since the job was made.
        took_s: seconds from its first start to its end, or to now.
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
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    age_s: float | None = None
    took_s: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in TERMINAL

    @property
    def launcher_code(self) -> int | None:
        """Exit code of the launcher for a job that ended or was cancelled, else None."""
        if self.state in ("Failed", "Cancelled"):
            return exit_codes.FAILED
        if self.state == "Succeeded":
            return exit_codes.of_verdict(self.verdict)
        return None

    def as_dict(self) -> dict[str, Any]:
        """Return every field, for JSON and YAML."""
        return {**asdict(self), "nodes": list(self.nodes), "scores": {name: dict(v) for name, v in self.scores.items()}}


def job_state(
    job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]] | None, *, now: datetime, progress: Progress | None = None
) -> JobState:
    """Return the state of a job.

    Args:
        job: the PyTorchJob as the API server gives it.
        pods: its pods; None when they were not asked for, which leaves to the operator what it says of them.
        now: the present, with time zone.
        progress: what the log of its first pod says, where it was read.
    """
    meta = job["metadata"]
    given, status = meta.get("labels") or {}, job.get("status") or {}
    state = _state(job, pods)
    pods = pods or ()
    ended = {pod["metadata"]["name"]: found for pod in pods if (found := ending(pod))}
    decisive = _decisive(state, ended)
    message: Mapping[str, Any] = decisive.message if decisive else {}
    progress = progress or Progress()
    started = parse_time(status.get("startTime"))
    until = parse_time(status.get("completionTime")) or (_condition_time(status, state) if state in TERMINAL else now)
    return JobState(
        name=meta["name"],
        namespace=meta["namespace"],
        model=given.get(labels.MODEL),
        batch=given.get(labels.BATCH),
        state=state,
        phase=_phase(state, pods, progress),
        **(_live(progress, now) if state == "Running" else {}),
        restarts=_restarts(message, progress, pods),
        resumed_at=progress.resumed_at,
        nodes=tuple(sorted({node for pod in pods if (node := (pod.get("spec") or {}).get("nodeName"))})),
        pods=sum(1 for pod in pods if (pod.get("status") or {}).get("phase") == "Running"),
        pods_wanted=sum(replicas(role) for role in roles(job)),
        gpus=sum(replicas(role) * gpus_of(role.get("template") or {}) for role in roles(job)),
        queue=given.get(labels.QUEUE),
        reason=_reason(state, job, pods, decisive),
        exit_code=decisive.exit_code if decisive else None,
        run_id=message.get("run_id") or progress.run_id,
        verdict=_verdict(message),
        scores=_scores(message),
        age_s=_seconds(parse_time(meta.get("creationTimestamp")), now),
        took_s=_seconds(started, until),
    )


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
    if condition(job, "Restarting"):
        return "Restarting"
    if condition(job, "Running"):
        # The condition stays while a lost pod is being replaced: then nothing trains.
        runs = pods is None or any((pod.get("status") or {}).get("phase") == "Running" for pod in pods)
        return "Running" if runs else "Restarting"
    return "Pending"


def _decisive(state: Name, ended: Mapping[str, Ending]) -> Ending | None:
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


def _phase(state: Name, pods: Sequence[Mapping[str, Any]], progress: Progress) -> str:
    if state == "Running":
        waiting = [reason for pod in pods if (reason := waiting_reason(pod))]
        return progress.phase if progress.attempt or not waiting else "waiting for its other pods"
    if state == "Pending":
        if not pods:
            return "no pods yet"
        return "blocked" if any(map(is_broken, pods)) else "starting" if all(map(_placed, pods)) else "unscheduled"
    words: dict[Name, str] = {
        "Queued": "waiting in its queue",
        "Suspended": "stopped by hand",
        "Cancelled": "stopped for good",
        "Restarting": "a pod is being replaced",
        "Succeeded": "finished",
        "Failed": "failed",
        "Deleting": "being deleted",
    }
    return words[state]


def _placed(pod: Mapping[str, Any]) -> bool:
    return bool((pod.get("spec") or {}).get("nodeName"))


def _reason(
    state: Name, job: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], decisive: Ending | None
) -> str | None:
    if state == "Failed":
        said = (condition(job, "Failed") or {}).get("message")
        return decisive.reason if decisive else f"{said} (its pods are gone)" if said else "its pods are gone"
    if state == "Queued":
        return f"queue {job['metadata']['labels'][labels.QUEUE]} has not admitted it yet"
    if state in ("Suspended", "Cancelled"):
        return f"`mtft-launch resume {job['metadata']['name']}` continues it"
    if state in ("Succeeded", "Deleting"):
        return None
    if waiting := [(rank_of(pod), reason) for pod in pods if (reason := waiting_reason(pod))]:
        return min(waiting)[1]
    if state == "Restarting":
        return decisive.reason if decisive else "a pod was lost"
    if state == "Pending" and not pods:
        if not (job.get("status") or {}).get("conditions"):
            return "the training operator has not taken it up; `mtft-launch doctor` looks why"
        return "the training operator has made no pods; `mtft-launch doctor` looks why"
    return None


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


def _restarts(message: Mapping[str, Any], progress: Progress, pods: Sequence[Mapping[str, Any]]) -> int | None:
    attempt = message.get("attempt") or progress.attempt
    if isinstance(attempt, int):
        return attempt - 1
    counts = [
        int(each.get("restartCount", 0))
        for pod in pods
        for each in (pod.get("status") or {}).get("containerStatuses") or []
    ]
    return sum(counts) or None


def _verdict(message: Mapping[str, Any]) -> str | None:
    gate = (message.get("finished") or {}).get("gate") or {}
    verdict = message.get("verdict") or gate.get("verdict")
    return str(verdict) if verdict else None


def _scores(message: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    scores = (message.get("finished") or {}).get("scores") or {}
    found: dict[str, dict[str, float]] = {}
    for direction, tuned in (scores.get("tuned") or {}).items():
        base = (scores.get("base") or {}).get(direction) or {}
        found[direction] = {}
        for metric in ("bleu", "chrf"):
            if metric in tuned:
                found[direction][metric] = round(tuned[metric], 2)
            if metric in tuned and metric in base:
                found[direction][f"{metric}_delta"] = round(tuned[metric] - base[metric], 2)
    return found


def _condition_time(status: Mapping[str, Any], state: Name) -> datetime | None:
    found = [each for each in status.get("conditions") or [] if each["type"] == state]
    return parse_time(found[-1].get("lastTransitionTime")) if found else None


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 1) if start and end else None
