"""The pod of a job: one template for the master and the workers.

It meets the Pod Security Standard "restricted", runs as any user in group 0 and writes nowhere but to the claim, memory
and emptyDirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher import labels
from mtft.cluster_config import IMAGE_DIGEST, POD_FACTS, AffinityConfig, ClusterConfig, SecretRef
from mtft.cluster_names import NodeLabels
from mtft.config import Config
from mtft.naming import number_text

CONFIG_FILE = "config.json"
CONFIG_FOLDER = "/etc/mtft"
HOME = "/home/mtft"
# Where something of ours is mounted; storage.root must lie elsewhere.
OUR_MOUNTS = (CONFIG_FOLDER, "/tmp", HOME, "/dev/shm")
# Where the image's programs and libraries are, and what the kernel tells: a volume there would hide them.
OUR_PROGRAMS = ("/opt/mtft", "/usr", "/bin", "/lib", "/lib64", "/proc", "/sys")

# Trackers do not decide whether a model is trained.
_OPTIONAL_SECRETS = ("WANDB_", "MLFLOW_")


def pod_template(config: Config, model: str, job: str, own: Mapping[str, str]) -> dict[str, Any]:
    """Return the pod template of a job; ``own`` are the labels that all its objects carry."""
    cluster = config.cluster
    spec = {
        "automountServiceAccountToken": False,
        # Service links would fill the environment with addresses of whatever else runs in the namespace.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": cluster.grace_seconds,
        "securityContext": _pod_security(cluster),
        "containers": [_container(config, model, job)],
        "volumes": _volumes(cluster, job),
        **_placement(cluster),
    }
    annotations = {
        labels.ISTIO: "false",
        labels.TOPOLOGY_REQUIRED: cluster.topology.required,
        labels.TOPOLOGY_PREFERRED: cluster.topology.preferred,
    }
    metadata = {
        "labels": {labels.ISTIO: "false", **cluster.labels, **own},
        "annotations": {**_given(annotations), **cluster.annotations},
    }
    return {"metadata": metadata, "spec": spec}


def _container(config: Config, model: str, job: str) -> dict[str, Any]:
    cluster = config.cluster
    return {
        "name": labels.CONTAINER,
        "image": cluster.image,
        "imagePullPolicy": cluster.image_pull_policy,
        "command": [
            *("python", "-m", "trainer", "--config", f"{CONFIG_FOLDER}/{CONFIG_FILE}"),
            *("--model", model, "--job", job),
        ],
        "env": _environment(config),
        "resources": {"requests": _resources(cluster), "limits": _resources(cluster)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "storage", "mountPath": config.storage.root},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "home", "mountPath": HOME},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }


def _environment(config: Config) -> list[dict[str, Any]]:
    """Return every variable once, sorted by name: what the pod is told, the user's over it, references to Secrets."""
    _, _, digest = str(config.cluster.image).partition("@")
    plain = {
        "HOME": HOME,
        "USER": "mtft",
        "TMPDIR": "/tmp",
        "XDG_CACHE_HOME": f"{HOME}/.cache",
        "MPLCONFIGDIR": f"{HOME}/.cache/matplotlib",
        "TRITON_CACHE_DIR": f"{HOME}/.cache/triton",
        "TORCHINDUCTOR_CACHE_DIR": f"{HOME}/.cache/inductor",
        "HF_HOME": f"{config.storage.root.rstrip('/')}/cache/hub",
        **({IMAGE_DIGEST: digest} if digest else {}),
        **config.cluster.env,
    }
    entries: dict[str, dict[str, Any]] = {
        name: {"valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in POD_FACTS.items()
    }
    entries |= {name: {"value": value} for name, value in plain.items()}
    entries |= {name: {"valueFrom": _secret(name, ref)} for name, ref in config.cluster.secrets.items()}
    return [{"name": name, **entries[name]} for name in sorted(entries)]


def _secret(variable: str, ref: SecretRef) -> dict[str, Any]:
    optional = variable.startswith(_OPTIONAL_SECRETS) if ref.optional is None else ref.optional
    return {"secretKeyRef": {"name": ref.name, "key": ref.key, "optional": optional}}


def _resources(cluster: ClusterConfig) -> dict[str, str]:
    """Return what is asked for; requests equal limits, so that no pod lives on memory that is promised to another."""
    asked = {"cpu": number_text(cluster.cpus), "memory": _gib(cluster.memory_gib)}
    if cluster.ephemeral_storage_gib is not None:
        asked["ephemeral-storage"] = _gib(cluster.ephemeral_storage_gib)
    if cluster.gpus_per_node:
        asked[cluster.gpu_resource] = str(cluster.gpus_per_node)
    return asked


def _pod_security(cluster: ClusterConfig) -> dict[str, Any]:
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if cluster.run_as_user is not None:
        security |= {"runAsUser": cluster.run_as_user, "runAsGroup": 0}
    if cluster.fs_group is not None:
        security |= {"fsGroup": cluster.fs_group, "fsGroupChangePolicy": "OnRootMismatch"}
    return security


def _volumes(cluster: ClusterConfig, job: str) -> list[dict[str, Any]]:
    return [
        {"name": "config", "configMap": {"name": job}},
        {"name": "storage", "persistentVolumeClaim": {"claimName": cluster.claim}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "home", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _gib(cluster.shared_memory_gib)}},
    ]


def _placement(cluster: ClusterConfig) -> dict[str, Any]:
    tolerations = [_given(toleration.model_dump()) for toleration in cluster.tolerations]
    placement = {
        "schedulerName": cluster.scheduler,
        "priorityClassName": cluster.priority_class,
        "serviceAccountName": cluster.service_account,
        "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets] or None,
        "nodeSelector": dict(cluster.node_selector) or None,
        "affinity": _affinity(cluster.affinity),
        "tolerations": tolerations or None,
    }
    return _given(placement)


def _affinity(affinity: AffinityConfig) -> dict[str, Any] | None:
    nodes: dict[str, Any] = {}
    if affinity.required:
        term = {"matchExpressions": _expressions(affinity.required)}
        nodes["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
    if affinity.preferred:
        nodes["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 1, "preference": {"matchExpressions": [expression]}}
            for expression in _expressions(affinity.preferred)
        ]
    return {"nodeAffinity": nodes} if nodes else None


def _expressions(node_labels: NodeLabels) -> list[dict[str, Any]]:
    return [{"key": key, "operator": "In", "values": list(node_labels[key])} for key in sorted(node_labels)]


def _gib(amount: float) -> str:
    return f"{number_text(amount)}Gi"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
