"""What a cluster can answer instead of doing the work, each in words a person can act on; all leave with exit code 3.

ClusterError
 +-- NoConnection      no kubeconfig, unknown context, unreachable host, TLS
 |    +-- Cut          the connection ended before what it carried did
 +-- Unauthorized      401: no, wrong or expired credentials
 +-- Forbidden         403: by RBAC
 |    +-- Denied       403: by admission (quota, Pod Security, a policy, a webhook); a policy may give 400 or 422, too
 +-- NotFound          404: no such object or namespace
 |    +-- NoSuchKind   404: the cluster does not know the kind; the operator is not installed
 +-- Conflict          409: it exists already, or was changed meanwhile
 +-- Gone              410: the server has forgotten where a watch or list wanted to go on
 +-- Invalid           400, 422: the object is not right
 +-- Busy              429, 5xx and a quota others change, after all retries
      +-- WebhookSilent  500: the server answers, but a webhook that must agree does not
      +-- NotYetAllowed  403 of a server that may be starting; it is a Forbidden, too
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from launcher.resources import Resource
from mtft import exit_codes
from mtft.errors import MtftError

OPERATOR_INSTALL = (
    'kubectl apply --server-side -k "github.com/kubeflow/trainer.git/manifests/overlays/standalone?ref=v1.9.4"'
)

_RBAC = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"'
    r' in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_WEBHOOK = "failed calling webhook"
_POLICY = re.compile(r"denied (the )?request")  # by a webhook, or by a ValidatingAdmissionPolicy
_HANGS = re.compile(r"deadline exceeded|Client\.Timeout|i/o timeout|timed out")
_NO_NODE = re.compile(r"dial tcp|dialing backend|TLS handshake|i/o timeout|client connection lost|:10250/")
_PLAIN_TO_TLS = "HTTP request to an HTTPS server"
_ANONYMOUS = "system:anonymous"
_IN_NAMESPACE = "all rules mtft-launch needs are in manifests/base; `mtft-launch doctor` shows which are missing"
_EVERYWHERE = (
    "manifests/base has no rule for the whole cluster: without -A one namespace is looked at (-n NAME), or an "
    "administrator binds this one with a ClusterRoleBinding (`status -A` lists pods as well; what doctor looks at is "
    "in manifests/components/nodes)"
)


class ClusterError(MtftError):
    """The cluster refused, or could not be reached."""

    exit_code = exit_codes.CLUSTER_REFUSED


class NoConnection(ClusterError):
    """There is no way to the API server: no kubeconfig, an unknown context, an unreachable host, a TLS failure."""


class Cut(NoConnection):
    """The connection ended before what it carried did; asking again may go on where it ended."""


class Unauthorized(ClusterError):
    """401: the server does not know who asks."""


class Forbidden(ClusterError):
    """403: the user may not do this."""


class Denied(Forbidden):
    """403, 400 or 422: the user may do this, but a quota, a policy or a webhook is against the object.

    Attributes:
        by_quota: a ResourceQuota is.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.by_quota = "exceeded quota" in message


class NotFound(ClusterError):
    """404: the object, or its namespace, is not there."""


class NoSuchKind(NotFound):
    """404: the cluster does not know this kind of object."""


class Conflict(ClusterError):
    """409: the object exists already, or was changed meanwhile."""


class Gone(ClusterError):
    """410: the server no longer has the place where a watch or a list wanted to go on."""


class Invalid(ClusterError):
    """400 or 422: the object is not right."""


class Busy(ClusterError):
    """429 or 5xx, or a quota that others change at the same time: the server could not do it now."""


class WebhookSilent(Busy):
    """500: a webhook that must agree cannot be reached, or does not answer.

    Attributes:
        hangs: it was waited for in vain, for as long as its configuration says (10 seconds as a rule).
    """

    def __init__(self, message: str, *, hangs: bool) -> None:
        super().__init__(message)
        self.hangs = hangs


class NotYetAllowed(Busy, Forbidden):
    """403 of a server that was lost a moment ago: one that starts may not know its roles yet."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked of the API server, for messages.

    Attributes:
        verb: as RBAC names it: get, list, watch, create, update, patch, delete.
        resource: the kind of object.
        namespace: None for all of them.
        name: of the object, where there is one.
        part: subresource, such as ``log``.
        server: address of the API server.
    """

    verb: str
    resource: Resource
    namespace: str | None
    name: str | None = None
    part: str | None = None
    server: str = ""

    def __str__(self) -> str:
        what = " ".join(filter(None, (self.resource.rbac_name + (f"/{self.part}" if self.part else ""), self.name)))
        return f"{self.verb} {what}" + (f" in namespace {self.namespace}" if self.namespace else "")


def from_status(code: int, status: Mapping[str, Any] | None, text: str, request: Request) -> ClusterError:
    """Return the error for an answer of the API server.

    Args:
        code: HTTP status.
        status: the answer as a Kubernetes Status; None when it was something else.
        text: the answer's body.
        request: what was asked.
    """
    said = str((status or {}).get("message") or text.strip()[:500] or f"HTTP {code}")
    if code == 400 and status is None and _PLAIN_TO_TLS in text:
        secure = request.server.replace("http://", "https://", 1)
        return NoConnection(f"{request.server} answers https only; give the kubeconfig's cluster the server {secure}")
    match code:
        case 401:
            return Unauthorized(_unauthorized(request))
        case 403:
            return _forbidden(said, request)
        case 404:
            return _not_found(status, said, request)
        case 409 if request.verb == "create" and (status or {}).get("reason") == "Conflict":
            # The quota was counted for others in this moment; nothing was made.
            return Busy(_busy(code, said, request))
        case 409:
            return Conflict(f"{request}: {said}")
        case 410:
            return Gone(f"{request}: {said}")
        case 400 | 422 if _POLICY.search(said):
            return _denied(said, request)
        case 400 | 413 | 415 | 422:
            return Invalid(f"{request}: the API server refuses the object\n{_causes(status, said)}")
        case 500 if _WEBHOOK in said:
            return WebhookSilent(_silent(said, request), hangs=bool(_HANGS.search(said)))
        case 429 | 500 | 502 | 503 | 504:
            return Busy(_busy(code, said, request))
        case _:
            return ClusterError(f"{request}: the API server answered {code}: {said}")


def no_namespace(name: str) -> str:
    """Say that a namespace is not there, and what to do."""
    return f"there is no namespace {name}; choose one with -n, or make it: kubectl create namespace {name}"


def _unauthorized(request: Request) -> str:
    return (
        f"{request}: {request.server} does not accept the credentials of the kubeconfig (401): "
        "they are missing, wrong or expired; log in to the cluster again, then check with `kubectl auth whoami`"
    )


def _forbidden(said: str, request: Request) -> Forbidden:
    found = _RBAC.search(said)
    if not found:
        return _denied(said, request)
    if found["user"] == _ANONYMOUS:
        return Forbidden(
            f"{request}: the kubeconfig sends no credentials, so {request.server} takes you for {_ANONYMOUS}; "
            "log in to the cluster, or choose another context with --context"
        )
    everywhere = not found["namespace"]
    where = "the whole cluster" if everywhere else f"namespace {found['namespace']}"
    kind = "ClusterRole" if everywhere else "Role"
    return Forbidden(
        f"{found['user']} may not {found['verb']} {found['resource']} in {where}\n"
        f"a rule of a {kind} that allows it:\n"
        f"  - apiGroups: [{_quoted(found['group'])}]\n"
        f"    resources: [{_quoted(found['resource'])}]\n"
        f"    verbs: [{_quoted(found['verb'])}]\n"
        f"{_EVERYWHERE if everywhere else _IN_NAMESPACE}"
    )


def _denied(said: str, request: Request) -> Denied:
    # The server's own words name the quota, the policy or the webhook.
    return Denied(f"{request}: refused by the cluster's rules: {said}")


def _quoted(text: str) -> str:
    return f'"{text}"'


def _not_found(status: Mapping[str, Any] | None, said: str, request: Request) -> ClusterError:
    details = (status or {}).get("details") or {}
    if not details.get("name") or (status or {}).get("kind") != "Status":
        resource = request.resource
        fix = f"; install the training operator: {OPERATOR_INSTALL}" if resource.group == "kubeflow.org" else ""
        if path := urlsplit(request.server).path.strip("/"):
            fix += f"\nthe server's address in the kubeconfig has a path, /{path}: is it right?"
        return NoSuchKind(f"{request.server} does not know {resource.kind} ({resource.api_version}): {said}{fix}")
    if details.get("kind") == "namespaces" and request.resource.plural != "namespaces":
        return NotFound(no_namespace(str(details["name"])))
    if request.part and details["name"] != request.name:
        return NotFound(f"{request}: the pod's node {details['name']} is no longer in the cluster")
    where = f" in namespace {request.namespace}" if request.namespace else ""
    return NotFound(f"there is no {request.resource.kind} {details['name']}{where}")


def _causes(status: Mapping[str, Any] | None, said: str) -> str:
    causes = ((status or {}).get("details") or {}).get("causes") or []
    lines = [f"  {cause.get('field') or 'object'}: {cause.get('message')}" for cause in causes]
    return "\n".join(dict.fromkeys(lines)) or f"  {said}"


def _busy(code: int, said: str, request: Request) -> str:
    if code == 500 and request.part in ("log", "exec") and _NO_NODE.search(said):  # the server only hands it on
        return f"{request}: the pod's node does not answer {request.server} (500): {said}; try again in a few minutes"
    why = {429: "has too many requests", 409: "counts other objects at the same time"}.get(
        code, "has a fault of its own"
    )
    return f"{request}: {request.server} {why} ({code}): {said}; try again in a few minutes"


def _silent(said: str, request: Request) -> str:
    return (
        f"{request}: a webhook that must agree does not answer: {said}\n"
        "if it is the training operator's, see whether it runs: kubectl get pods -A -l "
        "app.kubernetes.io/component=controller,app.kubernetes.io/name=training-operator"
    )
