"""One cluster for all tests of a session that ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launcher
from tests.cluster.levels import for_tests, start_control_plane, start_full
from tests.cluster.parts import MissingPart
from tests.conftest import require


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """Give a cluster whose pods are created and bound to nodes, but do not run; tests work in namespaces of their own.

    It is the one of ``MTFT_TEST_KUBECONFIG`` when that is set.
    """
    try:
        with for_tests(start_control_plane) as cluster:
            yield cluster
    except MissingPart as error:
        require("cluster", str(error))


@pytest.fixture(scope="session")
def idle_nodes(control_plane: Cluster) -> None:
    """Ask for the nodes of our own control plane, which run nothing: a cluster that is given may have others."""
    names = {node["metadata"]["name"] for node in control_plane.get("nodes")}
    if "gpu-0" not in names:
        reason = (
            "needs nodes that run no pods: MTFT_TEST_KUBECONFIG of `python -m tests.cluster up --level control-plane`"
        )
        require("cluster", reason)


@pytest.fixture(scope="session")
def full_cluster() -> Iterator[Cluster]:
    """Give a cluster whose pods run in containers of this machine, or the one of ``MTFT_TEST_KUBECONFIG``."""
    try:
        with for_tests(start_full) as cluster:
            yield cluster
    except MissingPart as error:
        require("cluster", str(error))


@pytest.fixture
def launcher(
    control_plane: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Launcher:
    """Run verbs as an administrator in a namespace of the test's own."""
    return Launcher(control_plane.kubeconfig, control_plane.namespace("verbs"), tmp_path, capsys, monkeypatch)
