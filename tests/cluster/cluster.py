"""A running cluster as tests see it: kubeconfig, kubectl, fresh namespaces, users with few rights."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.parts import MissingPart

_SECONDS = 120  # for one kubectl command
_WRITABLE_BY_GROUP = 0o2775


class KubectlFailed(Exception):
    """kubectl refused; the text is what it wrote to standard error."""


@dataclass
class Cluster:
    """A cluster and an administrator's way into it.

    Attributes:
        kubeconfig: the administrator's.
        client: the kubectl program.
        volumes: folder of this machine below which the claims of ``namespace`` lie; None on somebody's cluster, where
            claims come from its storage class (``MTFT_TEST_STORAGE_CLASS``, else its default one).
        importer: takes an image archive into the node's store; None where no pods run.
        templates: starts the operator again with or without our init container; None where it is not ours to start.
        api_server: kills the API server and starts it again so many seconds later; None where it is not ours.
        shutdown: ends the cluster; None for one that was there before and stays.
    """

    kubeconfig: Path
    client: Path
    volumes: Path | None = None
    importer: Callable[[Path, str], None] | None = field(default=None, repr=False)
    templates: Callable[[bool], None] | None = field(default=None, repr=False)
    api_server: Callable[[float], None] | None = field(default=None, repr=False)
    shutdown: Callable[[], None] | None = field(default=None, repr=False)
    _made: list[str] = field(default_factory=list, repr=False)

    def kubectl(self, *arguments: str | Path, text: str | None = None) -> str:
        """Run kubectl as administrator and return what it printed; ``text`` is its standard input.

        Raises:
            KubectlFailed: it exited with another code than 0.
        """
        done = subprocess.run(
            [self.client, "--kubeconfig", self.kubeconfig, *arguments],
            input=text,
            env={**os.environ, "GOGC": "off"},  # it lives too short to collect garbage
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise KubectlFailed(done.stderr.strip())
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return what ``kubectl get ... -o json`` says: one object, or the items of a list."""
        found = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found["items"] if found["kind"] == "List" else found

    def kubeconfig_content(self) -> dict[str, Any]:
        """Return the administrator's kubeconfig with all its credentials in it, to be changed and written elsewhere."""
        found: dict[str, Any] = json.loads(
            self.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
        )
        return found

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create or change objects on the server's side.

        Raises:
            KubectlFailed: the server refused one.
        """
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=json.dumps(document))

    def namespace(self, prefix: str, restricted: bool = False) -> str:
        """Make a fresh namespace with a ReadWriteMany claim ``mtft``; return its name.

        Args:
            prefix: what its name starts with.
            restricted: whether it enforces the Pod Security level ``restricted``.
        """
        name = f"{prefix}-{secrets.token_hex(3)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        self.apply(namespace, *self._claim(name))
        self._made.append(name)
        self._wait(name, "create", "serviceaccount/default")  # pods are refused before it is there
        if self.volumes:
            self._wait(name, "jsonpath={.status.phase}=Bound", "persistentvolumeclaim/mtft")
        return name

    def offer_volume(self, namespace: str) -> None:
        """Make the volume that a claim ``mtft`` in this namespace will be bound to, of a cluster of ours."""
        if self.volumes is not None:
            self.apply(_volume(self.volumes / namespace, namespace, {"storage": "200Gi"}))

    def user(self, namespace: str, rules: Sequence[Mapping[str, Sequence[str]]]) -> Path:
        """Make a service account with these rules of a Role in one namespace; return a kubeconfig with its token."""
        name = f"user-{secrets.token_hex(3)}"
        here = {"name": name, "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        self.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
            {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": here, "rules": [dict(rule) for rule in rules]},
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": here,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", **here}],
            },
        )
        token = self.kubectl("create", "token", name, "--namespace", namespace, "--duration", "12h").strip()
        view = self.kubeconfig_content()
        view["users"] = [{"name": name, "user": {"token": token}}]
        view["contexts"][0]["context"].update(user=name, namespace=namespace)
        path = self.kubeconfig.with_name(f"{self.kubeconfig.name}.{name}")
        write_kubeconfig(path, view)
        return path

    def import_image(self, archive: Path, name: str) -> None:
        """Let pods use the image of an OCI archive under its name and tag; what is there already is left.

        Raises:
            MissingPart: the cluster was given, or runs no pods.
            ClusterFailed: the archive holds no image of that name, or cannot be read.
        """
        if self.importer is None:
            raise MissingPart(f"this cluster takes no images from here; load {name} into it yourself: {archive}")
        self.importer(archive, name)

    def init_template(self, used: bool) -> None:
        """Start the operator again with the init container of manifests/operator, or with the one it has built in.

        Raises:
            MissingPart: the operator of this cluster is not ours to start.
        """
        if self.templates is None:
            raise MissingPart("the operator of a given cluster is not started again by tests")
        self.templates(used)

    def stop(self) -> None:
        """End the cluster; from one that stays, remove the namespaces made here."""
        if self.shutdown:
            self.shutdown()
        elif self._made:
            self.kubectl("delete", "namespace", "--wait=false", "--ignore-not-found", *self._made)

    def _wait(self, namespace: str, condition: str, thing: str) -> None:
        self.kubectl("wait", f"--for={condition}", thing, "--namespace", namespace, "--timeout=60s")

    def _claim(self, namespace: str) -> list[dict[str, Any]]:
        """Return the claim ``mtft`` and, in a cluster of ours, the volume it is bound to beforehand."""
        size = {"storage": "10Gi"}
        claim: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "mtft", "namespace": namespace},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": size}},
        }
        if self.volumes is None:
            if storage_class := os.environ.get("MTFT_TEST_STORAGE_CLASS"):
                claim["spec"]["storageClassName"] = storage_class
            return [claim]
        claim["spec"].update(storageClassName="", volumeName=f"{namespace}-mtft")
        return [_volume(self.volumes / namespace, namespace, size), claim]


def _volume(folder: Path, namespace: str, size: Mapping[str, str]) -> dict[str, Any]:
    """Make a folder of this machine and return the volume it is, for the claim ``mtft`` of a namespace."""
    folder.mkdir(parents=True)
    # Any user of group 0 may write, as on the shared file systems that give a claim to a group.
    folder.chmod(_WRITABLE_BY_GROUP)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-mtft"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": dict(size),
            "claimRef": {"namespace": namespace, "name": "mtft"},
            "hostPath": {"path": str(folder)},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
        },
    }


def write_kubeconfig(path: Path, content: Mapping[str, Any]) -> None:
    """Write a kubeconfig (JSON is YAML) that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=2) + "\n")
