"""A pod that lives for one transfer: the volume mounted as in a job, and a program that waits."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import ClusterError, Conflict, Forbidden, NotFound, no_namespace
from launcher.doctor_namespace import check_claim
from launcher.labels import CONTAINER
from launcher.pod_reasons import ending, is_broken, node_failures, waiting_reason
from launcher.resources import CLAIMS, PODS
from mtft.errors import InputError
from mtft.text import printable_lines

if TYPE_CHECKING:
    from launcher.cluster import Cluster

_LIFETIME = 6 * 3600  # seconds; the cluster ends the pod, whatever it does
_IDLE = 30 * 60  # seconds without a command: the launcher was killed, or waits for another fetch
_READY_SECONDS = 300.0
_LOOK_SECONDS = 10.0  # between two looks at the pod's events
_KEPT = (
    *("securityContext", "imagePullSecrets", "nodeSelector", "affinity", "tolerations"),
    *("automountServiceAccountToken", "enableServiceLinks", "serviceAccountName", "priorityClassName"),
)
# Commands are processes beside it.
_WAIT = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: exit())
last = time.monotonic()
while time.monotonic() - last < {idle}:
    time.sleep(1)
    if sum(name.isdecimal() for name in os.listdir("/proc")) > 1:
        last = time.monotonic()
"""


def transfer_pod(template: Mapping[str, Any], *, read_only: bool) -> dict[str, Any]:
    """Return the pod, made from the pod template of a job: same image, user, volume, nodes and given labels; no GPU.

    Args:
        template: the job's.
        read_only: mount the volume so that nothing can be changed.
    """
    spec, meta = template["spec"], template.get("metadata") or {}
    trainer, volume, mount = _storage(spec)
    name = f"mtft-transfer-{secrets.token_hex(4)}"
    resources = {"cpu": "500m", "memory": "256Mi"}
    container = {
        "name": CONTAINER,
        "image": trainer["image"],
        "imagePullPolicy": trainer.get("imagePullPolicy", "IfNotPresent"),
        "command": ["python3", "-c", _WAIT.format(idle=_IDLE)],
        "securityContext": trainer["securityContext"],
        "resources": {"requests": resources, "limits": resources},
        "volumeMounts": [{**mount, "readOnly": read_only}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                **labels.given(meta.get("labels") or {}),
                **labels.common(name, "transfer"),
                labels.ISTIO: "false",
            },
            "annotations": {**labels.given(meta.get("annotations") or {}), labels.ISTIO: "false"},
        },
        "spec": {
            **{key: spec[key] for key in _KEPT if key in spec},
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _LIFETIME,
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [volume],
        },
    }


def root_of(spec: Mapping[str, Any]) -> str:
    """Return where a job's pods see the shared volume: ``storage.root``."""
    return str(_storage(spec)[2]["mountPath"])


def _storage(spec: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """Return the trainer's container, the volume of the claim, and where the container mounts it.

    Raises:
        InputError: the specification is no job of mtft's.
    """
    for trainer in (each for each in spec.get("containers") or [] if each["name"] == CONTAINER):
        for volume in (each for each in spec.get("volumes") or [] if "persistentVolumeClaim" in each):
            for mount in (each for each in trainer.get("volumeMounts") or [] if each["name"] == volume["name"]):
                return trainer, volume, mount
    raise InputError("the job mounts no claim, so it is not one of mtft's; name another, or its model")


@contextmanager
def running(cluster: Cluster, pod: Mapping[str, Any], seconds: float = _READY_SECONDS) -> Iterator[str]:
    """Start a pod, give its name when it runs, and delete it whatever happens.

    Args:
        cluster: where.
        pod: its manifest.
        seconds: how long it may take beside pulling its image.

    Raises:
        ClusterError: it cannot be made or does not start.
    """
    name = pod["metadata"]["name"]
    _refuse_missing_claims(cluster, pod)
    made = None
    try:
        made = _made(cluster, pod)
        _await(cluster, made, seconds)
        yield name
    finally:
        try:
            cluster.delete(PODS, name, grace_seconds=0)
        except ClusterError as error:  # neither takes from what was done nor hides what went wrong
            left = f"pod {name} is left; once it runs it ends by itself, {_IDLE // 60} minutes after its last command"
            if made is not None:
                print(f"note: {left}: {error}", file=sys.stderr)


def _made(cluster: Cluster, pod: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return cluster.create(dict(pod))
    except Conflict:  # its name is random, so it is ours: the answer of an earlier try was lost
        return cluster.get(PODS, pod["metadata"]["name"])


def _refuse_missing_claims(cluster: Cluster, pod: Mapping[str, Any]) -> None:
    """Refuse a pod that would wait in vain for its claim.

    Raises:
        ClusterError: there is no such namespace or claim, or the claim lost its volume.
    """
    for name in claims_of(pod.get("spec") or {}):
        with suppress(Forbidden):  # then the scheduler tells, later
            claim = cluster.find(CLAIMS, name)
            if claim is None and cluster.lacks_namespace():
                raise NotFound(no_namespace(cluster.namespace))
            found = check_claim(name, claim, 1, cluster.namespace)
            if found.verdict == "fail":
                raise ClusterError(f"{found.message} in namespace {cluster.namespace}; {found.fix}")


def claims_of(spec: Mapping[str, Any]) -> list[str]:
    """Return the names of the claims that pods of a specification mount."""
    volumes = spec.get("volumes") or []
    return [volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume]


def _await(cluster: Cluster, pod: Mapping[str, Any], seconds: float) -> None:
    name, told = pod["metadata"]["name"], ""
    until = time.monotonic() + seconds
    reason: str | None = "nobody has taken it up"
    while time.monotonic() < until:
        reason = _look(cluster, name, min(until, time.monotonic() + _LOOK_SECONDS))
        if reason is None:
            return
        events = cluster.events(name)
        messages = {each.get("reason"): each.get("message") or "" for each in events}
        if "Pulling" in messages and "Pulled" not in messages:
            until = time.monotonic() + seconds  # the first pull of a large image takes what it takes
            reason = messages["Pulling"]
        else:
            reason = node_failures(events).get(pod["metadata"]["uid"], reason)
        if reason != told:
            told = reason
            print(f"-- waiting for pod {name}: {printable_lines(reason)}", file=sys.stderr, flush=True)
    raise ClusterError(f"pod {name} did not start within {seconds:.0f} s: {reason}")


def _look(cluster: Cluster, name: str, until: float) -> str | None:
    """Watch a pod for a while; say why it does not run yet, None as soon as it does.

    Raises:
        ClusterError: it never will.
    """
    reason = "nobody has taken it up"
    for change, now in cluster.watch(PODS, fields=f"metadata.name={name}", until=until):
        if change == "DELETED":
            raise ClusterError(f"pod {name} was deleted by somebody else")
        if ended := ending(now):
            raise ClusterError(f"pod {name} ended at once: {ended.reason}")
        if (now.get("status") or {}).get("phase") == "Running":
            return None
        reason = waiting_reason(now) or reason
        if is_broken(now):
            raise ClusterError(f"pod {name} cannot start: {reason}")
    return reason
