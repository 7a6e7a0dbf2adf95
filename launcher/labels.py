"""Labels, annotations and the container of what mtft puts into a cluster; the one place their names are written."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
PART_OF = "app.kubernetes.io/part-of"
VERSION = "app.kubernetes.io/version"
MANAGED_BY = "app.kubernetes.io/managed-by"
MODEL = "mtft/model"
BATCH = "mtft/batch"
RUN = "mtft/run"
CANCELLED = "mtft/cancelled"
"""Annotation that ``cancel`` leaves on a job."""

CONTAINER = "pytorch"
"""Name of the container that trains; the training operator refuses a job without one of this name."""

# Set by the training operator on every pod of a job.
OPERATOR_JOB = "training.kubeflow.org/job-name"
OPERATOR_REPLICA = "training.kubeflow.org/replica-type"
OPERATOR_INDEX = "training.kubeflow.org/replica-index"

QUEUE = "kueue.x-k8s.io/queue-name"
QUEUE_PRIORITY = "kueue.x-k8s.io/priority-class"
TOPOLOGY_REQUIRED = "kueue.x-k8s.io/podset-required-topology"
TOPOLOGY_PREFERRED = "kueue.x-k8s.io/podset-preferred-topology"
ISTIO = "sidecar.istio.io/inject"

TRAINER = "trainer"
SELECTOR = f"{PART_OF}=mtft"
"""Label selector of everything of ours; of PyTorchJobs it selects the jobs."""

# Not for a pod that is made from a job's template for another end; queues write into the template of a live job.
_OF_OTHERS = ("kueue.x-k8s.io/", "training.kubeflow.org/")
_OF_A_JOB = (NAME, INSTANCE, COMPONENT, PART_OF, VERSION, MANAGED_BY, MODEL, BATCH, RUN)


def given(labels_or_annotations: Mapping[str, str]) -> dict[str, str]:
    """Return those that a person gave (``cluster.labels``, ``cluster.annotations``), without mtft's own of a job."""
    return {
        key: value
        for key, value in labels_or_annotations.items()
        if key not in _OF_A_JOB and not key.startswith(_OF_OTHERS)
    }


def common(instance: str, component: str) -> dict[str, str]:
    """Return the labels of any object: ``instance`` is the batch or job it belongs to, ``component`` its part."""
    return {
        NAME: "mtft",
        INSTANCE: instance,
        COMPONENT: component,
        PART_OF: "mtft",
        VERSION: version("mtft"),
        MANAGED_BY: "mtft-launch",
    }


def of_job(job: str, model: str, run: str, batch: str | None) -> dict[str, str]:
    """Return the labels of a job's objects and pods; ``run`` is the configuration's hash."""
    labels = common(batch or job, TRAINER) | {MODEL: model, RUN: run}
    return labels | {BATCH: batch} if batch else labels


def selector(*, model: str | None = None, batch: str | None = None, job: str | None = None) -> str:
    """Return the label selector of our objects, narrowed to one model, batch, or the pods of one job."""
    given = {MODEL: model, BATCH: batch, OPERATOR_JOB: job}
    return ",".join([SELECTOR, *(f"{key}={value}" for key, value in given.items() if value is not None)])
