"""The settings of where and how a job runs in a cluster; no part of the job's name, of its card or of a preset.

What Kubernetes would refuse is refused here, by the field's own name; so are misspelt choices, some of which it takes.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mtft.cluster_names import (
    DnsLabel,
    DnsName,
    FreeKey,
    ImageName,
    LabelKey,
    LabelValue,
    NodeLabels,
    ResourceName,
    SecretKey,
    Variable,
)
from mtft.parts import Minutes, Natural, Natural32, Part, Positive, Positive32, PositiveMinutes, UpTo64, Whole
from mtft.stopping import KILL_AFTER_SECONDS, STOP_SECONDS

IMAGE_DIGEST = "MTFT_IMAGE_DIGEST"
"""Variable that tells a pod the digest of its image, where ``cluster.image`` names one."""
NAMESPACE = "MTFT_NAMESPACE"
POD_NAME = "MTFT_POD"
POD_FACTS = {
    NAMESPACE: "metadata.namespace",
    POD_NAME: "metadata.name",
    "MTFT_POD_UID": "metadata.uid",
    "MTFT_BATCH": "metadata.labels['mtft/batch']",
    "MTFT_RUN": "metadata.labels['mtft/run']",
}
"""Variables that tell a pod about itself, with the field of the pod that each is filled from."""


class SecretRef(Part):
    """One key of a Kubernetes Secret: a reference, never the value."""

    name: DnsName = Field(description="Name of the Secret in the job's namespace.")
    key: SecretKey = Field(description="Key inside the Secret.")
    optional: bool | None = Field(
        default=None,
        description="true: the pod starts without it; null: true for variables WANDB_* and MLFLOW_*, else false.",
    )


class Toleration(Part):
    """A Kubernetes toleration, in the cluster's own words."""

    key: LabelKey | None = Field(default=None, description="Taint key; null with operator Exists: every taint.")
    operator: Literal["Equal", "Exists"] = Field(default="Equal", description="How the taint's value is compared.")
    value: LabelValue | None = Field(default=None, description="Taint value, for operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; null: every effect."
    )
    tolerationSeconds: Natural | None = Field(  # noqa: N815 - the name Kubernetes gives it
        None, description="Seconds a NoExecute taint is tolerated; null: for ever."
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists takes no value: leave out value, or give operator Equal")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("operator Equal needs a key; without one give operator Exists")
        if self.tolerationSeconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds needs effect NoExecute")
        return self


class AffinityConfig(Part):
    """Which nodes are taken, where a plain node_selector does not say enough."""

    required: NodeLabels = Field(
        default_factory=dict, description="Node label -> values of which a node must have one; all labels must fit."
    )
    preferred: NodeLabels = Field(
        default_factory=dict, description="Node label -> values that are preferred; each label counts the same."
    )


class TopologyConfig(Part):
    """How close together Kueue places the pods of a job (topology-aware scheduling)."""

    required: LabelKey | None = Field(
        default=None, description="Node label of the level, such as a rack, that all pods must share; null: none."
    )
    preferred: LabelKey | None = Field(
        default=None, description="Node label of the level that all pods should share; null: none."
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.required is not None and self.preferred is not None:
            raise ValueError("required and preferred exclude each other: give one of them")
        return self


class GangConfig(Part):
    """All pods or none, by Volcano or scheduler-plugins; the training operator must be started for the same one."""

    queue: LabelValue | None = Field(default=None, description="Queue of the gang scheduler; null: its default.")
    priority_class: DnsName | None = Field(default=None, description="PriorityClass of the group; null: none.")
    timeout_seconds: Positive32 | None = Field(
        default=None, description="Seconds the group may wait to be scheduled as a whole; null: the scheduler's own."
    )


class ClusterConfig(Part):
    """Where the job runs; no part of the job's name."""

    namespace: DnsLabel | None = Field(
        default=None, description="Kubernetes namespace; null: that of the kubeconfig context."
    )
    image: ImageName | None = Field(
        default=None, description="Container image of the trainer; required in a cluster, without a built-in value."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When a node pulls the image."
    )
    image_pull_secrets: list[DnsName] = Field(
        default_factory=list, description="Names of the Secrets that hold the credentials of the image registry."
    )
    nodes: Whole = Field(default=1, ge=1, le=1024, description="Number of pods.")
    gpus_per_node: Whole = Field(default=1, ge=0, le=64, description="GPUs of each pod; 0: train on the CPU.")
    gpu_resource: ResourceName = Field(
        default="nvidia.com/gpu", description="Extended resource the GPUs are asked for by, such as a MIG profile."
    )
    gpu_memory_gib: float | None = Field(
        default=None,
        gt=0,
        description="Memory of one GPU of the pool in GiB; null: what the nodes' label nvidia.com/gpu.memory says.",
    )
    processes_per_node: UpTo64 | None = Field(
        default=None, description="Training processes in each pod; null: one per GPU, at least 1."
    )
    cpus: float = Field(default=4, ge=0.1, le=1024, description="CPUs of each pod, as request and limit.")
    memory_gib: float = Field(
        default=16, ge=0.25, le=65536, description="Main memory of each pod in GiB, as request and limit."
    )
    shared_memory_gib: float = Field(
        default=2, ge=0.0625, le=1024, description="Size of /dev/shm in GiB; what is used of it counts as main memory."
    )
    ephemeral_storage_gib: float | None = Field(
        default=None,
        ge=0.25,
        le=65536,
        description="Node disk of each pod in GiB, as request and limit; null: not asked for.",
    )
    claim: DnsName = Field(default="mtft", description="PersistentVolumeClaim mounted at storage.root.")
    queue: DnsLabel | None = Field(default=None, description="Kueue queue the job is submitted to; null: none.")
    queue_priority: DnsLabel | None = Field(
        default=None, description="Kueue WorkloadPriorityClass of the job; null: none."
    )
    topology: TopologyConfig = Field(
        default_factory=TopologyConfig, description="How close together Kueue places the pods of a job."
    )
    gang: GangConfig | None = Field(
        default=None,
        description="All pods or none, by Volcano or scheduler-plugins (set scheduler too); null: no gang; "
        "{}: with its defaults.",
    )
    scheduler: DnsName | None = Field(default=None, description="Name of the scheduler; null: the cluster's default.")
    priority_class: DnsName | None = Field(default=None, description="PriorityClass of the pods; null: none.")
    max_restarts: Natural = Field(
        default=3,
        description="Restarts allowed; preemptions count too, by a queue as well. "
        "`mtft-launch resume` and `retry` begin anew.",
    )
    deadline_minutes: PositiveMinutes | None = Field(
        default=720,
        description="Minutes the job may run, all its starts together (with the local backend: this one), before it "
        "fails; time suspended or queued does not count; null: no limit.",
    )
    longest_step_seconds: Positive = Field(
        default=90,
        json_schema_extra={"maximum": STOP_SECONDS},
        description="Seconds one optimizer step and writing a checkpoint take at most; a stopped rank is killed after "
        f"{STOP_SECONDS}, and a run that takes longer says so.",
    )
    grace_seconds: Positive = Field(
        default=180,
        json_schema_extra={"exclusiveMinimum": KILL_AFTER_SECONDS},
        description="Seconds a stopped pod has before it is killed; the supervisor itself ends its ranks after "
        f"{KILL_AFTER_SECONDS}.",
    )
    ttl_minutes: Minutes | None = Field(
        default=None,
        description="Minutes after which the cluster deletes a job that succeeded, whatever its verdict; a failed "
        "one stays until `mtft-launch delete`; null: never.",
    )
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict, description="Labels a node must have.")
    affinity: AffinityConfig = Field(
        default_factory=AffinityConfig, description="Which nodes are taken, beyond node_selector."
    )
    tolerations: list[Toleration] = Field(default_factory=list, description="Node taints the pods accept.")
    service_account: DnsName | None = Field(
        default=None, description="ServiceAccount of the pods, without a mounted token; null: the namespace's default."
    )
    run_as_user: Positive32 | None = Field(
        default=None, description="User number of the processes, with group 0; null: the image's or the cluster's."
    )
    fs_group: Natural32 | None = Field(
        default=0, description="Group number that owns the volumes; null: not set (OpenShift chooses one)."
    )
    labels: dict[FreeKey, LabelValue] = Field(
        default_factory=dict, description="Further labels of the job's objects and pods."
    )
    annotations: dict[FreeKey, str] = Field(
        default_factory=dict, description="Further annotations of the job's objects and pods."
    )
    env: dict[Variable, str] = Field(
        default_factory=dict, description="Environment variable -> value; secrets belong into cluster.secrets."
    )
    secrets: dict[Variable, SecretRef] = Field(
        default_factory=dict,
        description="Environment variable -> {name, key} of the Kubernetes Secret that holds its value.",
    )

    @field_validator("longest_step_seconds")
    @classmethod
    def _ends_before_torchrun_kills(cls, seconds: int) -> int:
        if seconds > STOP_SECONDS:
            raise ValueError(
                f"is longer than the {STOP_SECONDS} s after which torchrun kills stopped ranks: no checkpoint would be "
                "complete; lower train.batch_size or train.gradient_accumulation"
            )
        return seconds

    @field_validator("grace_seconds")
    @classmethod
    def _outlasts_the_supervisor(cls, seconds: int) -> int:
        if seconds <= KILL_AFTER_SECONDS:
            raise ValueError(
                f"is not longer than the {KILL_AFTER_SECONDS} s the supervisor waits for torchrun, which waits "
                f"{STOP_SECONDS} s for a step and its checkpoint"
            )
        return seconds

    @model_validator(mode="after")
    def _each_variable_once(self) -> Self:
        if twice := sorted(self.env.keys() & self.secrets.keys()):
            raise ValueError(f"{', '.join(twice)}: in env and in secrets; keep the one in secrets")
        return self
