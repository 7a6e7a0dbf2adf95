"""A volume that fills up while a run trains: one clear message, and the last good checkpoint stays."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.e2e.conftest import Launcher
from trainer.checkpoints import is_complete

MODEL = "opus_mt_en_fr"


def test_fills_up_between_two_checkpoints(
    launcher: Launcher, standins: Callable[[str], Path], training_file: Path, small_volume: Callable[[int], Path]
) -> None:
    volume = small_volume(64)
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
