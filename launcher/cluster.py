"""A cluster as mtft uses it: objects in and out as plain dictionaries, every refusal a ``ClusterError``.

The official client connects, logs in and sends; its typed models are left out, because they drop fields they do not
know and cost a second to build for many jobs. The TrainingClient of kubeflow-training reads our jobs but cannot send
them as we do: it has no dry run, no patch, no label selector and no watch. ``training_client`` gives it to scripts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher.changes import Change, Changes, Listing, Manifest, Manifests, lines
from launcher.cluster_errors import ClusterError, Gone, NoSuchKind, NotFound, Request
from launcher.connection import Connection, open_connection
from launcher.resources import ACCESS_REVIEWS, PODS, Resource, of_manifest
from launcher.transport import ANSWER_SECONDS, Query, Transport

if TYPE_CHECKING:
    from kubeflow.training import TrainingClient
    from kubernetes.client import ApiClient

__all__ = ["Change", "Cluster", "ClusterError", "Listing", "Manifest", "Manifests", "connect"]

PAGE = 500  # objects per answer of a list, as kubectl asks for
FIELD_MANAGER = "mtft-launch"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_LOG_SILENCE_SECONDS = 300.0


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


class Cluster:
    """One API server, and the namespace that is meant where none is given.

    Attributes:
        namespace: the default one of every method.
        context: name of the kubeconfig's context.
        transport: what sends the requests.
    """

    def __init__(self, transport: Transport, namespace: str, context: str) -> None:
        self.transport, self.namespace, self.context = transport, namespace, context

    @property
    def client(self) -> ApiClient:
        """Return the official client, for what only it can do, such as exec."""
        return self.transport.client

    def training_client(self) -> TrainingClient:
        """Return the official client of the training operator over this connection, for scripts that know it."""
        from kubeflow.training import TrainingClient

        return TrainingClient(client_configuration=self.client.configuration, namespace=self.namespace)

    @property
    def server(self) -> str:
        """Return the address of the API server."""
        return self.transport.server

    @property
    def calls(self) -> int:
        """Return the number of requests sent so far."""
        return self.transport.calls

    def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest:
        """Return one object.

        Raises:
            NotFound: it is not there.
            ClusterError: any other refusal.
        """
        place = self._place(resource, namespace)
        request = self._request("get", resource, place, name)
        return self.transport.json(request, resource.path(place, name))

    def find(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest | None:
        """Return one object, None where it is not there.

        Raises:
            ClusterError: a refusal, or a cluster that does not know the kind.
        """
        try:
            return self.get(resource, name, namespace=namespace)
        except NoSuchKind:
            raise
        except NotFound:
            return None

    def list(
        self,
        resource: Resource,
        *,
        selector: str = "",
        fields: str = "",
        namespace: str | None = None,
        everywhere: bool = False,
    ) -> Listing:
        """Return the objects that fit, in pages the caller does not see, and the version a watch goes on from.

        Args:
            resource: their kind.
            selector: label selector, such as ``app.kubernetes.io/part-of=mtft``.
            fields: field selector, such as ``status.phase=Running``.
            namespace: None: the default one.
            everywhere: in all namespaces.
        """
        place = None if everywhere else self._place(resource, namespace)
        request = self._request("list", resource, place)
        path, query = resource.path(place), _selectors(selector, fields)
        items: Manifests = []
        next_page: str | None = None
        while True:
            page = [("limit", PAGE), *([("continue", next_page)] if next_page else [])]
            try:
                answer = self.transport.json(request, path, query=[*query, *page])
            except Gone:
                if next_page is None:
                    raise
                items, next_page = [], None  # the server forgot the snapshot of the first page: begin again
                continue
            items += [{"apiVersion": resource.api_version, "kind": resource.kind, **each} for each in answer["items"]]
            next_page = answer["metadata"].get("continue")
            if not next_page:
                return Listing(items, answer["metadata"]["resourceVersion"])

    def watch(
        self,
        resource: Resource,
        *,
        selector: str = "",
        fields: str = "",
        namespace: str | None = None,
        everywhere: bool = False,
        after: Listing | None = None,
        until: float | None = None,
    ) -> Iterator[Change]:
        """Give each change, over cut connections and ended watches, without a gap.

        Args:
            resource: kind of the objects; as are ``selector``, ``fields``, ``namespace`` and ``everywhere``, those
                of ``list``.
            after: the listing to go on from; None: every object that is there is given first, as ADDED.
            until: moment of ``time.monotonic`` at which it ends; None: never.
        """
        place = None if everywhere else self._place(resource, namespace)
        request = self._request("watch", resource, place)

        def relist() -> Listing:
            return self.list(resource, selector=selector, fields=fields, namespace=namespace, everywhere=everywhere)

        return iter(Changes(self.transport, request, _selectors(selector, fields), relist, after=after, until=until))

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
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete an object and what it owns; return False where it was not there.

        Args:
            resource: its kind.
            name: its name.
            namespace: None: the default one.
            propagation: ``Background``, ``Foreground`` (it stays until what it owns is gone) or ``Orphan``.
            only: delete it only if it is still exactly this object, unchanged.
            grace_seconds: what a pod has to end; None: what its manifest says.

        Raises:
            Conflict: it is not ``only`` any more.
            ClusterError: any other refusal.
        """
        place = self._place(resource, namespace)
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if only is not None:
            meta = only["metadata"]
            body["preconditions"] = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        request = self._request("delete", resource, place, name)
        try:
            self.transport.json(request, resource.path(place, name), method="DELETE", body=body)
        except NoSuchKind:
            raise
        except NotFound:
            return False
        return True

    def log(
        self,
        pod: str,
        *,
        namespace: str | None = None,
        container: str | None = None,
        follow: bool = False,
        timestamps: bool = False,
        tail_lines: int | None = None,
        since_s: float | None = None,
        since_time: str | None = None,
        previous: bool = False,
        limit_bytes: int | None = None,
    ) -> Iterator[bytes]:
        """Give the lines of a container's log; a cut connection ends them just as the end of the log does.

        Args:
            pod: name of the pod.
            namespace: None: the default one.
            container: None: the only one.
            follow: wait for further lines; silence of some minutes counts as a cut.
            timestamps: put the time before each line.
            tail_lines: only the last so many lines.
            since_s: only of the last so many seconds.
            since_time: only from this time on (RFC 3339).
            previous: of the container's run before this one.
            limit_bytes: not more than this.
        """
        place = namespace or self.namespace
        given = {
            "container": container,
            "follow": "true" if follow else None,
            "timestamps": "true" if timestamps else None,
            "tailLines": tail_lines,
            "sinceSeconds": None if since_s is None else max(1, round(since_s)),
            "sinceTime": since_time,
            "previous": "true" if previous else None,
            "limitBytes": limit_bytes,
        }
        response = self.transport.open(
            self._request("get", PODS, place, pod, "log"),
            PODS.path(place, pod, "log"),
            query=[(key, value) for key, value in given.items() if value is not None],
            stream=True,
            answer_seconds=_LOG_SILENCE_SECONDS if follow else ANSWER_SECONDS,
            attempts=1,  # a node that does not answer comes as 500; who follows a log asks again anyway
        )
        return lines(response)

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
        answer = self.transport.json(request, ACCESS_REVIEWS.path(None), method="POST", body=review)
        return bool(answer["status"]["allowed"])

    def version(self) -> str:
        """Return the version of the API server, such as ``v1.34.4``."""
        request = self._request("get", Resource("version", "version", namespaced=False), None)
        return str(self.transport.json(request, "/version")["gitVersion"])

    def _place(self, resource: Resource, namespace: str | None) -> str | None:
        return (namespace or self.namespace) if resource.namespaced else None

    def _request(
        self, verb: str, resource: Resource, namespace: str | None, name: str | None = None, part: str | None = None
    ) -> Request:
        return Request(verb=verb, resource=resource, namespace=namespace, name=name, part=part, server=self.server)


def _selectors(selector: str, fields: str) -> Query:
    return [(key, text) for key, text in (("labelSelector", selector), ("fieldSelector", fields)) if text]


def _write(dry_run: bool) -> Sequence[tuple[str, str]]:
    strict = [("fieldValidation", "Strict"), ("fieldManager", FIELD_MANAGER)]
    return [*strict, ("dryRun", "All")] if dry_run else strict
