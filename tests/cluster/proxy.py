"""A way to the API server that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.cluster import Cluster, write_kubeconfig


class Proxy:
    """Passes bytes on between a local port and a server.

    Attributes:
        port: the local one.
        passed: connections taken so far.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.passed = 0
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut every connection that is open now."""
        with self._lock:
            cut, self._open = self._open, []
        for each in cut:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        """Stop listening and cut what is open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                with self._lock:
                    self.passed += 1
                    self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=(source, target), daemon=True).start()


@contextlib.contextmanager
def cuttable(cluster: Cluster, folder: Path) -> Iterator[tuple[Path, Proxy]]:
    """Give a kubeconfig that leads through a proxy, and the proxy."""
    view = cluster.kubeconfig_content()
    server = urlsplit(view["clusters"][0]["cluster"]["server"])
    proxy = Proxy(str(server.hostname), server.port or 443)
    view["clusters"][0]["cluster"] |= {
        "server": f"https://127.0.0.1:{proxy.port}",
        "tls-server-name": str(server.hostname),
    }
    path = folder / "through-the-proxy"
    write_kubeconfig(path, view)
    try:
        yield path, proxy
    finally:
        proxy.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
