"""A volume that fills up while a run trains: one clear message, and the last good checkpoint stays."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.e2e.conftest import Launcher
from trainer.checkpoints import is_complete

MODEL = "opus_mt_en_fr"


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A volume of 64 MiB."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        require("mount", "mounting a small volume needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_fills_up_between_two_checkpoints(
    launcher: Launcher, standins: Callable[[str], Path], training_file: Path, volume: Path
) -> None:
    sets = ("--set", "checkpoint.every_steps=4", "--set", "tracking.log_every_steps=1")
    arguments = launcher.local(MODEL, standins("marian"), training_file, "--output", str(volume), *sets)
    with subprocess.Popen(
        launcher.command(*arguments, "--max-steps", "400"),
        cwd=launcher.folder,
        env=launcher.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        said = ""
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if line.startswith("{") and json.loads(line)["step"] == 9:
                fill(volume / "other.bin")
        code = process.wait(timeout=120)
    (run,) = (volume / "outputs" / MODEL / "runs").iterdir()
    assert code == 2, said
    # Python and safetensors word it differently.
    assert re.search(r"bad input \(exit 2\): cannot write: .*No space left on device.*; free space below", said), said
    assert "Traceback" not in said
    assert any(is_complete(path) for path in (run / "checkpoints").glob("step-*"))
    (volume / "other.bin").unlink()
    done = launcher(*arguments, "--max-steps", "400", "--dry-run")
    assert done.returncode == 0


def fill(path: Path) -> None:
    """Take every byte that is left."""
    with path.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(1 << 16))
        except OSError:
            return
