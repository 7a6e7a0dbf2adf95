"""A volume that fills up while a run trains, and one that is read-only at its start: told, and gone on from there."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from chaos import faults, runs, warm
from chaos.tally import Order, Tally
from chaos.training import Trial
from mtft import exit_codes, keeper, store
from mtft.errors import MtftError
from tests.cluster.parts import MissingPart
from trainer.processes import adopt_orphans

_MIB = 64
_TOLD = "bad input (exit 2)"


def scenario(order: Order) -> Iterator[Tally]:
    """Fill small volumes, and make others read-only."""
    adopt_orphans()
    tries = max(1, order.share(10))
    full, read_only = Tally("disk full", order.seed), Tally("read-only store", order.seed)
    try:
        with _volume(order.folder / "try"):
            pass
    except MissingPart as missing:
        for each in (full, read_only):
            each.missing = str(missing)
            yield each
        return
    warm.load()
    for tally, disturbed in ((full, _filled), (read_only, _made_read_only)):
        trial = Trial(order, runs.KINDS[0], warm.start, tally)
        trial.unbroken()
        for number in range(tries):
            with _volume(trial.folder / f"volume-{number}") as volume:
                tally.tries += 1
                disturbed(trial, volume)
                for what in runs.half_made(volume):
                    tally.go_wrong(f"{volume.name}: {what}")
                freed = time.monotonic()
                code, said = _attempt(trial, volume)
                tally.recovered(freed)
                if code != exit_codes.DONE:
                    tally.lose(f"{volume.name}: with room again it ended with {code}: {said[-300:]}")
                    continue
                for what in runs.faults_at_end(volume, trial.expected):
                    tally.go_wrong(f"{volume.name}: {what}")
        yield tally


def _filled(trial: Trial, volume: Path) -> None:
    """Take what is left of the volume at some moment, all of it or all but a part of a checkpoint."""
    other, plan = volume / "other.bin", trial.plan
    process = trial.start(runs.arguments(trial.config, volume), trial.folder / "out.txt", {})
    wanted = plan.randint(1, runs.STEPS - 2 * runs.EVERY)
    while process.poll() is None and _steps(volume) < wanted:
        time.sleep(0.005)
    _fill(other, leave=plan.choice([0, plan.randint(0, 1 << 20)]))
    code = process.wait(180)
    said = (trial.folder / "out.txt").read_text()
    if code != exit_codes.BAD_INPUT or _TOLD not in said or "No space left on device" not in said:
        trial.tally.lose(f"{volume.name}: full at step {wanted}, it ended with {code}: {said[-300:]}")
    if wanted >= 2 * runs.EVERY and runs.last_checkpoint(volume) is None:
        trial.tally.lose(f"{volume.name}: no complete checkpoint is left of {wanted} steps")
    other.unlink()


def _made_read_only(trial: Trial, volume: Path) -> None:
    """Kill a run, make its volume read-only, and try everything there: readers read, writers say why they cannot."""
    process = trial.start(runs.arguments(trial.config, volume), trial.folder / "out.txt", {})
    while process.poll() is None and _steps(volume) < trial.plan.randint(1, runs.STEPS - runs.EVERY):
        time.sleep(0.005)
    faults.kill_all(process.pid)
    process.wait()
    _nobody_left()
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True, capture_output=True)
    try:
        before = sorted(str(path) for path in volume.rglob("*"))
        code, said = _attempt(trial, volume)
        if code != exit_codes.BAD_INPUT or "Read-only file system" not in said or "Traceback" in said:
            trial.tally.lose(f"{volume.name}: read-only, it ended with {code}: {said[-300:]}")
        keeper.history(str(volume), runs.MODEL)
        store.current(volume, runs.MODEL)
        with contextlib.suppress(MtftError, OSError):
            keeper.promote(str(volume), runs.MODEL, None, "chaos", "", False)
            trial.tally.go_wrong(f"{volume.name}: promoted on a read-only volume")
        trial.tally.expect(before == sorted(str(path) for path in volume.rglob("*")), f"{volume.name} changed")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(volume)], check=True, capture_output=True)


def _attempt(trial: Trial, volume: Path) -> tuple[int, str]:
    """Let the run go on undisturbed; return its exit code and what it said."""
    output = trial.folder / "out.txt"
    code = trial.start(runs.arguments(trial.config, volume), output, {}).wait(180)
    return code, output.read_text()


def _steps(volume: Path) -> int:
    paths = runs.paths_of(volume)
    if paths is None or not paths.metrics.exists():
        return 0
    return len(runs.train_lines(paths.metrics.read_text()))


def _fill(path: Path, leave: int) -> None:
    """Take every byte that is left but so many."""
    with path.open("wb", buffering=0) as out:
        with contextlib.suppress(OSError):
            while out.write(bytes(1 << 16)):
                pass
        out.truncate(max(0, out.tell() - leave))


def _nobody_left() -> None:
    """Bury the processes that came to this one when theirs was killed."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


@contextlib.contextmanager
def _volume(folder: Path) -> Iterator[Path]:
    """Mount a small volume.

    Raises:
        MissingPart: this machine does not let us.
    """
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_MIB}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        raise MissingPart("mounting a small volume needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
