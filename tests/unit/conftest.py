"""Jobs and pods of a cluster in memory, for who watches and follows them, and a server that answers as it is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.cluster import Cluster
    from launcher.transfer import Remote
    from tests.unit.api_server import Server
    from tests.unit.tiny_api import TinyApi
    from tests.unit.tiny_exec import TinyExec


@pytest.fixture
def api() -> TinyApi:
    from tests.unit.tiny_api import TinyApi  # with the client's library, which few tests need

    return TinyApi()


@pytest.fixture
def cluster(api: TinyApi) -> Iterator[Cluster]:
    from tests.unit.tiny_api import serve

    with serve(api) as cluster:
        yield cluster


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Give a server that answers what it is told, and make its kubeconfig the user's."""
    from launcher import changes
    from tests.unit.api_server import serving

    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig))
        monkeypatch.setattr(changes, "_PAUSE", 0.0)
        yield running


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyExec:
    """Give a pod that runs programs here, with an empty volume."""
    from launcher import transfer
    from tests.unit.tiny_exec import TinyExec

    monkeypatch.setattr(transfer, "_PAUSE", 0.01)
    volume = tmp_path / "volume"
    volume.mkdir()
    return TinyExec(volume)


@pytest.fixture
def remote(pod: TinyExec) -> Iterator[Remote]:
    """Give the launcher's way to the volume of that pod."""
    from launcher.transfer import Remote
    from tests.unit.tiny_exec import serve

    with serve(pod) as cluster:
        yield Remote(cluster, "mtft-transfer-1", "team")


@pytest.fixture
def pauses() -> list[float]:
    """Give the pauses that a cluster of the server made between its tries."""
    return []
