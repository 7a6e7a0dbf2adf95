"""The pod of a transfer on a real API server: accepted where jobs are, and gone afterwards whatever happens."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli import main
from launcher.cluster import connect
from launcher.cluster_errors import ClusterError, Forbidden, NotFound
from launcher.pytorchjob import render
from launcher.resources import CLAIMS, JOBS, PODS
from launcher.transfer import Remote
from launcher.transfer_pod import running, transfer_pod
from tests.cluster.cluster import Cluster
from tests.cluster.playing import DOCUMENT, MODEL


@pytest.fixture
def pod() -> dict[str, Any]:
    job = render({**DOCUMENT, "model": MODEL}, MODEL)[-1]
    return transfer_pod(job["spec"]["pytorchReplicaSpecs"]["Master"]["template"], read_only=False)


@pytest.mark.usefixtures("idle_nodes")
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


def test_a_connection_that_is_not_allowed_names_the_rule(
    control_plane: Cluster, pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = control_plane.namespace("no-exec")
    user = control_plane.user(namespace, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "create"]}])
    monkeypatch.setenv("KUBECONFIG", str(user))
    cluster = connect(None, namespace)
    cluster.create(pod)
    with pytest.raises(Forbidden, match=r'may not get pods/exec in namespace (.|\n)*resources: \["pods/exec"\]'):
        Remote(cluster, pod["metadata"]["name"], namespace).ask("look", "/")
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    with pytest.raises(
        NotFound, match=r"pod gone in namespace no-exec.* is gone: it was deleted or evicted, or it ended"
    ):
        Remote(connect(None, namespace), "gone", namespace).ask("look", "/")


def test_a_claim_that_is_missing_is_told_at_once(
    control_plane: Cluster, pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    namespace = control_plane.namespace("no-claim")
    pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = "none"
    cluster = connect(None, namespace)
    with (
        pytest.raises(ClusterError, match=rf"no claim none in namespace {namespace}; make it: "),
        running(cluster, pod),
    ):
        pytest.fail("its claim is missing")
    assert cluster.find(PODS, pod["metadata"]["name"]) is None
    nowhere = connect(None, "nowhere")
    with pytest.raises(NotFound, match=r"no namespace nowhere; .*create namespace nowhere"), running(nowhere, pod):
        pytest.fail("its namespace is missing")


def test_the_command_that_makes_the_claim_makes_it(
    control_plane: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    monkeypatch.chdir(tmp_path)
    namespace = control_plane.namespace("new-claim")
    assert main(["doctor", "-n", namespace, "--set", "cluster.claim=shared", "-o", "json"]) == 1
    found = {each["layer"]: each for each in json.loads(capsys.readouterr().out)}
    given = re.search(r"mtft-launch (.+) \| kubectl apply -f -;", found["volume claim"]["fix"])
    assert given is not None
    assert main(shlex.split(given[1].replace("CLASS", "any"))) == 0
    (made,) = yaml.safe_load_all(capsys.readouterr().out)
    control_plane.apply(made)
    cluster = connect(None, namespace)
    assert cluster.get(CLAIMS, "shared")["spec"]["accessModes"] == ["ReadWriteMany"]
    assert cluster.list(JOBS).items == []
