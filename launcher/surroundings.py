"""What may stand beside the jobs in a namespace: the shared claim, and a network policy for each job."""

from __future__ import annotations

from typing import Any

from launcher import labels

_LONGEST_LABEL = 63  # characters; a claim's name may have 253


def claim(name: str, size: str, storage_class: str | None, namespace: str | None) -> dict[str, Any]:
    """Return the ReadWriteMany claim that all jobs share; ``size`` is a Kubernetes quantity, such as ``100Gi``."""
    spec: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    if storage_class is not None:
        spec["storageClassName"] = storage_class
    metadata = _metadata(name, namespace, labels.common(name[:_LONGEST_LABEL].rstrip("-."), "storage"))
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def network_policy(job: dict[str, Any]) -> dict[str, Any]:
    """Return the policy of one PyTorchJob: its pods reach each other, DNS and TLS; nothing else reaches them.

    All ports between the pods are open: gloo and NCCL choose theirs at random.
    """
    own = {"podSelector": {"matchLabels": {labels.OPERATOR_JOB: job["metadata"]["name"]}}}
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    metadata = dict(job["metadata"]) | {"labels": dict(job["metadata"]["labels"])}
    metadata.pop("annotations", None)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": {
            **own,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [dict(own)]}],
            # TLS is for the model hub, object stores and trackers.
            "egress": [{"to": [dict(own)]}, {"ports": dns}, {"ports": [{"protocol": "TCP", "port": 443}]}],
        },
    }


def _metadata(name: str, namespace: str | None, own: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "labels": own} | ({"namespace": namespace} if namespace else {})
