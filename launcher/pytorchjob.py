"""From a configuration to the objects a cluster is sent; pure: no data, no clock, no cluster."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from launcher import labels
from launcher.pod import CONFIG_FILE, OUR_MOUNTS, OUR_PROGRAMS, pod_template
from mtft.config import Config
from mtft.errors import ConfigError, InputError, Problem
from mtft.naming import JOB_NAME, config_hash, document_text, job_name
from mtft.problems import misplaced_secrets
from mtft.settings import resolve

Manifest = dict[str, Any]

CONFIG_MAP = ("v1", "ConfigMap")
PYTORCH_JOB = ("kubeflow.org/v1", "PyTorchJob")
# A label value; Helm release names, which name batches there, are shorter.
_BATCH_NAME = r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?"


def render(
    document: Mapping[str, Any],
    model: str,
    *,
    name: str | None = None,
    batch: str | None = None,
    nonce: str | None = None,
    run: str | None = None,
    namespace: str | None = None,
) -> list[Manifest]:
    """Return the ConfigMap and the PyTorchJob that tune one model of a document.

    They depend on ``cluster`` and ``storage`` as the document sets them, the model, the names and the document's
    text alone; never on the model's card or a preset. No two parts of the result are one object.

    Args:
        document: what the user wrote, unresolved.
        model: key of the model.
        name: name of the job; None: made from batch, model and configuration.
        batch: name of the batch the job belongs to.
        nonce: makes a rerun of the same configuration another job.
        run: hash that stands for document and nonce, of a job that was made before; None: computed.
        namespace: goes over ``cluster.namespace``; where both are None the objects name none.

    Raises:
        ConfigError: with every problem of the configuration, those included that only a cluster has.
        InputError: the name of the job or the batch cannot be one.
    """
    config = resolve(document, model=model).config
    _refuse(document, config)
    run = run or config_hash(document, model, nonce=nonce)
    job = _checked_job(name or job_name(_checked_batch(batch) or "", model, run))
    own = labels.of_job(job, model, run, batch)
    place = namespace or config.cluster.namespace
    mounted = _object(CONFIG_MAP, job, place, config, own)
    sent = _object(PYTORCH_JOB, job, place, config, own | _queue_labels(config))
    return [
        mounted | {"data": {CONFIG_FILE: document_text(document)}},
        sent | {"spec": _spec(config, model, job, own)},
    ]


def _object(
    kind: tuple[str, str], name: str, namespace: str | None, config: Config, own: Mapping[str, str]
) -> Manifest:
    metadata: Manifest = {"name": name, "labels": {**config.cluster.labels, **own}}
    if namespace:
        metadata["namespace"] = namespace
    if config.cluster.annotations:
        metadata["annotations"] = dict(config.cluster.annotations)
    return {"apiVersion": kind[0], "kind": kind[1], "metadata": metadata}


def _queue_labels(config: Config) -> dict[str, str]:
    """Return Kueue's labels, which belong on the job alone: on pods they would queue each pod by itself."""
    given = {labels.QUEUE: config.cluster.queue, labels.QUEUE_PRIORITY: config.cluster.queue_priority}
    return {key: value for key, value in given.items() if value is not None}


def _spec(config: Config, model: str, job: str, own: Mapping[str, str]) -> Manifest:
    """Return the job's specification; ``suspend`` is left out, because a queue owns it."""
    cluster = config.cluster

    def replicas(count: int) -> Manifest:
        return {"replicas": count, "restartPolicy": "ExitCode", "template": pod_template(config, model, job, own)}

    pods = {"Master": replicas(1)}
    if cluster.nodes > 1:
        pods["Worker"] = replicas(cluster.nodes - 1)
    return {
        "nprocPerNode": str(cluster.processes_per_node or max(1, cluster.gpus_per_node)),
        "runPolicy": _run_policy(config),
        "pytorchReplicaSpecs": pods,
    }


def _run_policy(config: Config) -> Manifest:
    """Return what the operator does around the pods; restart budget and deadline are the supervisor's."""
    cluster = config.cluster
    policy: Manifest = {"cleanPodPolicy": "Running"}
    if cluster.ttl_minutes is not None:
        policy["ttlSecondsAfterFinished"] = 60 * cluster.ttl_minutes
    if cluster.gang is not None:
        gang = {
            "minAvailable": cluster.nodes,
            "queue": cluster.gang.queue,
            "priorityClass": cluster.gang.priority_class,
            "scheduleTimeoutSeconds": cluster.gang.timeout_seconds,
        }
        policy["schedulingPolicy"] = {key: value for key, value in gang.items() if value is not None}
    return policy


def _refuse(document: Mapping[str, Any], config: Config) -> None:
    """Refuse what trains on this machine but not in a pod, and secrets anywhere in what is mounted.

    Raises:
        ConfigError: with every problem.
    """
    mounted = {name: value for name, value in document.items() if name != "chart"}
    problems = misplaced_secrets(mounted, lambda _: None)
    if config.cluster.image is None:
        hint = "build one (docs/recipes/image.md) and add --set cluster.image=REPOSITORY:TAG"
        problems.append(Problem(path="cluster.image", message="is required in a cluster", hint=hint))
    root = config.storage.root
    if problem := _unmountable(root):
        allowed = "an absolute path, such as /mnt/mtft"
        problems.append(Problem(path="storage.root", message=problem, value=root, allowed=allowed))
    if problems:
        raise ConfigError(problems)


def _unmountable(root: str) -> str | None:
    """Say why the claim cannot be mounted there; None where it can."""
    # POSIX lets two leading slashes mean something else, so normpath keeps them; no container runtime does.
    plain = posixpath.normpath(root) == (root.rstrip("/") or "/") and not root.startswith("//")
    if not root.startswith("/") or ":" in root or not plain:
        return "cannot be mounted in a pod"
    inside = root.rstrip("/") + "/"
    for mount in (*OUR_MOUNTS, *OUR_PROGRAMS):
        if inside.startswith(mount + "/") or f"{mount}/".startswith(inside):
            return f"overlaps {mount}, which the pod needs for itself"
    return None


def _checked_job(name: str) -> str:
    if not re.fullmatch(JOB_NAME, name):
        raise InputError(
            f"{name!r} is not a job name; allowed: a to z, 0 to 9 and -, beginning with a letter, at most 50 characters"
        )
    return name


def _checked_batch(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(_BATCH_NAME, name):
        raise InputError(f"{name!r} is not a batch name; allowed: a to z, 0 to 9 and - inside, at most 53 characters")
    return name
