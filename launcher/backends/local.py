"""The local backend: the trainer on this machine, started as a pod would start it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from mtft import exit_codes
from mtft.errors import InputError
from mtft.runs import RunPaths, read_job
from mtft.store import gate_of

# Each is passed on once; the trainer saves, leaves, and is killed by a second one.
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def command(config: Path, model: str, job: str, root: Path) -> list[str]:
    """Return the command of one attempt; ``--attended`` because a person starts each."""
    trainer = [sys.executable, "-m", "trainer", "--config", str(config), "--model", model, "--job", job]
    return [*trainer, "--root", str(root), "--attended"]


def start(trainer: Sequence[str]) -> int:
    """Run the trainer to its end and return the launcher's exit code.

    Raises:
        InputError: the training libraries are not installed.
    """
    environment = trainer_environment("--backend local trains here")
    received: list[int] = []
    waiting: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def deliver() -> None:
        while started and waiting:
            number = waiting.pop(0)
            started[0].send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        waiting.append(number)
        deliver()

    before = {each: signal.signal(each, pass_on) for each in _PASSED_ON if signal.getsignal(each) != signal.SIG_IGN}
    try:
        # Its own session: Ctrl-C reaches this process alone, which passes it on once.
        started.append(subprocess.Popen(trainer, start_new_session=True, env=environment))
        deliver()
        return exit_code(started[0].wait(), interrupted=bool(received))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def trainer_environment(what: str) -> dict[str, str]:
    """Return the environment of a program that needs torch; ``what`` says why it is started.

    Raises:
        InputError: the training libraries are not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"{what} and needs the training libraries: pip install 'mtft[train]'")
    # A module in the current folder must not stand in for one of ours.
    return {**os.environ, "PYTHONSAFEPATH": "1"}


def judged(code: int, root: Path, model: str, job: str) -> int:
    """Return the exit code of a job that was started here; one that is done has the gate's verdict to go by."""
    record = read_job(root, model, job) if code == exit_codes.DONE else None
    if record is None:
        return code
    paths = RunPaths.at(root, model, record.run_id)
    if not paths.finished.exists():  # storage.keep_runs removed it
        return code
    verdict = gate_of(paths).get("verdict")
    code = exit_codes.of_verdict(verdict)
    if code != exit_codes.DONE:
        print(f"trained, but {verdict}: exit code {code}; why stands in {paths.report}", file=sys.stderr)
    return code


def exit_code(trainer: int, *, interrupted: bool) -> int:
    """Return the launcher's exit code for the trainer's."""
    if trainer in (exit_codes.DONE, exit_codes.BAD_INPUT):
        return trainer
    return exit_codes.INTERRUPTED if interrupted else exit_codes.FAILED
