"""Why a pod waits or ended, in words: what the scheduler, the kubelet and the trainer say of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from launcher import labels
from launcher.job_objects import parse_time, rank_of
from launcher.printed import in_namespace
from mtft.text import printable_lines

NO_VOLUME_THERE = "are not where the volume is"
NO_ROOM_FREE = "too little free"
# What the scheduler counts -> what it means for a person; the words differ between versions of Kubernetes.
_NO_FIT = (
    (re.compile(r"(\d+) Insufficient ([^,. ]+(?:\.[^,. ]+)*)"), f"{NO_ROOM_FREE} {{1}} on {{0}} nodes"),
    (re.compile(r"(\d+) node\(s\) had untolerated taint \{([^}]*)\}"), "taint {{{1}}} of {0} nodes is not tolerated"),
    (re.compile(r"(\d+) node\(s\) had untolerated taint\(s\)"), "taints of {0} nodes are not tolerated"),
    (re.compile(r"(\d+) node\(s\) didn't match Pod's node affinity"), "{0} nodes do not have the labels asked for"),
    (re.compile(r"(\d+) node\(s\) were unschedulable"), "{0} nodes are cordoned"),
    (re.compile(r"(\d+) node\(s\) had volume node affinity conflict"), f"{{0}} nodes {NO_VOLUME_THERE}"),
    (re.compile(r"(\d+) node\(s\) didn't match PersistentVolume's node affinity"), f"{{0}} nodes {NO_VOLUME_THERE}"),
    (re.compile(r"unbound immediate PersistentVolumeClaims"), "the volume claim is not bound"),
    (re.compile(r"persistentvolumeclaim \S+ not found"), "the volume claim is missing"),
    (re.compile(r"persistentvolumeclaim \S+ is being deleted"), "the volume claim is being deleted"),
)


# Waiting reason of a container -> what it means. The kubelet's own message follows in parentheses.
_WAITING = {
    "ImagePullBackOff": "the image cannot be pulled",
    "ErrImagePull": "the image cannot be pulled",
    "ErrImageNeverPull": "the image is not on the node and cluster.image_pull_policy is Never",
    "InvalidImageName": "the image name is not valid",
    "CreateContainerConfigError": "its node cannot make the container of these settings",
    "CreateContainerError": "the container cannot be created",
    "RunContainerError": "the container cannot be started",
    "CrashLoopBackOff": "the container keeps ending; the cluster waits before the next start",
}
_BROKEN = frozenset(_WAITING)
# A CreateContainerConfigError that is about a Secret, a ConfigMap or a key in one.
_MISSING = re.compile(r"(?i)\b(?:secret|configmap)\b.*\bnot found|couldn't find key .* in (?:secret|configmap)")

# What the kubelet says of a volume it cannot mount: what is not there.
_ABSENT = re.compile(r'(configmap|secret|persistentvolumeclaim) "([^"]+)" not found')
_KINDS = {"configmap": "ConfigMap", "secret": "Secret", "persistentvolumeclaim": "claim"}
_CREATING = frozenset({"ContainerCreating", "PodInitializing"})
_NODE_FAILED = {
    "FailedMount": "its node cannot mount a volume",
    "FailedAttachVolume": "its node cannot mount a volume",
    "FailedCreatePodSandBox": "its node cannot start any container of it",  # network plugin, runtime class, pause image
}
_SIGKILL = 137
_DEFAULT_SCHEDULER = "default-scheduler"
_LOOKED_SECONDS = 30.0  # a scheduler that is there has looked at a pod by then, or said why not
_TOLD_SECONDS = 30.0  # an operator that can tell of a pod has told by then that it started

CREATION_FAILURES = ("FailedCreatePod", "FailedCreateService")
"""Reasons of the events that tell what of a job the operator could not make."""
NO_SERVICE = "the operator cannot make the job's Service"
"""Begins the reason of a job whose Service was refused: until it is there, the operator tells nothing of its pods."""
NODE_SILENT = "does not answer; the pod may run on there"
"""In the reason of a pod that the cluster no longer hears of."""
UNSEEN = "its first pod has started, but the operator does not say so"
"""Begins the reason of a job that nobody says runs or has ended, where no event tells why."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a container of the trainer ended.

    Attributes:
        exit_code: exit status; None when the kubelet does not say.
        reason: in words.
        message: the trainer's termination message; empty when it left none.
    """

    exit_code: int | None
    reason: str
    message: Mapping[str, Any]


def node_failures(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return pod UID -> why its node cannot get as far as its image, in words, from the events of a namespace."""
    found: dict[str, str] = {}
    for event in sorted(events, key=last_seen):
        uid, reason = event["involvedObject"].get("uid"), event.get("reason")
        if uid and reason in _NODE_FAILED:
            said = (event.get("message") or "").strip()
            absent = {f"{_KINDS[kind]} {name} is missing": None for kind, name in _ABSENT.findall(said)}
            found[uid] = f"{', '.join(absent) or _NODE_FAILED[reason]} ({said})"
    return found


def lacks_scheduler(pod: Mapping[str, Any], now: datetime) -> bool:
    """Whether a pod is left to a scheduler beside the cluster's own that has had time to look at it and has not."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if spec.get("nodeName") or spec.get("schedulerName", _DEFAULT_SCHEDULER) == _DEFAULT_SCHEDULER:
        return False
    told = any(each["type"] == "PodScheduled" for each in status.get("conditions") or [])
    made = parse_time(pod["metadata"].get("creationTimestamp"))
    return not told and made is not None and (now - made).total_seconds() > _LOOKED_SECONDS


def scheduler_failures(
    pods: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]], now: datetime
) -> dict[str, str]:
    """Return pod UID -> which scheduler has not looked at it; one that told an event of the pod has."""
    seen = {event["involvedObject"].get("uid") for event in events}
    unseen = [pod for pod in pods if lacks_scheduler(pod, now) and pod["metadata"].get("uid") not in seen]
    return {
        pod["metadata"]["uid"]: f"no scheduler `{pod['spec']['schedulerName']}` has looked at the pod; "
        "install it, or cluster.scheduler: null"
        for pod in unseen
    }


def creation_failures(events: Iterable[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return job UID -> when the API server refused to make its pods or Services last, and why, in words."""
    found = {}
    for event in sorted(events, key=last_seen):
        kind, uid = event.get("reason"), event["involvedObject"].get("uid")
        if uid and kind in CREATION_FAILURES:
            said = (event.get("message") or "").strip().removeprefix("Error creating: ")
            words = f"the cluster refuses its pods: {said}" if kind == "FailedCreatePod" else _no_service(said)
            found[uid] = last_seen(event), words
    return found


def started_unseen(pods: Iterable[Mapping[str, Any]], now: datetime) -> bool:
    """Whether the first pod's trainer started so long ago that an operator that can tell would have told."""
    spans = [span for pod in pods if rank_of(pod) == 0 and (span := ran_from_to(pod, now))]
    return any((now - started).total_seconds() > _TOLD_SECONDS for started, _ in spans)


def is_lost(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is to go because its node does not answer: it stays, as Running, until the node comes back."""
    status = pod.get("status") or {}
    if not pod["metadata"].get("deletionTimestamp"):
        return False
    by_taint = any(
        each["type"] == "DisruptionTarget" and each.get("reason") == "DeletionByTaintManager"
        for each in status.get("conditions") or []
    )
    return by_taint or status.get("reason") == "NodeLost"


def is_silent(pod: Mapping[str, Any]) -> bool:
    """Whether the cluster no longer hears from a running pod's node: it marks its pods so, while the kubelet cannot."""
    conditions = _conditions(pod)
    unready = conditions.get("Ready") == "False" and conditions.get("ContainersReady") == "True"
    gated = bool((pod.get("spec") or {}).get("readinessGates"))  # others may have said so then
    return (pod.get("status") or {}).get("phase") == "Running" and unready and not gated


def answers(pod: Mapping[str, Any]) -> bool:
    """Whether the kubelet of a running pod's node says that the pod is well."""
    return (pod.get("status") or {}).get("phase") == "Running" and _conditions(pod).get("Ready") == "True"


def runs(pod: Mapping[str, Any]) -> bool:
    """Whether a pod runs and is not to go with its node."""
    return (pod.get("status") or {}).get("phase") == "Running" and not is_lost(pod)


def is_mounting(pod: Mapping[str, Any]) -> bool:
    """Whether a pod's node makes its containers and has not told yet that volumes and network are ready."""
    if _conditions(pod).get("PodReadyToStartContainers") == "True":  # older clusters do not tell
        return False
    states = _container_states(pod)
    if any(state.keys() & {"running", "terminated"} for state in states):
        return False
    return any((state.get("waiting") or {}).get("reason") in _CREATING for state in states)


def waiting_reason(pod: Mapping[str, Any], failures: Mapping[str, str] = MappingProxyType({})) -> str | None:
    """Say why a pod that should run does not, or None when it runs or has ended.

    Args:
        pod: as the API server gives it.
        failures: those of ``node_failures`` and ``scheduler_failures``, where events were asked for.
    """
    status = pod.get("status") or {}
    if status.get("phase") not in (None, "Pending", "Running"):
        return None
    if is_lost(pod):
        name, place = pod["metadata"]["name"], in_namespace(pod["metadata"].get("namespace"))
        return (
            f"pod {name} is to go, as its node {(pod.get('spec') or {}).get('nodeName')} does not answer or is being "
            f"cleared; if that node is off for good: `kubectl delete pod {name} --force{place}`"
        )
    if is_silent(pod):
        return (
            f"its node {(pod.get('spec') or {}).get('nodeName')} {NODE_SILENT}; if the node stays "
            "away the pod is marked to go, after five minutes as a rule"
        )
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            if condition.get("reason") == "SchedulingGated":
                return "held back until its queue admits it"
            return unschedulable(condition.get("message", ""))
    if is_mounting(pod) and (failure := failures.get(pod["metadata"].get("uid", ""))):
        return failure
    for each in status.get("initContainerStatuses") or []:
        if found := _container_reason(each):
            return f"init container {each['name']}: {found}"
        if "running" in (each.get("state") or {}):
            waits = "for the master pod" if each["name"] == "init-pytorch" else f"for init container {each['name']}"
            return f"waiting {waits}"
    for each in status.get("containerStatuses") or []:
        if found := _container_reason(each):
            return found
    if status.get("phase") == "Running":
        return None
    if not (pod.get("spec") or {}).get("nodeName"):
        return failures.get(pod["metadata"].get("uid", ""), "waiting for a node")
    return "its node is pulling the image or mounting the volume"


def is_broken(pod: Mapping[str, Any], failures: Mapping[str, str] = MappingProxyType({})) -> bool:
    """Whether a person has to do something before the pod can start; ``failures`` as for ``waiting_reason``."""
    failure = failures.get(pod["metadata"].get("uid", ""), "")
    if failure and (not (pod.get("spec") or {}).get("nodeName") or (is_mounting(pod) and _ABSENT.search(failure))):
        return True
    return any((state.get("waiting") or {}).get("reason") in _BROKEN for state in _container_states(pod))


def _conditions(pod: Mapping[str, Any]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in (pod.get("status") or {}).get("conditions") or []}


def _container_states(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the states of a pod's containers, those of its init containers first."""
    status = pod.get("status") or {}
    each = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return [it.get("state") or {} for it in each]


def last_seen(event: Mapping[str, Any]) -> str:
    """Return when an event was seen last, as a text that sorts."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((time for time in times if time), "") or event["metadata"].get("creationTimestamp") or ""


def unschedulable(message: str) -> str:
    """Say the scheduler's verdict in words; its own text follows."""
    parts = [words.format(*found.groups()) for pattern, words in _NO_FIT for found in pattern.finditer(message)]
    said = message.split(" preemption:")[0].split(" no new claims to deallocate")[0].strip()
    return f"no node fits: {'; '.join(parts)} ({said})" if parts else f"no node fits ({said})"


def ending(pod: Mapping[str, Any]) -> Ending | None:
    """Return how the pod's trainer ended, or None while it has not."""
    status = pod.get("status") or {}
    for each in status.get("containerStatuses") or []:
        if each["name"] == labels.CONTAINER and (terminated := (each.get("state") or {}).get("terminated")):
            return ended_with(terminated, status)
    if status.get("phase") == "Failed":
        return Ending(exit_code=None, reason=_pod_reason(status) or "the pod failed and nobody says why", message={})
    return None


def ran_from_to(pod: Mapping[str, Any], now: datetime) -> tuple[datetime, datetime] | None:
    """Return when the pod's trainer started and ended, or the present while it runs; None where it did not start."""
    for each in (pod.get("status") or {}).get("containerStatuses") or []:
        if each["name"] == labels.CONTAINER:
            state = each.get("state") or {}
            ended = state.get("terminated") or {}
            if start := parse_time((ended or state.get("running") or {}).get("startedAt")):
                return start, parse_time(ended.get("finishedAt")) or now
    return None


def ended_with(terminated: Mapping[str, Any], status: Mapping[str, Any] = MappingProxyType({})) -> Ending:
    """Return how a container ended, from its terminated state and, where it is known, the status of its pod."""
    text, code = terminated.get("message") or "", terminated["exitCode"]
    message = _parsed(text)
    if outside := _pod_reason(status):
        reason = outside
    elif terminated.get("reason") == "OOMKilled":
        reason = "out of host memory: the pod used more than its limit; raise cluster.memory_gib"
    elif message.get("reason"):
        reason = str(message["reason"])
    elif terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        reason = f"the container could not be started: {text}"
    elif last := text.strip().rpartition("\n")[2]:
        reason = f"exit {code}: {last}"  # FallbackToLogsOnError: the end of the log
    else:
        reason = f"exit {code}" + (", killed" if code == _SIGKILL else "")
    return Ending(exit_code=code, reason=printable_lines(reason), message=message)


def _no_service(said: str) -> str:
    what = f"{NO_SERVICE}, so nobody is told that the job runs or has ended"
    if "exceeded quota" in said:
        return (
            f"{what}: the quota of Services is used up; raise it, or delete finished jobs, which keep theirs ({said})"
        )
    if "already exists" in said:
        return f"{what}: another one has its name; remove that ({said})"
    return f"{what} ({said})"


def _pod_reason(status: Mapping[str, Any]) -> str | None:
    """Say what was done to the pod from outside."""
    name, message = status.get("reason"), status.get("message", "")
    if not name:
        return None
    meaning = {
        "Evicted": "evicted from its node",
        "Preempted": "preempted by a pod of higher priority",
        "NodeLost": "its node was lost",
        "Shutdown": "its node was shut down",
        "Terminated": "its node was shut down",
        "DeadlineExceeded": "the pod ran longer than its deadline",
        "UnexpectedAdmissionError": "refused by its node",
        "OutOfcpu": "refused by its node",
        "OutOfmemory": "refused by its node",
    }.get(name, str(name))
    return f"{meaning}: {message}" if message else meaning


def _container_reason(status: Mapping[str, Any]) -> str | None:
    waiting = (status.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") not in _BROKEN:
        return None
    message = waiting.get("message", "")
    if waiting["reason"] == "CreateContainerConfigError" and _MISSING.search(message):
        return f"a Secret or ConfigMap the container needs is missing ({message})"
    return _WAITING[waiting["reason"]] + (f" ({message})" if message else "")


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        message = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return message if isinstance(message, dict) and "exit_code" in message else {}
