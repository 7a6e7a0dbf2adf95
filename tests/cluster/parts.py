"""What the test cluster needs from this machine: Debian packages, and one clear line where they cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtft"

# A file whose presence shows the package is there -> the Debian package.
CONTROL_PLANE = {"etcd": "etcd-server", "openssl": "openssl", "docker-registry": "docker-registry"}
NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
}
IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}

# Packages that bring a system service, which the test cluster must not share.
_SERVICES = {"etcd-server": "etcd", "containerd": "containerd", "docker-registry": "docker-registry"}
_POLICY = Path("/usr/sbin/policy-rc.d")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class MissingPart(Exception):
    """This machine lacks something the test cluster needs; the text says what would bring it."""


def find(command: str) -> str | None:
    """Return where a program is, in PATH or the system's administration folders; None if nowhere."""
    return shutil.which(command) or shutil.which(command, path=_SYSTEM_PATH)


def program(command: str) -> str:
    """Return where a program is.

    Raises:
        MissingPart: it is nowhere.
    """
    found = find(command)
    if found is None:
        raise MissingPart(f"there is no {command} on this machine")
    return found


def ensure_packages(parts: Mapping[str, str]) -> None:
    """Install the Debian packages whose files are missing; none of their services is started or left enabled.

    Raises:
        MissingPart: something is missing and cannot be installed; the text is the command that does it.
    """
    missing = sorted({package for command, package in parts.items() if not find(command)})
    if not missing:
        return
    command = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or not find("apt-get"):
        raise MissingPart(f"missing Debian packages {', '.join(missing)}; as root: {command}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait_for_lock = ["-o", "DPkg::Lock::Timeout=300"]
    with _no_service_starts():
        for arguments in (["update"], command.split()[1:]):
            done = subprocess.run(
                ["apt-get", "-q", *wait_for_lock, *arguments], env=environment, capture_output=True, text=True
            )
    if done.returncode != 0:
        raise MissingPart(f"{command} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    services = [_SERVICES[package] for package in missing if package in _SERVICES]
    if services and find("systemctl"):
        subprocess.run(["systemctl", "disable", *services], capture_output=True, check=False)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Tell Debian's packages, the documented way, to start no service; leave a machine's own policy alone."""
    try:
        with _POLICY.open("x") as policy:
            policy.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:
        yield
        return
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
