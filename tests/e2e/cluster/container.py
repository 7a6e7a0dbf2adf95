"""Runs an image as a kubelet would: its own configuration, any UID, no capability, a read-only root, no network."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.parts import program

_NO_EXEC = ["nosuid", "noexec", "nodev"]


@dataclass(frozen=True)
class Box:
    """An unpacked image and what it says about itself.

    Attributes:
        root: its files.
        configuration: its configuration as in the OCI image specification, history included.
        state: a folder for bundles and for what runc remembers.
        mounts: folders of this machine by where they appear.
    """

    root: Path
    configuration: Mapping[str, Any]
    state: Path
    mounts: Mapping[str, Path] = field(default_factory=dict)

    def run(self, *command: str, user: int = 12345) -> subprocess.CompletedProcess[str]:
        """Run a command, or the image's own, to its end."""
        with self.started(*command, user=user) as (process, _):
            output, errors = process.communicate(timeout=280)
            return subprocess.CompletedProcess(command, process.returncode, output, errors)

    @contextmanager
    def started(self, *command: str, user: int = 12345) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
        """Start a command as PID 1; give the process and the beginning of the command that signals it."""
        name = f"mtft-{secrets.token_hex(6)}"
        bundle = self.state / name
        bundle.mkdir(parents=True)
        # Like a kubelet, for the image has none; torchrun's processes meet at localhost.
        (bundle / "hosts").write_text("127.0.0.1 localhost\n")
        files = {"/etc/hosts": bundle / "hosts", **self.mounts}
        (bundle / "config.json").write_text(json.dumps(self._specification(command, user, files)))
        runc: list[str] = [program("runc"), "--root", str(self.state / "runc")]
        start = [*runc, "run", "--bundle", str(bundle), name]
        with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process, [*runc, "kill", name]
            finally:
                subprocess.run([*runc, "delete", "--force", name], capture_output=True, check=False)

    def _specification(self, command: Sequence[str], user: int, files: Mapping[str, Path]) -> dict[str, Any]:
        config = self.configuration["config"]
        own = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": 0},
                "args": list(command) or own,
                "env": config["Env"],
                "cwd": config["WorkingDir"],
                "capabilities": {},
                "noNewPrivileges": True,
            },
            "root": {"path": str(self.root), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                _memory("/dev", "nosuid", "mode=755", "size=65536k"),
                _memory("/dev/shm", *_NO_EXEC, "mode=1777", "size=1g"),
                _memory("/tmp", "nosuid", "nodev", "mode=1777", "size=1g"),
                *(
                    {"destination": place, "type": "bind", "source": str(source), "options": ["rbind", "rw"]}
                    for place, source in files.items()
                ),
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]},
        }


def _memory(place: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": list(options)}
