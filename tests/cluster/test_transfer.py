"""The pod of a transfer on a real API server: accepted where jobs are, and gone afterwards whatever happens."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.cluster import connect
from launcher.cluster_errors import ClusterError
from launcher.pytorchjob import render
from launcher.resources import PODS
from launcher.transfer_pod import running, transfer_pod
from tests.cluster.cluster import Cluster
from tests.cluster.playing import DOCUMENT, MODEL


@pytest.fixture
def pod() -> dict[str, Any]:
    job = render({**DOCUMENT, "model": MODEL}, MODEL)[-1]
    return transfer_pod(job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"], read_only=False)


def test_a_restricted_namespace_takes_it_and_it_is_deleted(
    control_plane: Cluster, pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    cluster = connect(None, control_plane.namespace("strict", restricted=True))
    # Nothing runs pods here: it never starts, which is told with the reason.
    with pytest.raises(ClusterError, match="did not start within 2 s: its node is pulling"), running(cluster, pod, 2):
        pytest.fail("it cannot run here")
    assert cluster.find(PODS, pod["metadata"]["name"]) is None


def test_it_is_deleted_when_a_person_gives_up(
    control_plane: Cluster, pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    cluster = connect(None, control_plane.namespace("given-up"))

    def give_up(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("launcher.transfer_pod._await", give_up)
    with pytest.raises(KeyboardInterrupt), running(cluster, pod):
        pytest.fail("it was interrupted before")
    assert cluster.find(PODS, pod["metadata"]["name"]) is None
