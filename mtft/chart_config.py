"""The settings of what only the Helm chart does, below its key ``chart``; the launcher and the trainer ignore them.

Everything is off but what every release needs. A part that is on makes objects named after the release.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mtft.cluster_names import Cron, DnsName, Size, TimeZone
from mtft.parts import Part, PositiveMinutes, Whole


class ClaimConfig(Part):
    """The PersistentVolumeClaim that cluster.claim names."""

    create: bool = Field(
        default=False,
        description="Make the claim; Helm keeps it, with all data and adapters, on uninstall. false: it is there.",
    )
    size: Size = Field(default="100Gi", description="Room that is asked for, as a Kubernetes quantity.")
    storage_class: DnsName | None = Field(default=None, description="StorageClass; null: the cluster's default.")
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = Field(
        default="ReadWriteMany",
        description="How the claim is mounted, made here or not; ReadWriteOnce: by pods of one node, so only one, and "
        "a launch of the schedule may have to wait until the job has ended, and fail at its deadline.",
    )


class SmallPod(Part):
    """What a pod beside the trainers may use."""

    cpus: float = Field(default=0.5, ge=0.1, le=64, description="CPUs of the pod, as request and limit.")
    memory_gib: float = Field(
        default=1, ge=0.25, le=1024, description="Main memory of the pod in GiB, as request and limit."
    )


class ScheduleConfig(SmallPod):
    """`mtft-launch batch` in the cluster at set times: new data make new jobs, unchanged data none."""

    cron: Cron | None = Field(default=None, description="When to launch; null: no schedule.")
    time_zone: TimeZone = Field(default="Etc/UTC", description="Time zone of cron.")
    suspend: bool = Field(default=False, description="Launch nothing for the time being.")
    wait: bool = Field(
        default=False,
        description="Stay until all jobs have ended and fail when one has failed; a model that was trained but is not "
        "better counts as success.",
    )
    deadline_minutes: PositiveMinutes | None = Field(
        default=None,
        description="Minutes after which a launch is ended; its jobs go on; null: 60 without wait, none with it.",
    )
    keep_succeeded: Whole = Field(default=3, ge=0, le=1000, description="Launches that succeeded whose log is kept.")
    keep_failed: Whole = Field(default=3, ge=0, le=1000, description="Launches that failed whose log is kept.")
    service_account: DnsName | None = Field(
        default=None, description="ServiceAccount of the launching pod; null: one is made for it."
    )


class PrefetchConfig(SmallPod):
    """Base checkpoints fetched from the hub into the shared cache before the jobs are made, once for all of them."""

    enabled: bool = Field(
        default=False, description="Fetch before each install and upgrade; raise Helm's --timeout accordingly."
    )
    deadline_minutes: PositiveMinutes = Field(default=60, description="Minutes after which fetching has failed.")


class SelfTestConfig(SmallPod):
    """What `helm test` looks at."""

    memory_gib: float = Field(
        default=4, ge=0.25, le=1024, description="Main memory of the pod in GiB, as request and limit."
    )
    gpu: bool = Field(default=False, description="Ask for a GPU and fail where the trainer does not see it.")


class ChartConfig(Part):
    """What only the Helm chart does."""

    jobs: bool | None = Field(
        default=None,
        description="Make the jobs at install and upgrade; null: unless there is a schedule, which makes its own.",
    )
    claim: ClaimConfig = Field(
        default_factory=ClaimConfig, description="The PersistentVolumeClaim that cluster.claim names."
    )
    service_account: bool = Field(
        default=False,
        description="Make the ServiceAccounts that cluster.service_account names for the trainers, without any right. "
        "Helm removes them on uninstall, whoever uses them besides: let a release that stays make shared ones.",
    )
    rbac: bool = Field(
        default=True,
        description="Make and bind the Role of the schedule's launcher; false: somebody else does.",
    )
    network_policy: bool = Field(
        default=False,
        description="Make a NetworkPolicy for the pods of each job: they reach each other, DNS and port 443; nothing "
        "else reaches them. Pods beside the trainers reach DNS, port 443 and, but for the prefetch, the API server.",
    )
    schedule: ScheduleConfig = Field(
        default_factory=ScheduleConfig, description="`mtft-launch batch` in the cluster at set times."
    )
    prefetch: PrefetchConfig = Field(
        default_factory=PrefetchConfig, description="Base checkpoints fetched from the hub before the jobs are made."
    )
    test: SelfTestConfig = Field(default_factory=SelfTestConfig, description="What `helm test` looks at.")
