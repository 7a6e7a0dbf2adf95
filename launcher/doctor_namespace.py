"""Whether a namespace lets the pods of a job in: quota, limits, Pod Security, the claim, secrets, the queue. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from launcher.doctor_nodes import requests_of
from launcher.findings import Finding, fail, ok, skip, warn
from launcher.printed import in_namespace
from launcher.quantities import parse_quantity, show_quantity
from launcher.quota_scopes import binds

Object = Mapping[str, Any]
ENFORCE = "pod-security.kubernetes.io/enforce"
_PULL_SECRETS = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")
# What mtft-launch itself makes, one of each for a job, and what the operator makes beside each pod.
_OF_JOBS = ("configmaps", "count/configmaps", "count/pytorchjobs.kubeflow.org")
_SERVICES = ("services", "count/services")
# What the container the operator adds to workers asks for, and how many times that its limits are: its own, and that of
# manifests/operator.
_INIT_RESOURCES = {
    False: {"cpu": ("50m", 2), "memory": ("10Mi", 2)},
    True: {"cpu": ("50m", 2), "memory": ("32Mi", 1)},
}
_INIT = "the training operator's init container (init-pytorch)"
_OPERATOR_GIVEN, _OR_ALONE = "give the operator manifests/operator/init-container.yaml", "or set cluster.nodes: 1"
OPERATOR_FIX = f"{_OPERATOR_GIVEN}, {_OR_ALONE}"


def check_quota(quotas: Sequence[Object], template: Object, count: int, *, there: int | None = None) -> Finding:
    """Say whether a job, its pods and what is made with them fit into the namespace's quotas beside what is there.

    Args:
        quotas: those of the namespace.
        template: pod template of the job.
        count: pods of the job.
        there: pods of it that are there and thus counted as used, or need be no more; None: the job is not there.
    """
    layer = "quota"
    if not quotas:
        return ok(layer, "the namespace has none")
    quotas = [quota for quota in quotas if binds(quota, template.get("spec") or {})]
    if not quotas:
        return ok(layer, "none of the namespace's quotas counts such pods")
    if there is not None and there >= count:
        return ok(layer, "the job's pods are within it")
    asked = _quota_terms(template, count, jobs=1)
    more = asked if there is None else _quota_terms(template, count - there, jobs=0)
    found = [
        finding
        for quota in quotas
        for name in ((quota.get("status") or {}).get("hard") or {})
        if more.get(name) and (finding := _beyond(quota, name, asked[name], more[name], live=there is not None))
    ]
    if found:
        return min(found, key=lambda finding: finding.verdict != "fail")
    return ok(layer, f"the job fits into {len(quotas)} quotas")


def check_limits(
    ranges: Sequence[Object], template: Object, pods: int = 1, operator_template: bool | None = False
) -> Finding:
    """Say whether a pod is within the namespace's LimitRanges, the operator's init container in it, too.

    Args:
        ranges: those of the namespace.
        template: pod template of the job.
        pods: pods of the job; the operator puts an init container of its own into all but the first.
        operator_template: whether the operator was given a template for that container; None when nobody can tell.
    """
    layer = "limit range"
    if not ranges:
        return ok(layer, "the namespace has none")
    asked = requests_of(template.get("spec") or {})
    rules = [
        (each["metadata"]["name"], rule)
        for each in ranges
        for rule in (each.get("spec") or {}).get("limits") or []
        if rule.get("type") in ("Pod", "Container")
    ]
    over, under = [], []
    for where, rule in rules:
        for name, amount in asked.items():
            most, least = (rule.get("max") or {}).get(name), (rule.get("min") or {}).get(name)
            if most and amount > parse_quantity(most):
                over.append(f"{where}: at most {most} {name}; a pod asks for {show_quantity(amount)}")
            if least and amount < parse_quantity(least):
                under.append(f"{where}: at least {least} {name}; a pod asks for {show_quantity(amount)}")
    if over or under:
        fixes = ["lower cluster.cpus, cluster.memory_gib or cluster.gpus_per_node"] if over else []
        fixes += ["raise cluster.cpus or cluster.memory_gib"] if under else []
        return fail(layer, "\n".join(over + under), "\n".join(fixes))
    if pods > 1 and (beyond := list(_init_container_beyond(rules, operator_template))):
        message = "\n".join(beyond)
        fix = f"{_OPERATOR_GIVEN} with resources that fit, {_OR_ALONE}"
        return fail(layer, message, fix) if operator_template is False else warn(layer, message, fix)
    return ok(layer, f"a pod is within {len(ranges)} ranges")


def _init_container_beyond(rules: Sequence[tuple[str, Object]], operator_template: bool | None) -> Iterator[str]:
    """Say which rules refuse the operator's init container; with a template, one that asks for what ours does."""
    changed = "; its template may ask for other amounts by now" if operator_template else ""
    for where, rule in rules:
        if rule.get("type") != "Container":
            continue
        for name, (amount, ratio) in _INIT_RESOURCES[bool(operator_template)].items():
            least, most = (rule.get("min") or {}).get(name), (rule.get("maxLimitRequestRatio") or {}).get(name)
            if least and parse_quantity(amount) < parse_quantity(least):
                yield f"{where}: at least {least} {name}; {_INIT} asks for {amount}{changed}"
            if most and parse_quantity(most) < ratio:
                yield f"{where}: {name} limits of at most {most} times the requests; {_INIT} has {ratio} times{changed}"


def check_pod_security(namespace: Object, pods: int, operator_template: bool | None) -> Finding:
    """Say whether the namespace's Pod Security level lets the job's pods in.

    Args:
        namespace: the namespace.
        pods: pods of the job; the operator puts an init container of its own into all but the first.
        operator_template: whether the operator was given a template for that container; None when nobody can tell.
    """
    layer = "pod security"
    level = (namespace["metadata"].get("labels") or {}).get(ENFORCE)
    if level != "restricted":
        return ok(layer, f"the namespace enforces {level or 'no level'}; mtft's pods meet restricted")
    if pods == 1:
        return ok(layer, "the namespace enforces restricted, which mtft's pods meet")
    what = f"{_INIT} must meet restricted too"
    if operator_template:
        return ok(layer, f"{what}; the operator has a template of its own for it")
    if operator_template is None:
        return warn(layer, f"{what}; the operator cannot be seen from here", OPERATOR_FIX)
    return fail(layer, f"{what} and does not: worker pods will be refused", OPERATOR_FIX)


# Why a claim gets no volume, as the controllers put it.
_NOT_BINDING = ("FailedBinding", "ProvisioningFailed")


def check_claim(
    name: str, claim: Object | None, pods: int, namespace: str, *, events: Sequence[Object] = ()
) -> Finding:
    """Say whether the volume is there and can be mounted by every pod; ``events`` are the claim's."""
    layer = "volume claim"
    if claim is None:
        return fail(
            layer,
            f"there is no claim {name}",
            f"make it: mtft-launch render --claim-only 100Gi --storage-class CLASS --set cluster.claim={name}"
            f"{in_namespace(namespace)} | kubectl apply -f -; or name another with cluster.claim",
        )
    if claim["metadata"].get("deletionTimestamp"):
        return _going(name, claim)
    status, modes = claim.get("status") or {}, (claim.get("spec") or {}).get("accessModes") or []
    phase = status.get("phase")
    if phase == "Lost":
        return fail(layer, f"claim {name} has lost its volume", "restore the volume, or make another claim")
    if phase != "Bound":
        look = f"kubectl describe pvc {name}{in_namespace(namespace)}"
        if failed := [each.get("message") or "" for each in events if each.get("reason") in _NOT_BINDING]:
            message = f"claim {name} gets no volume: {failed[-1].strip()}"
            return fail(layer, message, f"make it again with a storage class that offers ReadWriteMany; {look}")
        state = f"claim {name} is not bound yet: {phase or 'nobody has seen it'}"
        return warn(layer, f"{state}; it may wait for its first pod", look)
    if "ReadWriteMany" not in modes:
        message = f"claim {name} is bound, but {', '.join(modes)}: only one node can write to it"
        remedy = "make a ReadWriteMany claim (NFS, CephFS, a cloud file share)"
        return fail(layer, message, remedy) if pods > 1 else warn(layer, f"{message}, so models run one by one", remedy)
    size = (status.get("capacity") or {}).get("storage", "unknown")
    return ok(layer, f"claim {name} is bound and ReadWriteMany, capacity {size}")


def _going(name: str, claim: Object) -> Finding:
    message = f"claim {name} is being deleted: it goes when the last pod that has it ends; new pods do not get it"
    volume, again = claim["spec"].get("volumeName"), "once it is gone, make the claim again"
    if not volume:
        return fail("volume claim", message, again)
    patch = f"kubectl patch pv {volume}"
    return fail(
        "volume claim",
        f"{message}, and what is on its volume may go with it",
        # A volume that is kept stays the old claim's by its UID; without a claimRef any other claim might get it.
        f"""keep the data: {patch} -p '{{"spec":{{"persistentVolumeReclaimPolicy":"Retain"}}}}'; {again} with """
        f"spec.volumeName: {volume} and the volume's storage class, and give the volume free for it: "
        f"""{patch} -p '{{"spec":{{"claimRef":{{"uid":null,"resourceVersion":null}}}}}}'""",
    )


def check_secrets(template: Object, read: Callable[[str], Object | None], namespace: str) -> list[Finding]:
    """Say for each Secret the pods need whether it and its keys are there; values are never looked at.

    Args:
        template: pod template of the job.
        read: gives a Secret by name, None where there is none; raises PermissionError where it may not be read.
        namespace: where they are to be.
    """
    needed = secrets_of(template)
    if not needed:
        return [ok("secrets", "none is needed")]
    return [_secret(name, keys, read, namespace) for name, keys in needed.items()]


def secrets_of(template: Object) -> dict[str, dict[str, bool]]:
    """Return Secret -> key -> whether the pods can do without it, of every Secret a pod template names."""
    spec = template.get("spec") or {}
    needed: dict[str, dict[str, bool]] = {}
    for container in spec.get("containers") or []:
        for entry in container.get("env") or []:
            if ref := (entry.get("valueFrom") or {}).get("secretKeyRef"):
                needed.setdefault(ref["name"], {})[ref["key"]] = bool(ref.get("optional"))
    for ref in spec.get("imagePullSecrets") or []:
        needed.setdefault(ref["name"], {})
    return needed


def create_secret(name: str, keys: Collection[str], namespace: str) -> str:
    """Return the command that makes a Secret with these keys; one without is for pulling images."""
    if not keys:
        options = " --docker-server=... --docker-username=... --docker-password=..."
        return f"kubectl create secret docker-registry {name}{options}{in_namespace(namespace)}"
    given = "".join(f" --from-literal={key}=..." for key in keys)
    return f"kubectl create secret generic {name}{given}{in_namespace(namespace)}"


def check_queue(queue: str | None, local_queue: Object | None, namespace: str, *, installed: bool = True) -> Finding:
    """Say whether the queue the job names is there and takes jobs."""
    layer = "queue"
    if queue is None:
        return ok(layer, "none is asked for: pods go straight to the scheduler")
    if not installed:
        return fail(
            layer, f"cluster.queue is {queue}, but Kueue is not installed", "set cluster.queue: null, or install Kueue"
        )
    if local_queue is None:
        look = f"kubectl get localqueues{in_namespace(namespace)}; set cluster.queue"
        return fail(layer, f"there is no LocalQueue {queue} in the namespace", look)
    for condition in (local_queue.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Active" and condition["status"] != "True":
            return fail(
                layer,
                f"LocalQueue {queue} takes no jobs: {condition.get('message', condition.get('reason'))}",
                "ask the cluster's administrator",
            )
    status = local_queue.get("status") or {}
    admitted, waiting = status.get("admittedWorkloads", 0), status.get("pendingWorkloads", 0)
    return ok(layer, f"LocalQueue {queue}: {admitted} admitted, {waiting} waiting")


def check_operator_template(deployment: Object | None) -> bool | None:
    """Whether the operator has a template for its init container; None where the operator is not seen."""
    if deployment is None:
        return None
    containers = deployment["spec"]["template"]["spec"]["containers"]
    given = [argument for each in containers for argument in [*(each.get("command") or []), *(each.get("args") or [])]]
    mounts = [mount["mountPath"] for each in containers for mount in each.get("volumeMounts") or []]
    return any("init-container-template-file" in it for it in given) or any("/etc/config" in it for it in mounts)


def _secret(name: str, keys: Mapping[str, bool], read: Callable[[str], Object | None], namespace: str) -> Finding:
    layer = f"secret {name}"
    try:
        secret = read(name)
    except PermissionError:
        return skip(layer, "may not be read with these rights")
    missing = [key for key in keys if secret is None or key not in (secret.get("data") or {})]
    required = [key for key in missing if not keys[key]]
    if secret is None and (required or not keys):
        return fail(layer, "is missing", create_secret(name, keys, namespace))
    if required:
        fix = f"kubectl edit secret {name}{in_namespace(namespace)}, or change cluster.secrets"
        return fail(layer, f"has no key {', '.join(required)}", fix)
    if secret is not None and not keys and secret.get("type") not in _PULL_SECRETS:
        again = f"kubectl delete secret {name}{in_namespace(namespace)}; {create_secret(name, keys, namespace)}"
        return fail(layer, f"is of type {secret.get('type')}, which pulls no image", again)
    if missing:
        what = "is missing" if secret is None else f"has no key {', '.join(missing)}"
        return warn(layer, f"{what}; the job can do without")
    return ok(layer, f"is there{' with ' + ', '.join(keys) if keys else ''}")


def _beyond(quota: Object, name: str, asked: Decimal, more: Decimal, *, live: bool) -> Finding | None:
    """Say what happens where a quota has no room for what a job asks for, in all or beside what is there."""
    layer, status = "quota", quota["status"]
    hard, used = (parse_quantity((status.get(part) or {}).get(name, "0")) for part in ("hard", "used"))
    figures = f"{quota['metadata']['name']}: {name} {show_quantity(used)} of {show_quantity(hard)} used"
    if asked <= hard and used + more <= hard:
        return None
    place = in_namespace(quota["metadata"].get("namespace"))
    wants, larger = show_quantity(more), "ask for a larger quota"
    room = f"{larger}, or delete finished jobs, which keep theirs: mtft-launch delete NAME{place}"
    fix = larger if asked > hard else room
    if name in _OF_JOBS:
        return fail(layer, f"{figures}; the job asks for {wants} more and is refused", fix)
    if name in _SERVICES:
        untold = "without them nobody is told that the job runs or has ended"
        if live and asked <= hard:  # a pod that is made anew has the Service of the one before
            return warn(layer, f"{figures}; the job's missing pods ask for up to {wants} more, and {untold}", fix)
        return fail(layer, f"{figures}; the operator makes {wants} more for the job's pods, and {untold}", fix)
    if asked > hard:
        less = "lower cluster.nodes, cluster.cpus, cluster.memory_gib or cluster.gpus_per_node"
        return fail(layer, f"{figures}; the job alone asks for {show_quantity(asked)}", f"{less}, or {larger}")
    return warn(layer, f"{figures}; the job asks for {wants} more and waits until they are free")


def _quota_terms(template: Object, count: int, *, jobs: int) -> dict[str, Decimal]:
    """Return what ``count`` pods of so many jobs ask for under every name a quota may use for it."""
    asked = dict.fromkeys(("pods", "count/pods", *_SERVICES), Decimal(count)) | dict.fromkeys(_OF_JOBS, Decimal(jobs))
    for name, amount in requests_of(template.get("spec") or {}).items():
        total = amount * count
        asked |= {f"requests.{name}": total, f"limits.{name}": total}
        if "/" not in name:
            asked[name] = total
    return asked
