"""The shared volume, and what only a pod can tell: how much room it has, and whether names of other pods are found."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from launcher import labels
from launcher.cluster_errors import Forbidden
from launcher.doctor_namespace import check_claim
from launcher.findings import Finding, fail, ok, skip, warn
from launcher.pod_reasons import is_silent
from launcher.remote_files import COME_AS, LET_IN
from launcher.resources import CLAIMS, PODS, SERVICES
from launcher.transfer import Remote
from launcher.transfer_pod import claims_of, root_of, running, transfer_pod
from mtft.errors import MtftError

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Object = Mapping[str, Any]

_GIB, _MIB = 2**30, 2**20
_LEAST_GIB, _LOW_GIB = 1, 10  # a base checkpoint in the hub's cache takes 1 to 3, a run about 1
_WHO = ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")
_GIVEN_BY = "openshift.io/scc"
_TRIES = 2  # a node that is gone answers with 500, and another pod may tell as well


class Inside:
    """What a pod of ours sees: one that runs and mounts the claim, or with ``probe`` one that is made for it.

    Args:
        cluster: where.
        template: pod template of the job.
        probe: whether a pod may be made.
    """

    def __init__(self, cluster: Cluster, template: Object, *, probe: bool) -> None:
        self._cluster, self._template, self._probe = cluster, template, probe

    @cached_property
    def said(self) -> Mapping[str, Any] | MtftError | None:
        """The pod's answer; why there is none; None where no pod runs and none may be made."""
        try:
            for pod in self._running():
                with suppress(MtftError):  # it may end in this moment; the next one, or the probe, tells more
                    return self._look(pod["metadata"]["name"], pod["spec"])
            if not self._probe:
                return None
            with running(self._cluster, transfer_pod(self._template, read_only=False)) as name:
                return self._look(name, self._template["spec"])
        except MtftError as error:
            return error

    def _look(self, pod: str, spec: Object) -> Mapping[str, Any]:
        return Remote(self._cluster, pod, self._cluster.namespace).ask("look", root_of(spec), tries=_TRIES)[0]

    def _running(self) -> list[Object]:
        pods = self._cluster.list(PODS, selector=labels.SELECTOR, fields="status.phase=Running").items
        staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp") and not is_silent(pod)]
        same = [pod for pod in staying if claims_of(pod["spec"]) == claims_of(self._template["spec"])]
        return [pod for pod in same if _writes(pod["spec"]) and _is_as(pod, self._template)]


def check_volume(cluster: Cluster, template: Object, count: int) -> list[Finding]:
    """Say whether the job's claims are there and can be mounted by every pod."""
    found = []
    for name in claims_of(template["spec"]):
        claim = cluster.find(CLAIMS, name)
        bound = claim is None or (claim.get("status") or {}).get("phase") == "Bound"
        events = () if bound else cluster.events(name, kind=CLAIMS.kind)
        found.append(check_claim(name, claim, count, cluster.namespace, events=events))
    return found


def check_space(said: Mapping[str, Any] | MtftError | None) -> Finding:
    """Say how much room the volume has, from what a pod says."""
    layer = "space"
    if said is None:
        return skip(layer, "no pod that can be asked has the volume as this job would; --probe starts one to look")
    if isinstance(said, Forbidden):
        return skip(layer, f"may not be looked at: {str(said).splitlines()[0]}")
    if isinstance(said, MtftError):
        return fail(layer, f"no pod can look at the volume: {said}", "mend what it says, then look again with --probe")
    free = said["free"] / _GIB
    unit, size = ("GiB", _GIB) if said["total"] >= _GIB else ("MiB", _MIB)
    message = f"{said['free'] / size:.1f} of {said['total'] / size:.1f} {unit} are free"
    remedy = "delete runs nobody needs below outputs/, or ask for a larger volume"
    if free < _LEAST_GIB:
        return fail(layer, message, remedy)
    return warn(layer, message, remedy) if free < _LOW_GIB else ok(layer, message)


def check_access(said: Mapping[str, Any] | MtftError | None) -> Finding:
    """Say whether jobs may write on the volume, from what a pod says."""
    layer = "write access"
    if not isinstance(said, Mapping):
        return skip(layer, "not known without a pod that has the volume mounted; see the layer space")
    if not said["closed"]:
        return ok(layer, f"pods may write on the volume, as {said['whom']}")
    if said["read_only"]:
        return fail(
            layer, "the volume takes nothing: it is read-only", "mount it so that pods can write, or ask for another"
        )
    message = f"pods may not write in {' and '.join(dict.fromkeys(said['closed'].values()))}, as {said['whom']}"
    remedy = f"{LET_IN}, or set {COME_AS} to who may"
    if set(said["closed"]) == {"data"}:  # which jobs only read
        return warn(layer, f"{message}, so data push cannot", remedy)
    return fail(layer, message, remedy)


def check_dns(cluster: Cluster, count: int, inside: Inside) -> Finding:
    """Say whether the pods of a job find each other by name; a pod knows best, else the DNS service is looked for."""
    layer = "DNS"
    if count == 1:
        return ok(layer, "one pod needs no other")
    if isinstance(inside.said, Mapping):
        if inside.said["dns"]:
            return ok(layer, "a pod finds the cluster's services by name")
        return fail(
            layer,
            "a pod finds no service of the cluster by name",
            "kubectl -n kube-system get pods -l k8s-app=kube-dns",
        )
    try:
        # By name, so that a rule for this one Service is enough.
        service = cluster.find(SERVICES, "kube-dns", namespace="kube-system")
    except Forbidden:
        return skip(layer, "kube-system may not be looked at; --probe asks from a pod")
    if service:
        return ok(layer, "service kube-dns is there: pods find each other by name")
    message = f"{count} pods find each other by name, and no service kube-dns is seen in kube-system"
    return warn(layer, message, "--probe asks from a pod; unless DNS runs elsewhere, ask the cluster's administrator")


def _writes(spec: Object) -> bool:
    """Whether a pod has our container, with the claim mounted as a job's: what only reads cannot tell who may write."""
    claims = {each["name"] for each in spec.get("volumes") or [] if "persistentVolumeClaim" in each}
    ours = (each for each in spec["containers"] if each["name"] == labels.CONTAINER)
    mounts = [mount for each in ours for mount in each.get("volumeMounts") or [] if mount["name"] in claims]
    return any(not mount.get("readOnly") for mount in mounts)


def _is_as(pod: Object, template: Object) -> bool:
    """Whether a pod runs as the user and groups of a job's pods: others may write elsewhere."""
    theirs, ours = (each["spec"].get("securityContext") or {} for each in (pod, template))
    # OpenShift gives those of the namespace to pods that name none.
    given = _GIVEN_BY in (pod["metadata"].get("annotations") or {})
    return all(theirs.get(key) == ours.get(key) or (given and key not in ours) for key in _WHO)
