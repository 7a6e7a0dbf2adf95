"""manifests/: what it sets up applies to a real API server, and its Roles allow what they should and no more."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster, KubectlFailed
from tests.cluster.playing import eventually
from tests.cluster.training_operator import waiting_container

MANIFESTS = Path(__file__).parents[2] / "manifests"
USER = ("--as=zoe", "--as-group=mtft-users", "--as-group=system:authenticated")


def overlay(folder: Path, namespace: str, components: list[str]) -> Path:
    """Write an overlay as the README shows one, without the claim's class."""
    near = Path(os.path.relpath(MANIFESTS, folder))
    text: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [str(near / "base")],
        "components": [str(near / "components" / name) for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def namespace(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the namespace that manifests/base sets up, under another name."""
    name = f"base-{secrets.token_hex(3)}"
    folder = overlay(tmp_path_factory.mktemp("overlay"), name, ["egress"])
    control_plane.kubectl("apply", "-k", folder)
    try:
        again = control_plane.kubectl("apply", "-k", folder).splitlines()
        assert again
        assert all(line.endswith(" unchanged") for line in again), again
        yield name
    finally:
        control_plane.kubectl("delete", "namespace", name, "--wait=false")


def allowed(cluster: Cluster, namespace: str, who: tuple[str, ...], verb: str, resource: str) -> bool:
    try:
        return cluster.kubectl("auth", "can-i", *who, verb, *resource.split(), "-n", namespace).strip() == "yes"
    except KubectlFailed:
        return False  # "no" comes with exit code 1


def may_get(cluster: Cluster, *what: str) -> bool:
    try:
        cluster.kubectl("get", *what, *USER)
    except KubectlFailed as refused:
        assert "orbidden" in str(refused)
        return False
    return True


def test_the_namespace_enforces_restricted(control_plane: Cluster, namespace: str) -> None:
    labels = control_plane.get("namespace", namespace)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    claim = control_plane.get("persistentvolumeclaim", "mtft", "-n", namespace)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize(
    ("verb", "resource", "user", "launcher"),
    [
        ("create", "pytorchjobs.kubeflow.org", True, True),
        ("patch", "pytorchjobs.kubeflow.org", True, True),
        ("delete", "pytorchjobs.kubeflow.org", True, False),
        ("create", "configmaps", True, True),
        ("update", "configmaps", True, False),
        ("get", "pods --subresource=log", True, True),
        ("create", "pods --subresource=exec", True, False),
        ("create", "pods", True, False),
        ("get", "secrets", False, False),
        ("create", "roles.rbac.authorization.k8s.io", False, False),
        ("delete", "persistentvolumeclaims", False, False),
    ],
)
def test_roles(control_plane: Cluster, namespace: str, verb: str, resource: str, user: bool, launcher: bool) -> None:
    account = (f"--as=system:serviceaccount:{namespace}:mtft-launcher",)
    assert allowed(control_plane, namespace, USER, verb, resource) is user
    assert allowed(control_plane, namespace, account, verb, resource) is launcher


def test_roles_end_at_the_namespace(control_plane: Cluster, namespace: str) -> None:
    assert namespace != "default"
    assert not allowed(control_plane, "default", USER, "create", "pytorchjobs.kubeflow.org")


def test_network_policies_choose_our_pods_alone(control_plane: Cluster, namespace: str) -> None:
    policies = control_plane.get("networkpolicies", "-n", namespace)
    assert {policy["metadata"]["name"] for policy in policies} == {"mtft", "mtft-launcher", "mtft-egress"}
    for policy in policies:
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/part-of"] == "mtft"


def test_what_is_cluster_wide_applies(control_plane: Cluster, tmp_path: Path) -> None:
    both = overlay(tmp_path, "elsewhere", ["egress", "nodes"])
    rendered = yaml.safe_load_all(control_plane.kubectl("kustomize", both))
    wide = [each for each in rendered if each["kind"].startswith("Cluster")]
    assert len(wide) == 2
    text = yaml.safe_dump_all(wide)
    operator = ("deployments", "--all-namespaces", "--field-selector", "metadata.name=training-operator")
    lists = (("nodes",), ("pods", "--all-namespaces"), operator)
    assert not any(may_get(control_plane, *what) for what in lists)
    control_plane.kubectl("apply", "-f", "-", text=text)
    try:
        for what in lists:
            eventually(partial(may_get, control_plane, *what))
        assert may_get(control_plane, "namespace", "kube-system")
        assert allowed(control_plane, "kube-system", USER, "get", "services/kube-dns")
        assert not allowed(control_plane, "kube-system", USER, "get", "services/other")
        assert not may_get(control_plane, "deployments", "--all-namespaces")
        assert not may_get(control_plane, "secrets", "--all-namespaces")
    finally:
        control_plane.kubectl("delete", "-f", "-", text=text)


class TestOperator:
    """The init container the operator is given: real Pod Security, with the template's fields filled in."""

    def init_containers(self) -> list[dict[str, Any]]:
        text = waiting_container().replace("{{.InitContainerImage}}", "alpine:3.10")
        containers: list[dict[str, Any]] = yaml.safe_load(
            text.replace("{{.MaxTries}}", "100").replace("{{.MasterAddr}}", "job-master-0")
        )
        return containers

    def test_is_taken_where_restricted_is_enforced(self, control_plane: Cluster, namespace: str) -> None:
        containers = self.init_containers()
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "worker", "namespace": namespace},
            "spec": {"initContainers": containers, "containers": [{**containers[0], "name": "pytorch"}]},
        }
        control_plane.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=yaml.safe_dump(pod))

    def test_goes_when_it_is_asked_to(self) -> None:
        """As PID 1 nothing but a trap of its own ends it, which the exit code tells from the signal's own death."""
        [container] = self.init_containers()
        waiting = subprocess.Popen(container["command"], stdout=subprocess.PIPE, text=True, env={"PATH": os.defpath})
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "waiting for job-master-0\n"
        waiting.terminate()
        assert waiting.wait(60) == 143
        waiting.stdout.close()

    def test_no_field_of_the_template_is_left(self) -> None:
        assert "{{" not in str(self.init_containers())

    def test_the_mount_fits_the_place_the_operator_reads(self) -> None:
        patch = yaml.safe_load((MANIFESTS / "operator" / "mount.yaml").read_text())["spec"]["template"]["spec"]
        assert patch["containers"][0]["volumeMounts"][0]["mountPath"] == "/etc/config"
        assert patch["volumes"][0]["configMap"]["name"] == "mtft-init-container"
