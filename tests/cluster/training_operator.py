"""The Kubeflow training operator beside the control plane, with its own manifests: CRD, roles, validating webhook.

Its pod is missing, so what a pod would give it is given by hand: a token of its service account, certificates in its
Secret and in a folder, and a Service that leads to this machine.
"""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.cluster import Cluster, KubectlFailed
from tests.cluster.control_plane import LOOPBACK, ControlPlane
from tests.cluster.processes import answers, free_ports
from tests.conftest import CHECKOUT

NAMESPACE = "kubeflow"
_SERVICE = "training-operator"
_SECRET = "training-operator-webhook-cert"
_WEBHOOKS = "validator.training-operator.kubeflow.org"
_AUTHORITY = "training-operator-ca"
# The webhook server looks below TMPDIR, which is ours; the certificate rotator only looks whether there is something
# at the path a pod mounts them at. Both are fixed in the operator.
_CERTIFICATES = Path("k8s-webhook-server", "serving-certs")
_FOLDER = "operator"  # of the state
_MOUNTED = Path("/tmp", _CERTIFICATES, "tls.crt")


def waiting_container() -> str:
    """Return the template of the container that makes a worker wait for its master, as manifests/ gives it."""
    given = CHECKOUT / "manifests" / "operator" / "init-container.yaml"
    return str(yaml.safe_load(given.read_text(encoding="utf-8"))["data"]["initContainer.yaml"])


def install_operator(plane: ControlPlane, init_image: str) -> None:
    """Create what the operator needs in the cluster: its CRD, roles, webhook and Secret; no controller has to run yet.

    Args:
        plane: a control plane whose API server is ready.
        init_image: image of the container that waits for the master.

    Raises:
        ClusterFailed: the API server does not serve PyTorchJobs in time.
    """
    folder = plane.state / _FOLDER
    _make_certificates(folder / _CERTIFICATES)
    (port,) = free_ports(1)
    (folder / "options.json").write_text(json.dumps({"port": port, "image": init_image}))
    (folder / "init-container.yaml").write_text(waiting_container())
    _install(plane, port)


def start_operator(plane: ControlPlane, template: bool) -> None:
    """Start the installed operator, or start it again; returns when its webhook answers and its controllers run.

    Args:
        plane: a control plane with the operator installed.
        template: whether the waiting container is that of manifests/, else it is as the operator has it built in.

    Raises:
        ClusterFailed: it ended or was not ready in time.
    """
    plane.processes.stop("training-operator")
    folder = plane.state / _FOLDER
    options = json.loads((folder / "options.json").read_text())
    (probe,) = free_ports(1)
    _MOUNTED.parent.mkdir(parents=True, exist_ok=True)
    _MOUNTED.touch()
    command: list[str | Path] = [plane.tools["training-operator"], "--enable-scheme=pytorchjob"]
    command += [f"--webhook-server-port={options['port']}", "--metrics-bind-address=0"]
    command += [f"--health-probe-bind-address={LOOPBACK}:{probe}", f"--kubeconfig={plane.kubeconfig('operator')}"]
    command.append(f"--pytorch-init-container-image={options['image']}")
    if template:
        command.append(f"--pytorch-init-container-template-file={folder / 'init-container.yaml'}")
    plane.processes.start("training-operator", command, {"TMPDIR": str(folder)})
    plane.processes.wait("training-operator", lambda: answers(f"http://{LOOPBACK}:{probe}/readyz"))


def _make_certificates(folder: Path) -> None:
    """Make the authority and server certificate that the operator's rotator would make, so that it keeps them."""
    folder.mkdir(parents=True)

    def certificate(name: str, subject: str, alternative: str, *options: str) -> None:
        key = str(folder / f"{name}.key")
        # The rotator reads no other form of key than this old one.
        _openssl("genrsa", "-traditional", "-out", key, "2048")
        common = ["-days", "3650", "-subj", subject, "-addext", f"subjectAltName=DNS:{alternative}"]
        _openssl("req", "-x509", "-key", key, "-out", str(folder / f"{name}.crt"), *common, *options)

    certificate("ca", f"/O=training-operator/CN={_AUTHORITY}", _AUTHORITY)
    host = f"{_SERVICE}.{NAMESPACE}.svc"
    authority = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")]
    server = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
    certificate("tls", f"/CN={host}", host, *authority, *server)


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _install(plane: ControlPlane, port: int) -> None:
    certificates = plane.state / _FOLDER / _CERTIFICATES
    manifests = plane.tools.operator_manifests
    here = {"namespace": NAMESPACE}
    data = {path.name: base64.b64encode(path.read_bytes()).decode() for path in certificates.iterdir()}
    plane.cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": _SECRET, **here}, "data": data},
        # The API server follows such a Service to any host, so no address of a pod is needed.
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": _SERVICE, **here},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        *_roles(manifests / "rbac"),
        _webhooks(manifests / "webhook" / "manifests.yaml", port),
    )
    # As a file: reading its 600 kB in Python alone would take seconds.
    crd = manifests / "crds" / "kubeflow.org_pytorchjobs.yaml"
    plane.cluster.kubectl("apply", "--server-side", "-f", crd)
    plane.processes.wait("kube-apiserver", lambda: _jobs_are_served(plane.cluster))


def _jobs_are_served(cluster: Cluster) -> bool:
    """Whether the API server knows PyTorchJobs; `kubectl wait` fails on a definition that has no conditions yet."""
    try:
        cluster.kubectl("get", "pytorchjobs", "--all-namespaces")
    except KubectlFailed:
        return False
    return True


def _roles(folder: Path) -> list[dict[str, Any]]:
    objects = [found for path in sorted(folder.glob("*.yaml")) for found in yaml.safe_load_all(path.read_text())]
    for found in objects:
        if found["kind"] == "ServiceAccount":
            found["metadata"]["namespace"] = NAMESPACE
        for subject in found.get("subjects", []):
            subject["namespace"] = NAMESPACE
    return [found for found in objects if found["kind"] in ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")]


def _webhooks(path: Path, port: int) -> dict[str, Any]:
    """Return the operator's webhook configuration for PyTorchJobs, with the names its kustomization gives it."""
    configuration: dict[str, Any] = yaml.safe_load(path.read_text())
    configuration["metadata"]["name"] = _WEBHOOKS
    of_jobs = [hook for hook in configuration["webhooks"] if hook["rules"][0]["resources"] == ["pytorchjobs"]]
    for hook in of_jobs:
        hook["clientConfig"]["service"].update(name=_SERVICE, namespace=NAMESPACE, port=port)
    configuration["webhooks"] = of_jobs
    return configuration
