"""A cluster as mtft uses it: objects in and out as plain dictionaries, every refusal a ``ClusterError``.

The official client connects, logs in and sends; its typed models are left out, because they drop fields they do not
know and cost a second to build for many jobs. The TrainingClient of kubeflow-training reads our jobs but cannot send
them as we do: it has no dry run, no patch, no label selector and no watch. ``training_client`` gives it to scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher.answers import is_deletion, is_review
from launcher.changes import Change, Listing, Manifest, Manifests
from launcher.cluster_errors import ClusterError, NoSuchKind, NotFound
from launcher.connection import Connection, open_connection
from launcher.reading import Reader
from launcher.resources import ACCESS_REVIEWS, Resource, of_manifest
from launcher.transport import Transport

if TYPE_CHECKING:
    from kubeflow.training import TrainingClient
    from kubernetes.client import ApiClient

__all__ = ["Change", "Cluster", "ClusterError", "Listing", "Manifest", "Manifests", "connect"]

FIELD_MANAGER = "mtft-launch"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


def connect(context: str | None = None, namespace: str | None = None) -> Cluster:
    """Return the cluster of a kubeconfig context, or in a pod without a kubeconfig its own; nothing is sent yet.

    Args:
        context: None: the current one.
        namespace: None: the one the context names, else ``default``.

    Raises:
        NoConnection: there is no usable kubeconfig or no such context.
    """
    first = open_connection(context)
    spare: list[Connection] = [first]
    transport = Transport(lambda: (spare.pop() if spare else open_connection(context)).client)
    return Cluster(transport, namespace or first.namespace, first.context)


class Cluster(Reader):
    """One API server, read and written to.

    Attributes:
        context: name of the kubeconfig's context.
    """

    def __init__(self, transport: Transport, namespace: str, context: str) -> None:
        super().__init__(transport, namespace)
        self.context = context

    @property
    def client(self) -> ApiClient:
        """Return the official client, for what only it can do, such as exec."""
        return self.transport.client

    def training_client(self) -> TrainingClient:
        """Return the official client of the training operator over this connection, for scripts that know it."""
        from kubeflow.training import TrainingClient

        return TrainingClient(client_configuration=self.client.configuration, namespace=self.namespace)

    @property
    def calls(self) -> int:
        """Return the number of requests sent so far."""
        return self.transport.calls

    def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        """Create an object; fields the cluster does not know are refused.

        Raises:
            Conflict: it exists already.
            ClusterError: any other refusal.
        """
        resource = of_manifest(manifest)
        place, name = manifest["metadata"].get("namespace") or self.namespace, manifest["metadata"]["name"]
        request = self._request("create", resource, place, name)
        return self.transport.json(request, resource.path(place), method="POST", query=_write(dry_run), body=manifest)

    def apply(self, manifest: Manifest, manager: str) -> Manifest:
        """Create or change an object by server-side apply, as this field manager; unknown fields are refused.

        Raises:
            Conflict: another manager has set a field to something else.
            ClusterError: any other refusal.
        """
        resource = of_manifest(manifest)
        place, name = manifest["metadata"].get("namespace") or self.namespace, manifest["metadata"]["name"]
        return self.transport.json(
            self._request("patch", resource, place, name),
            resource.path(place, name),
            method="PATCH",
            query=_write(manager=manager),
            body=manifest,
            content_type=APPLY_PATCH,
        )

    def patch(
        self,
        resource: Resource,
        name: str,
        changes: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        namespace: str | None = None,
        part: str | None = None,
        dry_run: bool = False,
    ) -> Manifest:
        """Change some fields of an object and return it.

        Args:
            resource: its kind.
            name: its name.
            changes: a mapping of fields (JSON merge patch: null removes) or a list of operations (JSON patch).
            namespace: None: the default one.
            part: ``status``, or None for all else.
            dry_run: only say what it would be.
        """
        place = self._place(resource, namespace)
        return self.transport.json(
            self._request("patch", resource, place, name, part),
            resource.path(place, name, part),
            method="PATCH",
            query=_write(dry_run),
            body=changes,
            content_type=MERGE_PATCH if isinstance(changes, Mapping) else JSON_PATCH,
        )

    def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        propagation: str = "Background",
        only: Manifest | None = None,
        unchanged: bool = False,
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete an object and what it owns; return False where it was not there.

        Args:
            resource: its kind.
            name: its name.
            namespace: None: the default one.
            propagation: ``Background``, ``Foreground`` (it stays until what it owns is gone) or ``Orphan``.
            only: delete this object, never another that has its name by now.
            unchanged: and only if nobody changed it since.
            grace_seconds: what a pod has to end; None: what its manifest says.

        Raises:
            Conflict: it is not ``only`` any more, or was changed.
            ClusterError: any other refusal.
        """
        place = self._place(resource, namespace)
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if only is not None:
            sure = ("uid", "resourceVersion") if unchanged else ("uid",)
            body["preconditions"] = {key: only["metadata"][key] for key in sure}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        request = self._request("delete", resource, place, name)
        try:
            self.transport.json(request, resource.path(place, name), fits=is_deletion, method="DELETE", body=body)
        except NoSuchKind:
            raise
        except NotFound:
            return False
        return True

    def allowed(self, verb: str, resource: Resource, *, part: str | None = None, namespace: str | None = None) -> bool:
        """Return whether the user may do this, as the API server says."""
        place = self._place(resource, namespace)
        attributes = {
            "verb": verb,
            "group": resource.group,
            "resource": resource.plural,
            **({"subresource": part} if part else {}),
            **({"namespace": place} if place else {}),
        }
        review = {
            "apiVersion": ACCESS_REVIEWS.api_version,
            "kind": ACCESS_REVIEWS.kind,
            "spec": {"resourceAttributes": attributes},
        }
        request = self._request("create", ACCESS_REVIEWS, None)
        path = ACCESS_REVIEWS.path(None)
        answer = self.transport.json(request, path, fits=is_review, method="POST", body=review)
        return bool(answer["status"]["allowed"])


def _write(dry_run: bool = False, manager: str = FIELD_MANAGER) -> Sequence[tuple[str, str]]:
    strict = [("fieldValidation", "Strict"), ("fieldManager", manager)]
    return [*strict, ("dryRun", "All")] if dry_run else strict
