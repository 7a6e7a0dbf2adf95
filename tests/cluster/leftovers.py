"""What a node leaves on its machine: found and removed, however its end came."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from tests.cluster import network
from tests.cluster.containerd import control, runs_pods
from tests.cluster.node import SAVED
from tests.cluster.parts import MissingPart, program

_SECONDS = 60
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def refuse_other_nodes() -> None:
    """Make sure that no kubelet's pods run on this machine.

    Raises:
        MissingPart: some do; a second kubelet would end them.
    """
    if _kubelet_groups():
        raise MissingPart("a kubelet runs on this machine already, or left its control groups (kubepods)")


def remove_node(state: Path) -> None:
    """Undo what a node did to this machine: pods, mounts, network, cgroups, kernel settings."""
    if runs_pods(state):
        for kind in ("tasks", "containers"):
            identifiers = control(state, kind, "ls", "-q").stdout.split()
            if identifiers:
                control(state, kind, "rm", *(["-f"] if kind == "tasks" else []), *identifiers)
    for shim in _shims(state):
        with suppress(psutil.NoSuchProcess):
            for process in [*shim.children(recursive=True), shim]:
                process.kill()
    _remove_links(state)
    for mount in _mounts_below(state):
        subprocess.run([program("umount"), "--lazy", mount], capture_output=True, check=False)
    network.remove_network()
    _remove_control_groups()
    if (state / SAVED).exists():
        for name, value in json.loads((state / SAVED).read_text()).items():
            Path("/proc/sys", name).write_text(value)


def _shims(state: Path) -> Iterator[psutil.Process]:
    """Yield the parents of our containers: they outlive containerd."""
    address = str(state / "containerd.sock")
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"].startswith("containerd-shim") and address in (process.info["cmdline"] or []):
            yield process


def _mounts_below(folder: Path) -> list[str]:
    points = [
        line.split()[1].encode().decode("unicode_escape") for line in Path("/proc/mounts").read_text().splitlines()
    ]
    return sorted((point for point in points if point.startswith(f"{folder}/")), key=len, reverse=True)


def _remove_links(state: Path) -> None:
    """Remove what kubelet and network plugins leave in places of their own choice when a pod does not end in peace."""
    for link in Path("/var/log/containers").glob("*"):
        if link.is_symlink() and link.readlink().is_relative_to(state):
            link.unlink()
    for result in Path("/var/lib/cni/results").glob(f"{network.NAME}-*-eth0"):
        result.unlink()
        sandbox = result.name.removeprefix(f"{network.NAME}-").removesuffix("-eth0")
        result.with_name(f"cni-loopback-{sandbox}-lo").unlink(missing_ok=True)


def _kubelet_groups() -> list[Path]:
    # Version 1 has a tree for each controller, version 2 one.
    return [path for pattern in ("kubepods*", "*/kubepods*") for path in _CONTROL_GROUPS.glob(pattern)]


def _remove_control_groups() -> None:
    """Remove the kubelet's groups; an empty one goes by removing its folder, and only deepest first."""
    for top in _kubelet_groups():
        deadline = time.monotonic() + _SECONDS
        while top.is_dir() and time.monotonic() < deadline:
            for folder, _, _ in os.walk(top, topdown=False):
                try:
                    Path(folder).rmdir()
                except OSError:
                    time.sleep(0.05)  # its last process is still leaving
