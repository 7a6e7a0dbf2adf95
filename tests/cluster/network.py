"""The pods' network: one bridge, addresses from it, a name server on its gateway, and the API server's service address.

Headless services need no more than names, so there is no kube-proxy: of all cluster addresses only the API server's
is answered.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.cluster.control_plane import ControlPlane
from tests.cluster.parts import program

NAME = "mtft"
BRIDGE = "mtft0"
GATEWAY = "10.244.77.1"
_SUBNET = "10.244.77.0/24"
API_PORT = 6443
_API_SERVICE = "10.96.0.1"
_TO_API = ["-i", BRIDGE, "-d", _API_SERVICE, "-p", "tcp", "--dport", "443"]
_RULES = (
    ["nat", "PREROUTING", *_TO_API, "-j", "DNAT", "--to-destination", f"{GATEWAY}:{API_PORT}"],
    # Where a container engine makes the kernel filter bridges, its policy may be to drop.
    ["filter", "FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"],
)
_COREFILE = f"""\
cluster.local {{
    bind {GATEWAY}
    errors
    kubernetes cluster.local {{
        kubeconfig KUBECONFIG
        ttl 1
    }}
}}
. {{
    bind {GATEWAY}
    errors
    # Nothing outside can be reached: say at once that a name is not there.
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def start_bridge() -> None:
    """Make the bridge with its gateway address, on which the API server and the name server listen."""
    _run("ip", "link", "add", BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{GATEWAY}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def write_network_configuration(folder: Path) -> None:
    """Tell containerd's network plugins to connect pods to the bridge."""
    folder.mkdir(parents=True)
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": _SUBNET}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(folder.parent / "addresses"),
        },
    }
    configuration = {"cniVersion": "0.4.0", "name": NAME, "plugins": [bridge]}
    (folder / "10-mtft.conflist").write_text(json.dumps(configuration, indent=2))


def route_api_service() -> None:
    """Lead the service address of the API server, which pods know, to the gateway; let pods talk to each other."""
    for rule in _RULES:
        _run("iptables", "--wait", "-t", rule[0], "-I", *rule[1:])


def start_name_server(plane: ControlPlane) -> None:
    """Start CoreDNS on the gateway; pods find each other's headless services there."""
    group = "rbac.authorization.k8s.io"
    reads = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    name = {"name": "system:coredns"}
    plane.cluster.apply(
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": name, "rules": reads},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", **name},
            "subjects": [{"kind": "User", "apiGroup": group, **name}],
        },
    )
    corefile = plane.state / "Corefile"
    corefile.write_text(_COREFILE.replace("KUBECONFIG", str(plane.kubeconfig("coredns"))))
    plane.processes.start("coredns", [plane.tools["coredns"], "-conf", corefile])


def remove_network() -> None:
    """Undo all of the above; what is not there is no fault."""
    for rule in _RULES:
        subprocess.run(
            [program("iptables"), "--wait", "-t", rule[0], "-D", *rule[1:]], capture_output=True, check=False
        )
    subprocess.run([program("ip"), "link", "delete", BRIDGE], capture_output=True, check=False)


def _run(command: str, *arguments: str) -> None:
    subprocess.run([program(command), *arguments], check=True, capture_output=True)
