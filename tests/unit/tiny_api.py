"""A few addresses of an API server, on a local port, that can fail as real ones do: cut streams, forgotten versions.

It keeps pods, PyTorchJobs and queues' Workloads of one namespace, watches of them, and logs. What it answers is written
by the tests; the real API server is in tests/cluster.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.client import ApiClient, Configuration

from launcher.cluster import Cluster
from launcher.transport import Transport

NAMESPACE = "team"
_PATHS = {
    f"/api/v1/namespaces/{NAMESPACE}/pods": "Pod",
    f"/apis/kubeflow.org/v1/namespaces/{NAMESPACE}/pytorchjobs": "PyTorchJob",
    f"/api/v1/namespaces/{NAMESPACE}/events": "Event",
    f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{NAMESPACE}/workloads": "Workload",
}


@dataclass
class Log:
    """What one pod has written so far.

    Attributes:
        lines: with their times.
        open: whether more may come.
        cut_after: connections are cut after so many lines, in the middle of the next; one entry for each connection.
    """

    lines: list[str] = field(default_factory=list)
    open: bool = True
    cut_after: list[int] = field(default_factory=list)


class TinyApi:
    """Objects, their history, and the logs of pods."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.version = 100
        self.oldest = 0  # versions before this are forgotten
        self.history: list[tuple[int, str, dict[str, Any]]] = []
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.logs: dict[str, Log] = {}
        self.generation = 0  # of watches; a newer one cuts the older ones
        self.requests: list[str] = []
        self.refused: set[str] = set()  # kinds that may not be listed

    def put(self, thing: dict[str, Any]) -> None:
        """Make or change an object; its kind is in it."""
        key = (thing["kind"], thing["metadata"]["name"])
        old = self.objects.get(key)
        same = old is not None and old["metadata"]["uid"] == thing["metadata"]["uid"]
        self._happen("MODIFIED" if same else "ADDED", thing)
        self.objects[key] = thing

    def remove(self, kind: str, name: str) -> None:
        """Delete an object."""
        self._happen("DELETED", self.objects.pop((kind, name)))

    def write(self, pod: str, *lines: str, end: bool = False) -> None:
        """Let a pod write lines; with ``end`` its last."""
        with self.changed:
            log = self.logs.setdefault(pod, Log())
            log.lines += lines
            log.open = not end
            self.changed.notify_all()

    def cut_watches(self, *, forget: bool = False) -> None:
        """Cut every watch; with ``forget`` no one can go on from a version before now."""
        with self.changed:
            self.generation += 1
            if forget:
                self.oldest = self.version
            self.changed.notify_all()

    def _happen(self, kind: str, thing: dict[str, Any]) -> None:
        with self.changed:
            self.version += 1
            thing["metadata"]["resourceVersion"] = str(self.version)
            self.history.append((self.version, kind, json.loads(json.dumps(thing))))
            self.changed.notify_all()


@contextmanager
def serve(api: TinyApi) -> Iterator[Cluster]:
    """Serve on a free local port; give the launcher's way there."""

    class Handler(_Handler):
        tiny = api

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        yield Cluster(Transport(lambda: ApiClient(Configuration(host=address))), NAMESPACE, "here")
    finally:
        server.shutdown()
        server.server_close()


class _Cut(Exception):
    """The connection is closed without the end of the answer."""


class _Handler(BaseHTTPRequestHandler):
    tiny: TinyApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.tiny.requests.append(self.path)
        try:
            if address.path.endswith("/log") and "log" in self.tiny.refused:
                self._json(403, {"kind": "Status", "code": 403, "message": "may not read log"})
            elif address.path.endswith("/log"):
                self._log(address.path.split("/")[-2], query)
            elif kind := _PATHS.get(address.path):
                if query.get("watch"):
                    self._watch(kind, int(query["resourceVersion"]), int(query["timeoutSeconds"]))
                else:
                    self._list(kind)
            else:
                collection, _, name = address.path.rpartition("/")
                self._get(_PATHS[collection], name)
        except _Cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _list(self, kind: str) -> None:
        if kind in self.tiny.refused:
            self._json(403, {"kind": "Status", "code": 403, "message": f"may not list {kind}"})
            return
        with self.tiny.changed:
            items = [thing for (its, _), thing in self.tiny.objects.items() if its == kind]
            self._json(
                200, {"kind": f"{kind}List", "metadata": {"resourceVersion": str(self.tiny.version)}, "items": items}
            )

    def _get(self, kind: str, name: str) -> None:
        found = self.tiny.objects.get((kind, name))
        missing = {"kind": "Status", "code": 404, "message": "not found", "details": {"name": name, "kind": "pods"}}
        self._json(200 if found else 404, found or missing)

    def _watch(self, kind: str, after: int, seconds: int) -> None:
        tiny = self.tiny
        if after < tiny.oldest:
            self._json(410, {"kind": "Status", "code": 410, "message": "too old resource version"})
            return
        self._start()
        generation, end = tiny.generation, time.monotonic() + seconds
        while time.monotonic() < end:
            with tiny.changed:
                if tiny.generation != generation:
                    raise _Cut
                new = [(version, what, thing) for version, what, thing in tiny.history if version > after]
                if not new:
                    tiny.changed.wait(timeout=0.5)
            for version, what, thing in new:
                after = version
                if thing["kind"] == kind:
                    self._chunk(json.dumps({"type": what, "object": thing}) + "\n")
        self._chunk("")

    def _log(self, pod: str, query: dict[str, str]) -> None:
        log, since = self.tiny.logs.setdefault(pod, Log()), query.get("sinceTime", "")[:19]
        tail = int(query.get("tailLines", "0"))
        left = log.cut_after.pop(0) if log.cut_after else None
        self._start()
        at = max(0, len(log.lines) - tail) if tail else 0
        while True:
            with self.tiny.changed:
                lines, is_open = log.lines[at:], log.open
                if not lines and is_open and query.get("follow"):
                    self.tiny.changed.wait(timeout=0.5)
            for line in lines:
                at += 1
                if line[:19] < since:
                    continue
                if left == 0:
                    self._chunk(line[: len(line) // 2])
                    raise _Cut
                left = None if left is None else left - 1
                text = line if query.get("timestamps") else line.partition(" ")[2]
                self._chunk(f"{text}\n")
            if not lines and not (is_open and query.get("follow")):
                break
        self._chunk("")

    def _start(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        try:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        except OSError as error:
            raise _Cut from error

    def _json(self, code: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
