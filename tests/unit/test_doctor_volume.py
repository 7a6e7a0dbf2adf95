"""What the doctor says of the volume and of DNS, from what a pod that mounts it really answers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import remote_files
from launcher.changes import Listing
from launcher.cluster import Cluster
from launcher.cluster_errors import ClusterError, Forbidden
from launcher.doctor_volume import Inside, check_access, check_dns, check_space
from launcher.pytorchjob import render
from launcher.resources import PODS, Resource
from launcher.transfer_pod import transfer_pod
from mtft.errors import MtftError
from tests.unit.tiny_exec import TinyExec, serve

GIB = 2**30


@pytest.fixture
def volume(tmp_path: Path) -> TinyExec:
    return TinyExec(tmp_path)


@pytest.fixture
def cluster(volume: TinyExec) -> Iterator[Cluster]:
    with serve(volume) as cluster:
        yield cluster


def template(root: Path, claim: str = "mtft") -> dict[str, Any]:
    """Return a job's pod template that mounts the claim at a folder of this machine."""
    document = {"data": {"train": "x.jsonl"}, "cluster": {"image": "example.org/mtft:1.0", "claim": claim}}
    job = render(document, "opus_mt_en_fr")[-1]
    found: dict[str, Any] = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    for mount in found["spec"]["containers"][0]["volumeMounts"]:
        if mount["name"] == "storage":
            mount["mountPath"] = str(root)
    return found


def let_run(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, *specs: dict[str, Any]) -> None:
    """Let these pods be all that run."""

    def listed(resource: Resource, **_: str) -> Listing:
        assert resource is PODS
        return Listing([{"metadata": {"name": f"pod-{n}"}, "spec": spec} for n, spec in enumerate(specs)], "1")

    monkeypatch.setattr(cluster, "list", listed)


def test_a_running_pod_with_the_volume_is_asked(
    volume: TinyExec, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = template(volume.root)
    let_run(monkeypatch, cluster, template(volume.root, "elsewhere")["spec"], mine["spec"])
    said = Inside(cluster, mine, probe=False).said
    assert isinstance(said, dict) and said["total"] == shutil.disk_usage(volume.root).total
    assert volume.commands == [["look", str(volume.root)]]
    assert check_space(said).message.endswith("GiB are free")
    # There is no cluster around this machine's Python.
    assert not said["dns"] and check_dns(cluster, 2, Inside(cluster, mine, probe=False)).verdict == "fail"
    assert check_dns(cluster, 1, Inside(cluster, mine, probe=False)).verdict == "ok"


def test_without_a_pod_nothing_is_started(volume: TinyExec, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    let_run(monkeypatch, cluster, template(volume.root, "elsewhere")["spec"])
    inside = Inside(cluster, template(volume.root), probe=False)
    assert inside.said is None and not volume.commands
    assert "--probe" in check_space(inside.said).message


def test_where_jobs_may_not_write_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Users of the tests may write everywhere: which folders are open is given; real pods are in tests/e2e."""
    root = tmp_path / "data"  # its own name says nothing
    root.mkdir()

    def said(*closed: Path) -> dict[str, Any]:
        monkeypatch.setattr(remote_files, "is_open", lambda folder: folder not in closed)
        remote_files.look(str(root))
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    assert check_access(said()).verdict == "ok"
    top = check_access(said(root))
    assert top.verdict == "fail" and f"may not write in {root}, as user {os.getuid()}, groups 0" in top.message
    assert "let group 0 read and write" in str(top.fix)
    (root / "data").mkdir()
    assert check_access(said(root / "data")).verdict == "warn", "jobs only read them"
    both = check_access(said(root / "data", root))
    assert both.verdict == "fail" and f"in {root}/data and {root}, as" in both.message
    monkeypatch.setattr(remote_files, "is_read_only", lambda _: True)
    sealed = check_access(said(root))
    assert sealed.verdict == "fail" and "read-only" in sealed.message and "group 0" not in str(sealed.fix)
    for unseen in (None, Forbidden("ann may not create pods/exec"), ClusterError("pod p cannot start")):
        assert check_access(unseen).verdict == "skip"


def test_a_pod_that_only_reads_the_volume_is_not_asked(
    volume: TinyExec, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = template(volume.root)
    let_run(monkeypatch, cluster, transfer_pod(mine, read_only=True)["spec"])
    assert Inside(cluster, mine, probe=False).said is None


def test_a_pod_on_a_silent_node_is_not_asked(
    volume: TinyExec, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = template(volume.root)
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}],
    }
    silent = {"metadata": {"name": "p"}, "spec": mine["spec"], "status": status}
    monkeypatch.setattr(cluster, "list", lambda *_, **__: Listing([silent], "1"))
    assert Inside(cluster, mine, probe=False).said is None and not volume.commands


def test_a_pod_of_another_user_is_not_asked(
    volume: TinyExec, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, spec = template(volume.root), template(volume.root)["spec"]
    other = {**spec, "securityContext": {**(spec.get("securityContext") or {}), "runAsUser": 4321}}
    let_run(monkeypatch, cluster, other)
    assert Inside(cluster, mine, probe=False).said is None
    injected = {"metadata": {"name": "p", "annotations": {"openshift.io/scc": "restricted-v2"}}, "spec": other}
    monkeypatch.setattr(cluster, "list", lambda *_, **__: Listing([injected], "1"))
    assert isinstance(Inside(cluster, mine, probe=False).said, dict)


@pytest.mark.parametrize(
    ("said", "verdict", "words"),
    [
        ({"free": 50 * GIB, "total": 200 * GIB}, "ok", "50.0 of 200.0 GiB"),
        ({"free": 5 * GIB, "total": 200 * GIB}, "warn", "5.0 of 200.0 GiB"),
        ({"free": GIB // 2, "total": 200 * GIB}, "fail", "0.5 of 200.0 GiB"),
        ({"free": 5 << 20, "total": 30 << 20}, "fail", "5.0 of 30.0 MiB are free"),
        (Forbidden("ann may not create pods/exec\na rule of a Role"), "skip", "ann may not create pods/exec"),
        (ClusterError("pod p cannot start: the image cannot be pulled"), "fail", "the image cannot be pulled"),
    ],
)
def test_space(said: dict[str, Any] | MtftError, verdict: str, words: str) -> None:
    finding = check_space(said)
    assert finding.verdict == verdict and words in finding.message
    assert (finding.fix is not None) == (verdict in ("warn", "fail"))
