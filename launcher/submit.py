"""Sending a job: its ConfigMap, then its PyTorchJob, and nothing half when one is refused.

The ConfigMap goes first, because a pod that starts without it hangs. It is then owned by the job, so it goes with it.
A job is known by its name, which holds the hash of its configuration: sending it twice is sending it once. Whoever made
the job has the last word on the ConfigMap's text: another launcher may have wanted the name at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from launcher import labels, printed
from launcher.cluster_errors import ClusterError, Conflict, NotFound
from launcher.resources import CONFIG_MAPS, JOBS
from mtft.errors import InputError
from mtft.runs import JOB_UID_FILE

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Manifest = dict[str, Any]
Outcome = Literal["created", "already there"]
_ROUNDS = 4  # of making a ConfigMap that others make or delete at the same time
_ANOTHER_NAME = "choose another name with --job, or --name for a batch"


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What came of sending a job.

    Attributes:
        job: the PyTorchJob as the cluster has it.
        outcome: whether it was made now.
        notes: what a person should know besides.
    """

    job: Manifest
    outcome: Outcome
    notes: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Return the job's name."""
        return str(self.job["metadata"]["name"])


def parts(objects: Sequence[Manifest]) -> tuple[Manifest, Manifest]:
    """Return the ConfigMap and the PyTorchJob of one job's objects."""
    by_kind = {each["kind"]: each for each in objects}
    return by_kind[CONFIG_MAPS.kind], by_kind[JOBS.kind]


def existing(cluster: Cluster, objects: Sequence[Manifest]) -> Submission | None:
    """Return the job that has the name already, None where there is none.

    Raises:
        InputError: the name belongs to a job of another configuration, or to one that is not ours.
        Conflict: it is being deleted.
        ClusterError: the cluster refuses or cannot be reached.
    """
    _, wanted = parts(objects)
    meta = wanted["metadata"]
    job = cluster.find(JOBS, meta["name"], namespace=meta["namespace"])
    return None if job is None else _already(cluster, objects, job)


def dry_run(cluster: Cluster, objects: Sequence[Manifest]) -> None:
    """Let the server check objects as if they were sent: schema, rights, quota, webhooks.

    Raises:
        InputError: a ConfigMap that is not ours has the job's name.
        ClusterError: it would refuse one of them.
    """
    for each in objects:
        try:
            cluster.create(each, dry_run=True)
        except Conflict:  # it is there already: of a job `existing` tells
            if each["kind"] == CONFIG_MAPS.kind:
                _held(cluster, each)


def send(cluster: Cluster, objects: Sequence[Manifest]) -> Submission:
    """Create the objects of one job, or say what is there under its name.

    Raises:
        InputError: the name belongs to something else.
        ClusterError: the cluster refuses; then nothing this call made is left.
    """
    config, wanted = parts(objects)
    made = _config_map(cluster, config)
    try:
        job = cluster.create(wanted)
    except Conflict:
        found = existing(cluster, objects)  # somebody sent it in this moment
        if found is None:
            _undo(cluster, wanted, made)
            raise
        return found
    except BaseException:
        _undo(cluster, wanted, made)
        raise
    return Submission(job=job, outcome="created", notes=own(cluster, job, config))


def submit(cluster: Cluster, objects: Sequence[Manifest]) -> Submission:
    """Send one job unless it is there, after the server has checked it.

    Raises:
        InputError: the name belongs to something else.
        ClusterError: the cluster refuses; then nothing is left of it.
    """
    found = existing(cluster, objects)
    if found is not None:
        return found
    dry_run(cluster, objects)
    return send(cluster, objects)


def own(cluster: Cluster, job: Manifest, config: Manifest | None = None) -> list[str]:
    """Make a job the owner of its ConfigMap and write its UID there; return a note where the cluster refuses that.

    Args:
        cluster: where they are.
        job: the job.
        config: what the ConfigMap holds from now on, from whoever made the job; None: what it holds.
    """
    meta = job["metadata"]
    owner = {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "name": meta["name"], "uid": meta["uid"]}
    told = {JOB_UID_FILE: meta["uid"]}
    # Helm, which makes the job anew, takes no notice of what the garbage collector is about to take.
    owners = [] if meta["labels"].get(labels.MANAGED_BY) == "Helm" else [owner]
    changes: Manifest = {"metadata": {"ownerReferences": owners}, "data": told}
    if config is not None:
        changes["metadata"]["labels"] = config["metadata"]["labels"]
        changes["data"] = config["data"] | told
    try:
        try:
            cluster.patch(CONFIG_MAPS, meta["name"], changes, namespace=meta["namespace"])
        except NotFound:
            if config is None:
                raise
            # A launcher that was refused the name took its own one away.
            metadata = {**config["metadata"], "ownerReferences": owners}
            cluster.create({**config, "metadata": metadata, "data": config["data"] | told})
        return []
    except ClusterError as error:
        return [f"ConfigMap {meta['name']} will stay when the job is deleted by anything but mtft-launch: {error}"]


def is_ours(thing: Mapping[str, Any]) -> bool:
    """Return whether an object carries mtft's label."""
    return (thing["metadata"].get("labels") or {}).get(labels.PART_OF) == "mtft"


def _already(cluster: Cluster, objects: Sequence[Manifest], job: Manifest) -> Submission:
    config, wanted = parts(objects)
    meta = wanted["metadata"]
    where = f"PyTorchJob {meta['name']} in namespace {meta['namespace']}"
    if not is_ours(job):
        raise InputError(f"{where} is not one of mtft's; {_ANOTHER_NAME}")
    if job["metadata"].get("deletionTimestamp"):
        raise Conflict(f"{where} is being deleted; send it again when it is gone")
    runs = [(each["metadata"].get("labels") or {}).get(labels.RUN) for each in (job, wanted)]
    if runs[0] != runs[1]:
        raise InputError(
            f"{where} has another configuration or other data (run {runs[0]}, asked for {runs[1]}); "
            f"choose another --job name, or delete it first: {printed.launch('delete', job)}"
        )
    held = cluster.find(CONFIG_MAPS, meta["name"], namespace=meta["namespace"])
    notes: list[str] = []
    if held is None:
        # Someone removed it; the pods of the job cannot start again without it.
        _config_map(cluster, config)
        notes.append(f"ConfigMap {meta['name']} was missing and has been made again")
    if held is None or not held["metadata"].get("ownerReferences"):
        notes += own(cluster, job)
    return Submission(job=job, outcome="already there", notes=notes)


def _config_map(cluster: Cluster, wanted: Manifest) -> Manifest | None:
    """Create the ConfigMap, or adopt one that was left without a job; return it where this call made it.

    Raises:
        InputError: the name belongs to a ConfigMap that is not ours.
        Conflict: others change it as fast as this call looks at it.
    """
    for attempt in range(_ROUNDS):
        try:
            return cluster.create(wanted)
        except Conflict:
            if attempt == _ROUNDS - 1:
                raise
        try:
            if _adopted(cluster, wanted):
                return None
        except Conflict:
            continue  # changed while it was looked at
    raise AssertionError("the last round returns or raises")


def _held(cluster: Cluster, wanted: Manifest) -> Manifest | None:
    """Return the ConfigMap that has the name.

    Raises:
        InputError: it is not ours.
    """
    meta = wanted["metadata"]
    held = cluster.find(CONFIG_MAPS, meta["name"], namespace=meta["namespace"])
    if held is not None and not is_ours(held):
        raise InputError(
            f"ConfigMap {meta['name']} in namespace {meta['namespace']} is not one of mtft's; {_ANOTHER_NAME}"
        )
    return held


def _adopted(cluster: Cluster, wanted: Manifest) -> bool:
    """Take over the ConfigMap that has the name; False where it has gone, or had to go, and is to be made."""
    meta = wanted["metadata"]
    name, namespace = meta["name"], meta["namespace"]
    held = _held(cluster, wanted)
    if held is None:
        return False
    if owners := held["metadata"].get("ownerReferences"):
        job = cluster.find(JOBS, name, namespace=namespace)
        if job is not None and job["metadata"]["uid"] in {owner["uid"] for owner in owners}:
            return True  # somebody else has sent the job in this moment
        # Its job is gone and the garbage collector about to take it too.
        cluster.delete(CONFIG_MAPS, name, namespace=namespace, only=held, unchanged=True)
        return False
    if held.get("data") != wanted["data"]:
        changes = {"metadata": {"resourceVersion": held["metadata"]["resourceVersion"]}, "data": wanted["data"]}
        cluster.patch(CONFIG_MAPS, name, changes, namespace=namespace)
    return True


def _undo(cluster: Cluster, job: Manifest, made: Manifest | None) -> None:
    """Delete the ConfigMap this call made, unless the job is there after all or somebody else has taken it."""
    if made is None:
        return
    meta = made["metadata"]
    try:
        if cluster.find(JOBS, job["metadata"]["name"], namespace=meta["namespace"]) is None:
            cluster.delete(CONFIG_MAPS, meta["name"], namespace=meta["namespace"], only=made, unchanged=True)
    except ClusterError:
        pass  # the error that led here matters more; the next submit adopts what is left
