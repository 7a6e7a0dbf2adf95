"""Every refusal of a real API server, in words; and reading as others read: pages, watches, the official SDK."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from launcher import changes, cluster_errors, connection, reading
from launcher.cluster import connect
from launcher.resources import CONFIG_MAPS, JOBS, PODS, Resource
from tests.cluster.cluster import Cluster
from tests.cluster.launching import DOCUMENT, Launcher, end_pod, until_state
from tests.cluster.playing import eventually
from tests.cluster.test_control_plane import job, replica
from tests.conftest import CHECKOUT


@pytest.fixture
def namespace(control_plane: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))
    return control_plane.namespace("access")


def config_map(name: str, namespace: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": {"test": "yes"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def changed(kubeconfig: Path, to: Path, *, cluster: Any = None, user: Any = None) -> Path:
    """Write a copy of a kubeconfig with another cluster or user in it."""
    view = yaml.safe_load(kubeconfig.read_text())
    for part, new in ((view["clusters"][0]["cluster"], cluster), (view["users"][0]["user"], user)):
        if new is not None:
            kept = {"server": part["server"]} if "server" in part else {}
            part.clear()
            part.update({**kept, **new})
    to.write_text(json.dumps(view))
    return to


def test_wrong_credentials(
    control_plane: Cluster,
    namespace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = changed(control_plane.kubeconfig, tmp_path / "config", user={"token": "not-a-token"})
    launcher = Launcher(wrong, namespace, tmp_path, capsys, monkeypatch)
    assert launcher("run", document=DOCUMENT) == 3
    assert "does not accept the credentials" in launcher.err and "kubectl auth whoami" in launcher.err


def test_server_whose_certificate_is_not_trusted(
    control_plane: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(changed(control_plane.kubeconfig, tmp_path / "config", cluster={})))
    with pytest.raises(cluster_errors.NoConnection, match=r"the secure connection failed.*CERTIFICATE_VERIFY_FAILED"):
        connect(None, namespace).list(JOBS)


def test_server_whose_certificate_has_other_names(
    control_plane: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = json.loads(control_plane.kubectl("config", "view", "--minify", "--flatten", "-o", "json"))["clusters"][0]
    other = {**view["cluster"], "tls-server-name": "elsewhere.example"}
    monkeypatch.setenv("KUBECONFIG", str(changed(control_plane.kubeconfig, tmp_path / "config", cluster=other)))
    with pytest.raises(cluster_errors.NoConnection, match=r"secure connection failed.*--tls-server-name=NAME"):
        connect(None, namespace).list(JOBS)


def test_every_rule_a_refusal_names_is_one_that_helps(
    control_plane: Cluster,
    namespace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules: list[dict[str, list[str]]] = []
    shown = re.compile(r'apiGroups: \["(.*)"\]\n +resources: \["(.*)"\]\n +verbs: \["(.*)"\]')
    for _ in range(8):
        user = control_plane.user(namespace, rules)
        launcher = Launcher(user, namespace, tmp_path, capsys, monkeypatch)
        if (code := launcher("run", document=DOCUMENT)) == 0 and "apiGroups" not in launcher.err:
            break
        assert code in (0, 3)
        found = shown.search(launcher.err)
        assert found, launcher.err
        new = {"apiGroups": [found[1]], "resources": [found[2]], "verbs": [found[3]]}
        assert new not in rules
        rules.append(new)
    asked = {(rule["verbs"][0], rule["resources"][0]) for rule in rules}
    assert asked == {
        ("get", "pytorchjobs"),
        ("create", "configmaps"),
        ("create", "pytorchjobs"),
        ("get", "configmaps"),
        ("patch", "configmaps"),
    }


def test_role_of_the_manifests_is_enough(
    control_plane: Cluster,
    namespace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    documents = yaml.safe_load_all((CHECKOUT / "manifests" / "base" / "users.yaml").read_text())
    (role,) = [each for each in documents if each["kind"] == "Role"]
    launcher = Launcher(control_plane.user(namespace, role["rules"]), namespace, tmp_path, capsys, monkeypatch)
    for arguments in (
        ["validate", "--server"],
        ["run", "--job", "mine"],
        ["run", "--job", "mine"],
        ["diff", "mine"],
    ):
        assert launcher(*arguments, document=DOCUMENT) == 0, launcher.err
    end_pod_of(control_plane, namespace, "mine")
    for arguments in (
        ["retry", "mine"],
        ["suspend", "mine"],
        ["resume", "mine"],
        ["cancel", "mine"],
        ["delete", "mine", "--yes"],
    ):
        assert launcher(*arguments) == 0, launcher.err
        assert "note" not in launcher.err and "may not" not in launcher.out
    batch = {key: value for key, value in DOCUMENT.items() if key != "model"}
    assert launcher("batch", "--models", "opus_mt_en_fr", document=batch) == 0
    assert launcher("list", "-A") == 3
    assert "rule of a ClusterRole" in launcher.err and "without -A" in launcher.err


def end_pod_of(control_plane: Cluster, namespace: str, name: str) -> None:
    """Let a job fail; that takes an administrator, who stands in for the kubelet here."""
    own = os.environ["KUBECONFIG"]
    os.environ["KUBECONFIG"] = str(control_plane.kubeconfig)
    try:
        cluster = connect(None, namespace)
    finally:
        os.environ["KUBECONFIG"] = own
    eventually(lambda: cluster.find(PODS, f"{name}-master-0"))
    end_pod(cluster, f"{name}-master-0", 2)
    until_state(cluster, name, "Failed", eventually)


def test_pod_without_kubeconfig_takes_its_service_account(
    control_plane: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import incluster_config

    view = yaml.safe_load(control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    if "certificate-authority-data" in view:
        authority = base64.b64decode(view["certificate-authority-data"])
    else:
        authority = Path(view["certificate-authority"]).read_bytes()
    token = control_plane.kubectl("create", "token", "default", "-n", namespace).strip()
    for name, content in (("token", token.encode()), ("ca.crt", authority), ("namespace", namespace.encode())):
        (tmp_path / name).write_bytes(content)
    address = urlsplit(view["server"])
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(connection, "_POD_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port or 443))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    cluster = connect()
    assert (cluster.context, cluster.namespace) == ("in-cluster", namespace)
    with pytest.raises(cluster_errors.Forbidden, match=f"system:serviceaccount:{namespace}:default may not list"):
        cluster.list(JOBS)
    with pytest.raises(cluster_errors.NoConnection, match="this pod has no kubeconfig"):
        connect("work")


def test_namespace_that_is_not_there(namespace: str) -> None:
    with pytest.raises(cluster_errors.NotFound, match=r"no namespace nowhere; .*kubectl create namespace nowhere"):
        connect(None, "nowhere").create(config_map("a", "nowhere"))


def test_kind_that_is_not_there(namespace: str) -> None:
    unknown = Resource("Widget", "widgets", "kubeflow.org", "v9")
    with pytest.raises(cluster_errors.NoSuchKind, match=r"does not know Widget .*install the training operator"):
        connect(None, namespace).find(unknown, "a")
    with pytest.raises(cluster_errors.NoSuchKind):
        connect(None, namespace).list(unknown)


def test_object_that_is_there_already(namespace: str) -> None:
    cluster = connect(None, namespace)
    cluster.create(config_map("a", namespace))
    with pytest.raises(cluster_errors.Conflict, match=f"create configmaps a in namespace {namespace}"):
        cluster.create(config_map("a", namespace))


def test_fields_that_are_wrong_are_named(namespace: str) -> None:
    cluster = connect(None, namespace)
    wrong = job(namespace, "wrong", Master=replica(1))
    wrong["spec"]["runPolicy"] = {"cleanPodPolicy": 3, "suspend": "perhaps"}
    with pytest.raises(cluster_errors.Invalid) as caught:
        cluster.create(wrong, dry_run=True)
    assert "spec.runPolicy.cleanPodPolicy: " in str(caught.value)
    assert "spec.runPolicy.suspend: " in str(caught.value)
    unknown = job(namespace, "unknown", Master=replica(1))
    unknown["spec"]["runPolicy"] = {"cleanPodPolcy": "All"}
    with pytest.raises(cluster_errors.Invalid, match=r'unknown field "spec\.runPolicy\.cleanPodPolcy"'):
        cluster.create(unknown, dry_run=True)
    with pytest.raises(cluster_errors.ClusterError, match="container with name pytorch"):
        cluster.create(job(namespace, "odd", Master=replica(1, container="main")), dry_run=True)
    assert cluster.list(JOBS).items == []


def test_lists_come_whole_from_several_pages(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 2)
    cluster = connect(None, namespace)
    for index in range(5):
        cluster.create(config_map(f"m{index}", namespace))
    before = cluster.calls
    found = cluster.list(CONFIG_MAPS, selector="test=yes")
    assert sorted(each["metadata"]["name"] for each in found.items) == [f"m{index}" for index in range(5)]
    assert cluster.calls - before == 3
    assert all(each["kind"] == "ConfigMap" for each in found.items)


def test_watch_tells_everything_over_ended_watches(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_WATCH_SECONDS", 1)
    monkeypatch.setattr(changes, "_PAUSE", 0.0)
    cluster = connect(None, namespace)
    cluster.create(config_map("a", namespace))
    watch = cluster.watch(CONFIG_MAPS, selector="test=yes", until=time.monotonic() + 60)
    seen = [next(watch)]
    for round_ in range(3):
        # Later than one watch lasts, so each change comes in another one.
        deadline = time.monotonic() + 1.1
        while time.monotonic() < deadline:
            time.sleep(0.1)
        cluster.patch(CONFIG_MAPS, "a", {"data": {"round": str(round_)}})
        seen.append(next(watch))
    cluster.delete(CONFIG_MAPS, "a")
    seen.append(next(watch))
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]
    assert [each["data"]["round"] for _, each in seen[1:4]] == ["0", "1", "2"]


def test_deleting_only_what_is_meant(namespace: str) -> None:
    cluster = connect(None, namespace)
    first = cluster.create(config_map("a", namespace))
    cluster.patch(CONFIG_MAPS, "a", {"data": {"changed": "yes"}})
    with pytest.raises(cluster_errors.Conflict):
        cluster.delete(CONFIG_MAPS, "a", only=first, unchanged=True)
    assert cluster.delete(CONFIG_MAPS, "a", only=first)
    assert not cluster.delete(CONFIG_MAPS, "a")
    cluster.create(config_map("a", namespace))
    with pytest.raises(cluster_errors.Conflict):
        cluster.delete(CONFIG_MAPS, "a", only=first)


def test_rights_are_asked_of_the_server(
    control_plane: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    monkeypatch.setenv("KUBECONFIG", str(control_plane.user(namespace, [rule])))
    cluster = connect()
    assert cluster.namespace == namespace
    assert cluster.allowed("list", PODS)
    assert not cluster.allowed("get", PODS, part="log")
    assert not cluster.allowed("list", JOBS)
    assert cluster.version().startswith("v1.")


def test_official_client_lists_and_reads_our_jobs(
    control_plane: Cluster,
    namespace: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher = Launcher(control_plane.kubeconfig, namespace, tmp_path, capsys, monkeypatch)
    name = launcher.json("run", document=DOCUMENT)["name"]
    client = launcher.cluster.training_client()
    (listed,) = client.list_jobs()
    assert listed.metadata.name == name
    assert listed.metadata.labels["mtft/model"] == "m2m100_418m"
    assert listed.spec.pytorch_replica_specs["Master"].restart_policy == "ExitCode"
    assert client.get_job(name).spec.nproc_per_node == "1"
