"""Reading from an API server: one object, lists in pages, watches without a gap, logs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

from launcher.answers import is_discovery, is_list, is_version
from launcher.changes import Change, Changes, Listing, Manifest, Manifests, lines
from launcher.cluster_errors import Forbidden, Gone, NoSuchKind, NotFound, Request
from launcher.resources import EVENTS, NAMESPACES, PODS, Resource
from launcher.transport import ANSWER_SECONDS, Query, Transport

PAGE = 500  # objects per answer of a list, as kubectl asks for
_LOG_SILENCE_SECONDS = 300.0


class Reader:
    """One API server, and the namespace that is meant where none is given.

    Attributes:
        namespace: the default one of every method.
        transport: what sends the requests.
    """

    def __init__(self, transport: Transport, namespace: str) -> None:
        self.transport, self.namespace = transport, namespace

    @property
    def server(self) -> str:
        """Return the address of the API server."""
        return self.transport.server

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

    def lacks_namespace(self) -> bool:
        """Return whether the default namespace is not there; False where nobody tells this user.

        Raises:
            ClusterError: a refusal other than 403.
        """
        try:
            return self.find(NAMESPACES, self.namespace) is None
        except Forbidden:
            return False

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
                answer = self.transport.json(request, path, query=[*query, *page], fits=is_list)
            except Gone:
                if next_page is None:
                    raise
                items, next_page = [], None  # the server forgot the snapshot of the first page: begin again
                continue
            found = answer.get("items") or []
            items += [{"apiVersion": resource.api_version, "kind": resource.kind, **each} for each in found]
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
        stopped: threading.Event | None = None,
    ) -> Iterator[Change]:
        """Give each change, over cut connections and ended watches, without a gap.

        Args:
            resource: kind of the objects; as are ``selector``, ``fields``, ``namespace`` and ``everywhere``, those
                of ``list``.
            after: the listing to go on from; None: every object that is there is given first, as ADDED.
            until: moment of ``time.monotonic`` at which it ends; None: never.
            stopped: set by another thread, ends it at the next change or cut.
        """
        place = None if everywhere else self._place(resource, namespace)
        request = self._request("watch", resource, place)

        def relist() -> Listing:
            return self.list(resource, selector=selector, fields=fields, namespace=namespace, everywhere=everywhere)

        query = _selectors(selector, fields)
        return iter(Changes(self.transport, request, query, relist, after=after, until=until, stopped=stopped))

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
        limit_bytes: int | None = None,
    ) -> Iterator[bytes]:
        """Give the lines of a container's log.

        Args:
            pod: name of the pod.
            namespace: None: the default one.
            container: None: the only one.
            follow: wait for further lines; silence of some minutes counts as a cut.
            timestamps: put the time before each line.
            tail_lines: only the last so many lines.
            since_s: only of the last so many seconds.
            since_time: only from this time on (RFC 3339).
            limit_bytes: not more than this.

        Raises:
            Cut: the connection was cut before the end of the log.
        """
        given = {
            "container": container,
            "follow": "true" if follow else None,
            "timestamps": "true" if timestamps else None,
            "tailLines": tail_lines,
            "sinceSeconds": None if since_s is None else max(1, round(since_s)),
            "sinceTime": since_time,
            "limitBytes": limit_bytes,
        }
        return self._log(
            pod, namespace or self.namespace, [(key, each) for key, each in given.items() if each is not None], follow
        )

    def _log(self, pod: str, place: str, query: Query, follow: bool) -> Iterator[bytes]:
        response = self.transport.open(
            self._request("get", PODS, place, pod, "log"),
            PODS.path(place, pod, "log"),
            query=query,
            stream=True,
            answer_seconds=_LOG_SILENCE_SECONDS if follow else ANSWER_SECONDS,
            attempts=1,  # a node that does not answer comes as 500; who follows a log asks again anyway
        )
        return lines(response)

    def events(self, name: str, *, kind: str | None = None) -> Manifests:
        """Return what the cluster said lately of one object of the default namespace; nothing where it may not be read.

        Raises:
            ClusterError: any other refusal.
        """
        about = {"involvedObject.kind": kind, "involvedObject.name": name}
        try:
            return self.list(EVENTS, fields=",".join(f"{key}={each}" for key, each in about.items() if each)).items
        except Forbidden:
            return []

    def now(self) -> datetime:
        """Return the present by the API server's clock, which its objects' times are of."""
        return datetime.now(UTC) + self.transport.ahead

    def version(self) -> str:
        """Return the version of the API server, such as ``v1.34.4``."""
        request = self._request("get", Resource("version", "version", namespaced=False), None)
        return str(self.transport.json(request, "/version", fits=is_version)["gitVersion"])

    def knows(self, resource: Resource) -> bool:
        """Return whether the cluster has a kind of a group; any account may ask, unless the cluster is hardened.

        Raises:
            Forbidden: it is.
        """
        request = self._request("get", resource, None)
        path = f"/apis/{resource.group}/{resource.version}"
        try:
            found = self.transport.json(request, path, fits=is_discovery)["resources"]
        except NotFound:
            return False
        return any(each["name"] == resource.plural for each in found)

    def _place(self, resource: Resource, namespace: str | None) -> str | None:
        return (namespace or self.namespace) if resource.namespaced else None

    def _request(
        self, verb: str, resource: Resource, namespace: str | None, name: str | None = None, part: str | None = None
    ) -> Request:
        return Request(verb=verb, resource=resource, namespace=namespace, name=name, part=part, server=self.server)


def _selectors(selector: str, fields: str) -> Query:
    return [(key, text) for key, text in (("labelSelector", selector), ("fieldSelector", fields)) if text]
