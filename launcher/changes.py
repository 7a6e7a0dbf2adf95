"""Watching objects without a gap: over cut connections, ended watches and a server that forgot where we were."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.cluster_errors import Busy, ClusterError, Cut, Gone, NoConnection, Request, from_status

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from launcher.transport import Query, Transport

Manifest = dict[str, Any]
Manifests = list[Manifest]
Change = tuple[str, Manifest]
"""``ADDED``, ``MODIFIED`` or ``DELETED``, and the object as it is, or last was."""

_NO_CHANGES = "{}: the server did not answer with changes; is it an API server?"


class Listing(NamedTuple):
    """Objects as they were together at one moment, and the version of that moment."""

    items: Manifests
    version: str


_WATCH_SECONDS = 300  # the server ends a watch after this; the next one goes on where it ended
# Bookmarks come about once a minute, so a connection that is silent for longer may be dead without saying so.
_SILENCE_SECONDS = 90.0
_PAUSE = 1.0  # seconds between two watches, so a proxy that cuts every one is not flooded
_MOST_CUTS = 60  # in a row, with nothing heard in between


class Changes:
    """One watch over the objects of a kind, without a gap.

    Where the server has forgotten the version to go on from, the present objects are given again, as MODIFIED or ADDED,
    and those that vanished as DELETED.
    """

    def __init__(
        self,
        transport: Transport,
        request: Request,
        query: Query,
        relist: Callable[[], Listing],
        *,
        after: Listing | None,
        until: float | None,
        stopped: threading.Event | None = None,
    ) -> None:
        self._transport, self._request, self._query = transport, request, query
        self._relist, self._until, self._stopped = relist, until, stopped or threading.Event()
        self._known = {item["metadata"]["uid"]: item for item in after.items} if after else {}
        self._version = after.version if after else None
        self._begun = after is not None

    def __iter__(self) -> Iterator[Change]:
        """Give the changes until the time is over.

        Raises:
            ClusterError: the server refuses the watch, or cannot be reached for several minutes.
        """
        cuts = 0
        while self._left() > 0:
            try:
                if self._version is None:
                    yield from self._again()
                for change in self._watch():
                    cuts = 0
                    yield change
                cuts = 0  # the server was reached, though nothing may have changed
            except Gone:
                self._version = None
            except (NoConnection, Busy):
                cuts += 1
                if cuts > _MOST_CUTS or not self._begun:
                    raise
            self._stopped.wait(min(_PAUSE, max(0.0, self._left())))

    def _left(self) -> float:
        if self._stopped.is_set():
            return 0.0
        return _WATCH_SECONDS if self._until is None else self._until - time.monotonic()

    def _again(self) -> list[Change]:
        items, self._version = self._relist()
        self._begun = True
        before, self._known = self._known, {item["metadata"]["uid"]: item for item in items}
        gone = [("DELETED", item) for uid, item in before.items() if uid not in self._known]
        return gone + [("MODIFIED" if uid in before else "ADDED", item) for uid, item in self._known.items()]

    def _watch(self) -> Iterator[Change]:
        seconds = max(1, min(_WATCH_SECONDS, round(self._left())))
        query = [
            *self._query,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", seconds),
        ]
        response = self._transport.open(
            self._request,
            self._request.resource.path(self._request.namespace),
            query=query,
            stream=True,
            # The server keeps its own time; this ends a silent connection, or one the server does not end.
            answer_seconds=min(_SILENCE_SECONDS, seconds + 5.0),
        )
        with suppress(Cut):  # the next watch goes on; silence is no fault where nothing changes
            for line in lines(response):
                try:
                    event = json.loads(line)
                except ValueError as error:
                    if not line.startswith(b"{"):
                        raise ClusterError(_NO_CHANGES.format(self._request)) from error
                    return  # cut within a line; the next watch gets it whole
                if change := self._read(event):
                    yield change

    def _read(self, event: Manifest) -> Change | None:
        try:
            kind, thing = event["type"], event["object"]
            if kind == "ERROR":
                raise from_status(int(thing.get("code") or 500), thing, str(thing), self._request)
            self._version = thing["metadata"]["resourceVersion"]
            if kind == "BOOKMARK":
                return None
            uid = thing["metadata"]["uid"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ClusterError(_NO_CHANGES.format(self._request)) from error
        if kind == "DELETED":
            self._known.pop(uid, None)
        else:
            self._known[uid] = thing
        return kind, thing


def lines(response: BaseHTTPResponse) -> Iterator[bytes]:
    """Give the complete lines of a stream as they come.

    Raises:
        Cut: it was cut; the half line at the cut is dropped.
    """
    from urllib3.exceptions import HTTPError

    rest = b""
    try:
        for chunk in response.stream(2**16, decode_content=True):
            *complete, rest = (rest + chunk).split(b"\n")
            yield from complete
        if rest:
            yield rest
    except HTTPError as error:
        raise Cut(f"the connection to the API server was cut: {error}") from error
    finally:
        response.close()
