"""One job: why it waits, restarts or failed, and what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from launcher import printed
from launcher.doctor_namespace import create_secret, secrets_of
from launcher.findings import Finding, fail, ok, warn
from launcher.job_objects import roles
from launcher.pod_reasons import NO_ROOM_FREE, NO_SERVICE, NO_VOLUME_THERE
from launcher.progress import STARTED_AGAIN
from launcher.remote_files import COME_AS, LET_IN
from launcher.states import JobState
from launcher.transfer_pod import claims_of
from mtft import exit_codes
from mtft.errors import NO_RIGHT, NO_ROOM

Object = Mapping[str, Any]

# What the kubelet says of a Secret or ConfigMap: of its object, or of one key in it.
_NO_SECRET = re.compile(r'secret "([^"]+)" not found')
_NO_KEY = re.compile(r"couldn't find key (\S+) in Secret \S+/([-.a-z0-9]+)")
_NO_IMAGE = re.compile(r"image (cannot be pulled|is not on the node|name is not valid)")
_NO_CONFIG = re.compile(r'configmap "([^"]+)" not found')
# What the API server says of a Service it does not make.
_FOREIGN = re.compile(r'services "([^"]+)" already exists')
_USED_UP = re.compile(r"exceeded quota: ([^,\s]+)")

_OFTEN = 2  # restarts, of which the first may have been a node's
_RETRIED_MINUTES = 17  # the longest pause between two tries of a controller


def diagnose(state: JobState, job: Object, *, gone: bool = False, nodes_seen: bool = True) -> Finding:
    """Say of one job, in words, why it waits, restarts or failed; one that cannot go on by itself is a failure.

    Args:
        state: what is told of it.
        job: the PyTorchJob.
        gone: whether no pod of it is left.
        nodes_seen: whether the layers above say what the nodes have against it.
    """
    layer = "job"
    said = f"{state.name} is {state.state} ({state.phase})" + (f": {state.reason}" if state.reason else "")
    if state.state == "Failed":
        return fail(layer, said, _remedy(state, job, gone=gone))
    if state.phase == "unseen":
        return fail(layer, said, _let_tell(state, job))
    if state.phase == "blocked":
        return fail(layer, said, _release(state, job))
    if state.phase == "unscheduled" and not nodes_seen:
        return warn(layer, said, _ask_who_sees_nodes(job))
    # Where other nodes lack room alone, the volume may well be there.
    if state.phase == "unscheduled" and NO_VOLUME_THERE in said and NO_ROOM_FREE not in said:
        return warn(layer, said, _to_the_volume(job))
    again = (state.reason or "").startswith(STARTED_AGAIN)
    # One of the pods of a job that runs may be missing, or its log.
    lacks = state.state == "Running" and state.reason and not again
    if lacks or state.state in ("Pending", "Restarting", "Queued"):
        return warn(layer, said, f"see the layers above; {printed.launch('describe', job)} shows the cluster's events")
    if state.state in ("Suspended", "Cancelled"):
        return warn(layer, said, printed.launch("resume", job))
    if state.quiet_s is not None and state.quiet_s > 1800:
        return warn(layer, f"{said}; no step for {state.quiet_s / 60:.0f} minutes", printed.launch("logs", job))
    if again and (state.restarts or 0) >= _OFTEN:
        return warn(layer, f"{said}; {state.restarts} restarts so far", printed.launch("logs", job))
    return ok(layer, said)


def _ask_who_sees_nodes(job: Object) -> str:
    doctor = printed.launch("doctor", job)
    return (
        "you may not list nodes, so whether one can ever take it is not known here: somebody with that right "
        f"(manifests/components/nodes gives it, a cluster's administrator has it) sees it with {doctor}"
    )


def _to_the_volume(job: Object) -> str:
    claims = claims_of(((roles(job) or [{}])[0].get("template") or {}).get("spec") or {})
    look = f"kubectl describe pvc {' '.join(claims)}{printed.in_namespace(job['metadata']['namespace'])}"
    return (
        f"{look} names its volume, whose Node Affinity (kubectl describe pv) says where it is: "
        "let cluster.node_selector and cluster.tolerations lead there, or use a volume that every node reaches"
    )


def _remedy(state: JobState, job: Object, *, gone: bool) -> str:
    again = f"{printed.launch('retry', job)} starts it again from its last checkpoint"
    if NO_ROOM in (state.reason or ""):
        claims = claims_of(((roles(job) or [{}])[0].get("template") or {}).get("spec") or {})
        return f"free space below storage.root on claim {' or '.join(claims) or '?'}; then {again}"
    if NO_RIGHT in (state.reason or ""):
        return f"{LET_IN}; then {again}; or set {COME_AS} to who may; then {_anew(job)}"
    if state.exit_code == exit_codes.BAD_INPUT:
        return f"correct the configuration or the data; then {_anew(job)}"
    if state.exit_code == exit_codes.DIVERGED:
        return f"lower train.learning_rate or raise train.warmup_ratio; then {_anew(job)}"
    if gone and state.exit_code is None:
        return f"look why it failed before it is tried again; if that can pass, {again}"
    printed_so_far = printed.launch("fetch", job, " --what run") if gone else printed.launch("logs", job)
    return f"{printed_so_far}; {again}"


def _anew(job: Object) -> str:
    # Placement and data mended in place leave the name of the job as it is.
    return f"{printed.launch('delete', job)}, and run it again"


def _let_tell(state: JobState, job: Object) -> str:
    """Say what lets the operator make a job's Service, and so tell of its pods."""
    reason, place = state.reason or "", printed.in_namespace(state.namespace)
    again = f"the operator tries again within {_RETRIED_MINUTES} minutes"
    foreign, used_up = _FOREIGN.search(reason), _USED_UP.search(reason)
    quota = f"kubectl describe quota{f' {used_up[1]}' if used_up else ''}{place}"
    delete = f"delete finished jobs, which keep theirs: mtft-launch delete NAME{place}"
    room = f"raise the quota of Services ({quota}), or {delete}"
    remove = f"kubectl delete service {foreign[1] if foreign else f'{state.name}-master-0'}{place}"
    if foreign:
        return f"remove the Service that is not the job's, if nothing needs it: {remove}; {again}"
    if used_up:
        return f"{room}; {again}"
    if reason.startswith(NO_SERVICE):
        return f"{printed.launch('describe', job)} shows the cluster's events"
    return (
        f"see the layer operator, and the events FailedCreateService: {printed.launch('describe', job)}\n"
        f"exceeded quota: {room}\nalready exists, and not the job's: {remove}\n{again}"
    )


def _release(state: JobState, job: Object) -> str:
    """Say what lets a pod start that cannot by itself."""
    reason, place = state.reason or "", printed.in_namespace(state.namespace)
    then = "its pod starts by itself then"
    if found := _NO_SECRET.search(reason):
        template = (roles(job) or [{}])[0].get("template") or {}
        return f"{create_secret(found[1], secrets_of(template).get(found[1], ()), state.namespace)}; {then}"
    if found := _NO_KEY.search(reason):
        return f"put key {found[1]} into it (kubectl edit secret {found[2]}{place}), or change cluster.secrets; {then}"
    if _NO_CONFIG.search(reason):
        return f"the job's ConfigMap was deleted: {_anew(job)}"
    if "runAsNonRoot" in reason:
        anew = _anew(job)
        return (
            f"set cluster.run_as_user to a number above 0, or give the image a numeric USER other than 0; then {anew}"
        )
    if reason.startswith("no scheduler "):
        return f"install the scheduler: its pod starts then; or cluster.scheduler: null, and {_anew(job)}"
    if _NO_IMAGE.search(reason):
        return "check cluster.image, cluster.image_pull_secrets and that the nodes reach the registry"
    return f"see the layers above; {printed.launch('describe', job)} shows the cluster's events"
