"""A local HTTP server in the place of an API server, for what a real one does not do on demand.

It stands at the transport's edge: status codes, headers, cut connections. Everything else is tested on a real cluster.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from launcher import resources
from launcher.resources import NAMESPACES, Resource

# Namespaces last: every address of a namespace's objects has them too.
_RESOURCES = sorted(
    (each for each in vars(resources).values() if isinstance(each, Resource)), key=lambda each: each is NAMESPACES
)


@dataclass
class Answer:
    """One answer.

    Attributes:
        status: HTTP status; 0: there is none, the connection is closed.
        body: JSON value, or bytes as they are.
        headers: further headers.
        chunks: instead of a body, pieces of a stream.
        cut: whether the connection is closed in the middle of it.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Sequence[bytes] | None = None
    cut: bool = False


@dataclass
class Asked:
    """One request as it came; names of headers in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class Server:
    """A running server: it gives its answers one after the other, and keeps what it was asked."""

    url: str
    kubeconfig: Path
    answers: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


def status(code: int, reason: str, message: str, **details: Any) -> Answer:
    """Return an answer as Kubernetes refuses."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason}
    return Answer(code, {**body, "details": details, "code": code})


def listing(items: Sequence[Mapping[str, Any]], version: str, next_page: str | None = None) -> Answer:
    """Return one page of a list."""
    metadata = {"resourceVersion": version, **({"continue": next_page} if next_page else {})}
    return Answer(body={"metadata": metadata, "items": list(items)})


def events(*given: tuple[str, Mapping[str, Any]], cut: bool = False, tail: bytes = b"") -> Answer:
    """Return a watch stream of these events; ``tail`` follows them as it is."""
    lines = [json.dumps({"type": kind, "object": thing}).encode() + b"\n" for kind, thing in given]
    return Answer(chunks=[*lines, *([tail] if tail else [])], cut=cut)


def thing(name: str, version: str, **more: Any) -> dict[str, Any]:
    """Return a small object."""
    return {"metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}", "resourceVersion": version}, **more}


@contextmanager
def serving(folder: Path, fallback: Callable[[Asked], Answer] | None = None) -> Iterator[Server]:
    """Run a server until the block ends; without an answer left it takes the fallback's, else refuses with 418."""
    state = Server("", folder / "kubeconfig")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            asked = Asked(
                self.command, parts.path, query, {key.lower(): value for key, value in self.headers.items()}, body
            )
            state.asked.append(asked)
            found = state.answers.pop(0) if state.answers else (fallback(asked) if fallback else Answer(418, {}))
            if found.status in (200, 201) and isinstance(found.body, dict):
                found = replace(found, body={**_implied(asked, found.body), **found.body})
            if found.status == 0:
                self.close_connection = True
                return
            (self.send_response_only if "Date" in found.headers else self.send_response)(found.status)
            for key, value in found.headers.items():
                self.send_header(key, value)
            if found.chunks is None:
                content = found.body if isinstance(found.body, bytes) else json.dumps(found.body).encode()
                self.send_header("Content-Length", str(len(content) + (10 if found.cut else 0)))
                self.end_headers()
                self.wfile.write(content)
            else:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for chunk in found.chunks:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                if not found.cut:
                    self.wfile.write(b"0\r\n\r\n")
            if found.cut:
                self.close_connection = True

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = answer  # noqa: N815 - the names the library calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    write_kubeconfig(state.kubeconfig, state.url)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _implied(asked: Asked, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every answer of an address has, where a test does not say it."""
    found = [each for each in _RESOURCES if each.plural in asked.path.split("/")]
    if not found:
        return {"kind": "APIResourceList"}
    if "items" in body:
        return {"kind": f"{found[0].kind}List"}
    name = asked.path.split(f"/{found[0].plural}")[1].split("/")[1:2] or [
        (asked.body or {}).get("metadata", {}).get("name")
    ]
    return {"kind": found[0].kind, "metadata": {"name": name[0]}}


def write_kubeconfig(path: Path, url: str, **cluster: Any) -> None:
    """Write a kubeconfig with the contexts ``work`` (current, namespace ``team``) and ``home``."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "one", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "me", "user": {"token": "not-a-secret"}}],
        "contexts": [
            {"name": "work", "context": {"cluster": "one", "user": "me", "namespace": "team"}},
            {"name": "home", "context": {"cluster": "one", "user": "me"}},
        ],
        "current-context": "work",
    }
    path.write_text(json.dumps(document))
