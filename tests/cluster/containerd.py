"""The node's containerd: its configuration, and the images that pods use."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

from tests.cluster.control_plane import ControlPlane
from tests.cluster.network import write_network_configuration
from tests.cluster.parts import CACHE, program
from tests.cluster.processes import ClusterFailed

# Its root outlives the cluster, so that an image is imported once.
IMAGES = CACHE / "containerd"
_KEPT_IMAGES = 3  # of one repository
_LIBRARY = "k8s.io"  # containerd's namespace of the kubelet
_CONFIGURATION = """\
version = 2
root = "{root}"
state = "{state}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]
[grpc]
address = "{state}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{state}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Where CAP_SYS_RESOURCE is missing, every sandbox dies without this.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{state}/network/conf.d"
"""


def start_containerd(plane: ControlPlane, pause: str) -> None:
    """Start containerd; images can be imported from then on.

    Args:
        plane: the control plane of its node.
        pause: name of the image that holds a pod's namespaces.
    """
    write_network_configuration(plane.state / "network" / "conf.d")
    configuration = plane.state / "containerd.toml"
    configuration.write_text(_CONFIGURATION.format(root=IMAGES, state=plane.state, pause=pause))
    plane.processes.start("containerd", [program("containerd"), "--config", configuration])
    plane.processes.wait("containerd", lambda: control(plane.state, "version").returncode == 0)


def runs_pods(state: Path) -> bool:
    """Whether a cluster has a real node."""
    return (state / "containerd.sock").exists()


def control(state: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run containerd's client on a cluster's containerd."""
    command = [program("ctr"), "--address", state / "containerd.sock", "--namespace", _LIBRARY, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def import_image(state: Path, archive: Path, name: str) -> None:
    """Take an OCI archive into the node's image store under the name, with a tag, that its pods use.

    Raises:
        ClusterFailed: containerd refuses it, or it holds no image of that name.
    """
    repository = name.rpartition(":")[0]
    _keep_newest(state, repository, name)
    if _digest(archive) in control(state, "images", "ls", f"name=={name}").stdout:
        return
    done = control(state, "images", "import", "--base-name", repository, archive)
    names = control(state, "images", "ls", "-q").stdout.split()
    if done.returncode != 0 or name not in names:
        said = done.stderr.strip() or f"it holds no {name}"
        raise ClusterFailed(f"{archive} cannot be imported: {said}; images now: {', '.join(names)}")


def _keep_newest(state: Path, repository: str, name: str) -> None:
    """Note that an image was asked for; remove those of its repository that were not for longest."""
    record = IMAGES / "asked-for"
    others = record.read_text().split() if record.exists() else []
    asked = [*(one for one in others if one != name), name]
    ours = [one for one in asked if one.rpartition(":")[0] == repository]
    for old in ours[:-_KEPT_IMAGES]:
        control(state, "images", "rm", old)
        asked.remove(old)
    record.write_text("\n".join(asked) + "\n")


def _digest(archive: Path) -> str:
    """Return the digest of the one image in an OCI archive."""
    with tarfile.open(archive) as parts:
        index = parts.extractfile("index.json")
        assert index, "it is a file"
        (manifest,) = json.load(index)["manifests"]
    return str(manifest["digest"])
