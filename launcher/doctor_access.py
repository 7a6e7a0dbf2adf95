"""Whether the cluster can be used at all: the way there, rights, the training operator and its webhook."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from launcher import resources
from launcher.cluster_errors import (
    OPERATOR_INSTALL,
    Busy,
    ClusterError,
    Conflict,
    Denied,
    Forbidden,
    Invalid,
    NoConnection,
    WebhookSilent,
    no_namespace,
)
from launcher.findings import Finding, fail, ok, skip, warn
from launcher.printed import in_namespace

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Object = Mapping[str, Any]

# (resource, subresource, verbs, what fails without): what every launcher uses, and what only people do.
_RIGHTS: tuple[tuple[resources.Resource, str | None, tuple[str, ...], str], ...] = (
    (resources.JOBS, None, ("get", "list", "watch", "create", "patch"), "run, status, wait, suspend"),
    (resources.CONFIG_MAPS, None, ("get", "create", "patch", "delete"), "run"),
    (resources.PODS, None, ("get", "list", "watch"), "status, logs, describe"),
    (resources.PODS, "log", ("get",), "logs, the progress in status"),
)
_WISHED: tuple[tuple[resources.Resource, str | None, tuple[str, ...], str], ...] = (
    (resources.JOBS, None, ("delete",), "retry, delete"),
    (resources.PODS, None, ("create", "delete"), "data push, fetch"),
    # Kubernetes asked for get until 1.34, and asks for create since.
    (resources.PODS, "exec", ("get", "create"), "data push, fetch"),
    (resources.EVENTS, None, ("list",), "describe"),
    (resources.CLAIMS, None, ("get",), "the check of the volume claim"),
)
_OPERATOR = "training-operator"
# What is not there, and what Pod Security, a LimitRange or a quota asks of the operator's pods as of anybody's.
_FOR_ALL = re.compile(
    r"serviceaccount .* not found|no PriorityClass with name|RuntimeClass .* not found"
    r"|violates PodSecurity|(usage|ratio) per (Container|Pod)|failed quota: .*must specify"
)
_WEBHOOKS = "kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations"


def check_connection(cluster: Cluster) -> Finding:
    """Say where the kubeconfig leads.

    Raises:
        ClusterError: nowhere.
    """
    version = cluster.version()
    return ok("cluster", f"{cluster.server} answers, Kubernetes {version}, context {cluster.context}")


def check_namespace(cluster: Cluster) -> Finding | None:
    """Say that the namespace is not there: then nothing in it can be looked at; None where it is, or nobody tells."""
    if not cluster.lacks_namespace():
        return None
    found, _, fix = no_namespace(cluster.namespace).partition("; ")
    return fail("namespace", found, f"{fix} (with all it needs: manifests/base)")


def check_rights(cluster: Cluster) -> list[Finding]:
    """Say which rights in the namespace are missing; the API server is asked about each."""
    return [_rights(cluster, "permissions", _RIGHTS, fail), _rights(cluster, "more permissions", _WISHED, warn)]


def check_operator(cluster: Cluster) -> tuple[list[Finding], Object | None]:
    """Say whether PyTorchJobs are known and somebody works on them; also return the operator's Deployment if seen."""
    layer = "operator"
    try:
        known = cluster.knows(resources.JOBS)
    except Forbidden as error:
        return [skip(layer, f"may not be looked at: {str(error).splitlines()[0]}")], None
    if not known:
        return [fail(layer, "the cluster does not know PyTorchJob (kubeflow.org/v1)", OPERATOR_INSTALL)], None
    try:
        # By name, so that a rule for this one Deployment is enough.
        found = cluster.list(resources.DEPLOYMENTS, fields=f"metadata.name={_OPERATOR}", everywhere=True).items
    except Forbidden:
        return [ok(layer, "PyTorchJob is known; the operator itself may not be looked at with these rights")], None
    if not found:
        message = "PyTorchJob is known, but no Deployment training-operator is seen in the cluster"
        return [warn(layer, message, f"unless it runs elsewhere: {OPERATOR_INSTALL}")], None
    deployment = found[0]
    images = [each["image"] for each in deployment["spec"]["template"]["spec"]["containers"]]
    where = f"{images[0].rpartition('/')[2]} in namespace {deployment['metadata']['namespace']}"
    if not (deployment.get("status") or {}).get("availableReplicas"):
        fix = f"kubectl{in_namespace(deployment['metadata']['namespace'])} describe deployment {_OPERATOR}"
        return [fail(layer, f"{where} has no pod that is ready: jobs stay as they are", fix)], deployment
    return [ok(layer, f"{where} is running")], deployment


def check_webhook(cluster: Cluster, job: Object) -> Finding:
    """Send a job as a dry run: the API server asks the operator's webhook as for a real one, and makes nothing."""
    layer = "webhook"
    try:
        _dry_run(cluster, job)
    except Forbidden as error:
        # Rights and quota have layers of their own.
        if isinstance(error, Denied) and not error.by_quota:
            return fail(
                layer, f"a job is refused (dry run): {error}", "ask the cluster's administrator for what it wants"
            )
        return skip(layer, f"no job may be sent: {str(error).splitlines()[0]}")
    except ClusterError as error:
        fix = f"kubectl get pods -A | grep {_OPERATOR}; {_WEBHOOKS}"
        return fail(layer, f"a job is refused (dry run): {error}", fix)
    return ok(layer, "a job is accepted (dry run)")


def check_pod(cluster: Cluster, template: Object) -> Finding:
    """Send a pod of the job as a dry run: what it names must be there, and every webhook must answer.

    Policies may be others for the operator, who makes the pods in earnest: what they refuse is a warning.
    """
    layer, wanted = "pod names", {"apiVersion": resources.PODS.api_version, "kind": resources.PODS.kind, **template}
    try:
        _dry_run(cluster, wanted)
    except WebhookSilent as error:
        return fail(layer, f"a pod is refused (dry run): {str(error).splitlines()[0]}", f"{_WEBHOOKS} name its service")
    except (Busy, NoConnection) as error:
        return skip(layer, f"nobody says: {str(error).splitlines()[0]}")
    except (Forbidden, Invalid) as error:
        if isinstance(error, Invalid) or _FOR_ALL.search(str(error)):
            fix = "correct in cluster.* what it names or asks for, or make what is not there"
            return fail(layer, f"a pod is refused (dry run): {error}", fix)
        if isinstance(error, Denied) and not error.by_quota:
            ask = "the operator may be allowed to; else ask the cluster's administrator for what it wants"
            return warn(layer, f"a pod made by you is refused (dry run): {error}", ask)
        return skip(layer, f"no pod may be sent: {str(error).splitlines()[0]}")
    return ok(layer, "what a pod names is there, and it is accepted (dry run)")


def _dry_run(cluster: Cluster, manifest: Object) -> None:
    # A name of its own, so that one that is there already is no conflict.
    meta = {**(manifest.get("metadata") or {}), "name": "mtft-doctor", "namespace": cluster.namespace}
    with suppress(Conflict):
        cluster.create({**manifest, "metadata": meta}, dry_run=True)


def _rights(
    cluster: Cluster,
    layer: str,
    wanted: tuple[tuple[resources.Resource, str | None, tuple[str, ...], str], ...],
    verdict: Any,
) -> Finding:
    missing: list[str] = []
    for resource, part, verbs, use in wanted:
        lacking = [verb for verb in verbs if not cluster.allowed(verb, resource, part=part)]
        if lacking:
            missing.append(f"{', '.join(lacking)} {resource.rbac_name}{'/' + part if part else ''} (for {use})")
    if not missing:
        return ok(layer, f"all that is needed in namespace {cluster.namespace}")
    found: Finding = verdict(
        layer, f"not allowed: {'; '.join(missing)}", "bind the Role mtft-user of manifests/base to this user"
    )
    return found
