"""etcd, API server, controllers and scheduler, each with an identity and rights of its own."""

from __future__ import annotations

import base64
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster, write_kubeconfig
from tests.cluster.parts import program
from tests.cluster.processes import Processes, answers, free_ports
from tests.cluster.toolchain import Tools

LOOPBACK = "127.0.0.1"
SERVICES = "10.96.0.0/16"
# The API server refuses to advertise the loopback; where no pods run nobody calls this documentation address.
_ADVERTISED_NOWHERE = "198.51.100.1"

# Who may log in with a token: name -> user and groups. The roles are Kubernetes' own, but for the operator's and
# CoreDNS', which come with them.
IDENTITIES = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", "system:authenticated"),
    "scheduler": ("system:kube-scheduler", "system:authenticated"),
    "kubelet": ("system:node:node-0", "system:nodes"),
    "coredns": ("system:coredns", "system:authenticated"),
    "kwok": ("kwok", "system:masters"),
    "operator": (
        "system:serviceaccount:kubeflow:training-operator",
        "system:serviceaccounts,system:serviceaccounts:kubeflow",
    ),
}


@dataclass(frozen=True)
class ControlPlane:
    """Where a control plane lives and how its parts are reached.

    Attributes:
        state: its folder: data, keys, kubeconfigs, logs, pids.
        tools: its programs.
        address, port: what the API server listens on; port 0: any that is free.
    """

    state: Path
    tools: Tools
    address: str = LOOPBACK
    port: int = 0

    @property
    def processes(self) -> Processes:
        return Processes(self.state)

    @property
    def keys(self) -> Path:
        return self.state / "keys"

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.kubeconfig("admin"), self.tools["kubectl"], self.state / "volumes")

    def kubeconfig(self, identity: str) -> Path:
        """Return the kubeconfig of one identity; the administrator's is the one people use."""
        return self.state / "kubeconfigs" / identity

    def start_api_server(self) -> None:
        """Start etcd and the API server; returns when it is ready.

        Raises:
            ClusterFailed: a process ended or was not ready in time.
        """
        self.keys.mkdir(parents=True)
        etcd, peer, free = free_ports(3)
        api = self.port or free
        self._start_etcd(etcd, peer)
        self._make_keys()
        tokens = self._write_tokens()
        self._run_api_server(api, etcd)
        self.processes.wait("kube-apiserver", lambda: answers(f"https://{self.address}:{api}/readyz"))
        self._write_kubeconfigs(tokens, api)

    def _start_etcd(self, client: int, peer: int) -> None:
        us, them = f"http://{LOOPBACK}:{client}", f"http://{LOOPBACK}:{peer}"
        command: list[str | Path] = [
            program("etcd"),
            "--data-dir",
            self.state / "etcd",
            "--logger=zap",
            "--log-level=warn",
        ]
        command += [f"--listen-client-urls={us}", f"--advertise-client-urls={us}", f"--listen-peer-urls={them}"]
        command += [f"--initial-advertise-peer-urls={them}", f"--initial-cluster=default={them}"]
        self.processes.start("etcd", command)
        self.processes.wait("etcd", lambda: answers(f"{us}/health"))

    def _make_keys(self) -> None:
        """Make the API server's own key: it signs service account tokens, and shows kubelets who is calling."""
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "3650"]
        command += ["-subj", "/O=system:masters/CN=kube-apiserver"]
        files = ["-keyout", str(self.keys / "api.key"), "-out", str(self.keys / "api.crt")]
        subprocess.run([*command, *files], check=True, capture_output=True)

    def _write_tokens(self) -> dict[str, str]:
        tokens = {name: secrets.token_hex(16) for name in IDENTITIES}
        lines = [f'{tokens[name]},{user},{name},"{groups}"' for name, (user, groups) in IDENTITIES.items()]
        path = self.keys / "tokens.csv"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        return tokens

    def _run_api_server(self, port: int, etcd: int) -> None:
        key = self.keys / "api.key"
        options = {
            "etcd-servers": f"http://{LOOPBACK}:{etcd}",
            "bind-address": self.address,
            "secure-port": port,
            "advertise-address": _ADVERTISED_NOWHERE if self.address == LOOPBACK else self.address,
            "cert-dir": self.keys / "serving",
            "token-auth-file": self.keys / "tokens.csv",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            "service-cluster-ip-range": SERVICES,
            # Debian's etcd 3.4 cannot serve it, and clients that ask for it hang for minutes before they list instead.
            "feature-gates": "WatchList=false",
            "kubelet-client-certificate": self.keys / "api.crt",
            "kubelet-client-key": key,
            # Then `kubectl logs` needs no node name that resolves.
            "kubelet-preferred-address-types": "InternalIP",
        }
        self._run("kube-apiserver", options)

    def start_controllers(self) -> None:
        """Start controller manager and scheduler.

        Custom resources had better be defined before: the garbage collector looks for new ones every half minute
        only, and until then what a deleted job owned stays.
        """
        # Nobody scrapes or balances these, so they listen on no port and elect no leader.
        alone = {"leader-elect": "false", "secure-port": 0}
        manager = {
            "kubeconfig": self.kubeconfig("controller-manager"),
            "service-account-private-key-file": self.keys / "api.key",
            "root-ca-file": self.keys / "serving" / "apiserver.crt",
            "use-service-account-credentials": "true",
            # Else it is made in the system's folders.
            "flex-volume-plugin-dir": self.state / "volume-plugins",
            # A claim is often bound only by the next round, and a round is 15 s by default.
            "pvclaimbinder-sync-period": "500ms",
            # Hundreds of jobs at once are a test, and no other client suffers here.
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        }
        self._run("kube-controller-manager", {**manager, **alone})
        self._run("kube-scheduler", {"kubeconfig": self.kubeconfig("scheduler"), **alone})

    def _run(self, name: str, options: dict[str, Any]) -> None:
        self.processes.start(name, [self.tools[name], *(f"--{option}={value}" for option, value in options.items())])

    def _write_kubeconfigs(self, tokens: dict[str, str], port: int) -> None:
        # Its own certificate, made at its start, which also vouches for itself.
        authority = base64.b64encode((self.keys / "serving" / "apiserver.crt").read_bytes()).decode()
        server = {"server": f"https://{self.address}:{port}", "certificate-authority-data": authority}
        for name, token in tokens.items():
            content = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "mtft-test", "cluster": server}],
                "users": [{"name": name, "user": {"token": token}}],
                "contexts": [{"name": "mtft-test", "context": {"cluster": "mtft-test", "user": name}}],
                "current-context": "mtft-test",
            }
            write_kubeconfig(self.kubeconfig(name), content)
