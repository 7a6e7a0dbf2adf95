"""A pod's exec address on a local port: the program runs here, its streams go over a websocket that can be cut."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from kubernetes.client import ApiClient, Configuration

from launcher.cluster import Cluster
from launcher.transport import Transport

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
_BINARY, _CLOSE = 2, 8


class TinyExec:
    """Runs what it is asked to, with the volume at ``root``.

    Attributes:
        cut_in: bytes after which connections are cut on their way to the pod; one entry for each connection.
        cut_out: the same on the way back.
        addresses: what was asked for, as it came.
        commands: the same without the program.
        fed: bytes that reached the programs, besides themselves.
        refusals: (HTTP status, body) instead of a program; one entry for each connection.
        logins: credentials that came, one entry for each connection.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cut_in: list[int] = []
        self.cut_out: list[int] = []
        self.addresses: list[str] = []
        self.commands: list[list[str]] = []
        self.fed = 0
        self.refusals: list[tuple[int, bytes]] = []
        self.logins: list[str] = []

    def talk(self, connection: socket.socket) -> None:
        """Answer one connection."""
        with connection, suppress(OSError, _Cut):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            lines = head.decode().split("\r\n")
            given = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            self.logins.append(given.get("authorization", ""))
            if self.refusals:
                code, body = self.refusals.pop(0)
                connection.sendall(f"HTTP/1.1 {code} No\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                return
            key = given["sec-websocket-key"]
            accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Protocol: v4.channel.k8s.io\r\nSec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
            )
            self.addresses.append(lines[0].split(" ")[1])
            self._run(connection, parse_qs(urlsplit(self.addresses[-1]).query)["command"])

    def _run(self, connection: socket.socket, command: list[str]) -> None:
        frames = _frames(connection)
        told = next(frames)[1][1:]  # the program and its arguments
        self.commands.append(json.loads(told)["arguments"])
        program = subprocess.Popen(
            [sys.executable, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.root,
        )
        assert program.stdin and program.stdout and program.stderr
        program.stdin.write(told)
        program.stdin.flush()
        out = _Budget(self.cut_out.pop(0) if self.cut_out else None, connection)
        threads = [
            threading.Thread(target=_carry, args=(program.stdout, 1, out), daemon=True),
            threading.Thread(target=_carry, args=(program.stderr, 2, out), daemon=True),
            threading.Thread(
                target=self._feed,
                args=(connection, frames, program, self.cut_in.pop(0) if self.cut_in else None),
                daemon=True,
            ),
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads[:2]:
                thread.join()
            code = program.wait()
            cause = {"status": "Failure", "message": f"command terminated with exit code {code}"}
            out.send(3, json.dumps({"status": "Success"} if code == 0 else cause).encode())
            connection.sendall(bytes([0x80 | _CLOSE, 0]))
        finally:
            program.kill()
            program.wait()

    def _feed(
        self,
        connection: socket.socket,
        frames: Iterator[tuple[int, bytes]],
        program: subprocess.Popen[bytes],
        left: int | None,
    ) -> None:
        assert program.stdin
        with suppress(OSError, _Cut):
            for code, data in frames:
                if code == _CLOSE:
                    break
                piece = data[1:] if left is None else data[1 : 1 + left]
                program.stdin.write(piece)
                program.stdin.flush()
                self.fed += len(piece)
                left = None if left is None else left - len(piece)
                if left == 0:
                    connection.shutdown(socket.SHUT_RDWR)
                    break
        with suppress(OSError):
            program.stdin.close()


class _Cut(Exception):
    """The connection is gone."""


class _Budget:
    """Sends frames until so many bytes have gone."""

    def __init__(self, left: int | None, connection: socket.socket) -> None:
        self._left, self._connection, self._lock = left, connection, threading.Lock()

    def send(self, channel: int, data: bytes) -> None:
        with self._lock:
            if self._left is not None:
                data = data[: self._left]
                self._left -= len(data)
            body = bytes([channel]) + data
            head = bytes([0x80 | _BINARY, 126]) + struct.pack(">H", len(body))
            self._connection.sendall(head + body)
            if self._left == 0:
                self._connection.shutdown(socket.SHUT_RDWR)
                raise _Cut


def _carry(stream: object, channel: int, out: _Budget) -> None:
    with suppress(OSError, _Cut):
        while data := stream.read1(16_384):  # type: ignore[attr-defined]
            out.send(channel, data)


def _frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    def read(count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = connection.recv(count - len(data))
            if not piece:
                raise _Cut
            data += piece
        return data

    while True:
        first, second = read(2)
        size = second & 0x7F
        if size == 126:
            [size] = struct.unpack(">H", read(2))
        elif size == 127:
            [size] = struct.unpack(">Q", read(8))
        mask, data = read(4), read(size)
        whole = int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        yield first & 0x0F, whole.to_bytes(size, "big")


@contextmanager
def serve(tiny: TinyExec) -> Iterator[Cluster]:
    """Serve on a free local port; give the launcher's way there."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=tiny.talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield Cluster(Transport(lambda: ApiClient(Configuration(host=address))), "team", "here")
    finally:
        listener.close()
