"""An unreliable way to a real API server: some requests get 429, 500 or 503, or no answer, some streams are cut."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import ssl
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.cluster.cluster import Cluster, write_kubeconfig

_BAD_LUCK = 0.35  # share of requests that meet with something
# The launcher asks five times: a server that is ill for longer is not what is tried here.
_MOST_IN_A_ROW = 3
_CUT_AFTER = 6  # pieces of a stream, at most
_FAULTS = ("429", "500", "503", "no answer", "answer lost", "stream cut")
_DROPPED = {"connection", "transfer-encoding", "content-length", "host", "accept-encoding"}


class Gateway:
    """What the handler of each connection shares.

    Attributes:
        met: how many requests met with each fault.
    """

    def __init__(self, server: str, context: ssl.SSLContext, token: str, plan: random.Random) -> None:
        self.address, self.context, self.token = urlsplit(server), context, token
        self._plan, self._lock, self._in_a_row = plan, threading.Lock(), 0
        self._answered = False
        self.met = dict.fromkeys(_FAULTS, 0)

    def fate(self, method: str, is_stream: bool) -> str | None:
        """Draw what a request meets with."""
        with self._lock:
            # A server that never answered is told at once, so the first request is left alone.
            if not self._answered or self._in_a_row >= _MOST_IN_A_ROW or self._plan.random() > _BAD_LUCK:
                self._answered, self._in_a_row = True, 0
                return None
            self._in_a_row += not is_stream
            possible = [fault for fault in _FAULTS if is_stream or fault != "stream cut"]
            fault = "stream cut" if is_stream and self._plan.random() < 0.5 else self._plan.choice(possible)
            self.met[fault] += 1
            return fault

    def pieces(self) -> int:
        """Draw after how many pieces a stream is cut."""
        with self._lock:
            return self._plan.randint(0, _CUT_AFTER)

    def connect(self) -> http.client.HTTPSConnection:
        """Return a connection to the server."""
        return http.client.HTTPSConnection(
            str(self.address.hostname), self.address.port or 443, context=self.context, timeout=120
        )


@contextlib.contextmanager
def unreliable(cluster: Cluster, plan: random.Random, folder: Path) -> Iterator[tuple[Path, Gateway]]:
    """Give a kubeconfig for one program that leads through a gateway, and the gateway."""
    view = cluster.kubeconfig_content()
    given, user = view["clusters"][0]["cluster"], view["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(given["certificate-authority-data"]).decode())
    gateway = Gateway(given["server"], context, user["token"], plan)

    class Handler(_Handler):
        way = gateway

    server = _Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    view["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{server.server_address[1]}"}
    view["users"][0]["user"] = {}
    path = folder / f"unreliable-{server.server_address[1]}"
    write_kubeconfig(path, view)
    try:
        yield path, gateway
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let those go who hang up: that is what they are driven to."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    way: Gateway
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        is_stream = "watch=true" in self.path or "follow=true" in self.path
        fate = self.way.fate(self.command, is_stream)
        if fate in ("429", "500", "503"):
            self._refuse(int(fate))
            return
        if fate == "no answer":
            self.close_connection = True
            return
        try:
            self._forward(body, fate)
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # the server itself is away, or the client

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on  # noqa: N815 - the names the library calls

    def _forward(self, body: bytes | None, fate: str | None) -> None:
        upstream = self.way.connect()
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _DROPPED}
        upstream.request(self.command, self.path, body, {**headers, "Authorization": f"Bearer {self.way.token}"})
        answer = upstream.getresponse()
        if fate == "answer lost":
            answer.read1()
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _DROPPED:
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        left = self.way.pieces() if fate == "stream cut" else -1
        while piece := answer.read1(65536):
            if left == 0:
                # In the middle of a line, as cuts are.
                self.wfile.write(b"%x\r\n" % len(piece) + piece[: len(piece) // 2])
                self.close_connection = True
                return
            left -= 1
            self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
        upstream.close()

    def _refuse(self, code: int) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "chaos"}
        content = json.dumps(status).encode()
        self.send_response(code)
        if code == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
