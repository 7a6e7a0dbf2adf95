"""A clock that jumps by hours inside one process, under a publisher and under a run (libfaketime)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from chaos import publishing, runs, warm
from chaos.publishers import in_child
from chaos.tally import Order, Tally
from chaos.training import Trial
from mtft import exit_codes
from mtft.promotion import changing
from tests.cluster.parts import MissingPart, ensure_packages
from tests.unit.runs_on_disk import MODEL, run_id

_LIBRARIES = "/usr/lib/*/faketime/libfaketimeMT.so.1"
_JUMPS = ("+0", "+61", "-61", "+2h", "-2h", "+3d", "-3d")


def scenario(order: Order) -> Iterator[Tally]:
    """Let the clock of one of two publishers jump, then that of a run."""
    publisher, run = Tally("clock jumps, one of two publishers", order.seed), Tally("clock jumps, a run", order.seed)
    plan = order.plan("clock")
    try:
        library = _library()
    except MissingPart as missing:
        for each in (publisher, run):
            each.missing = str(missing)
            yield each
        return
    _publish(publisher, plan, order, library)
    yield publisher
    jumps = order.share(6)
    if jumps:
        _train(run, jumps, order, library)
        yield run


def _library() -> Path:
    """Return libfaketime.

    Raises:
        MissingPart: it is not there and cannot be installed.
    """
    if not list(Path("/").glob(_LIBRARIES[1:])):
        ensure_packages({"faketime": "faketime"})
    found = list(Path("/").glob(_LIBRARIES[1:]))
    if not found:
        raise MissingPart("no libfaketime; as root: apt-get install -y faketime")
    return found[0]


def _faked(library: Path, jump: Path) -> Mapping[str, str]:
    """Return the variables of a process whose clock is off by what a file says at that moment."""
    jump.write_text("+0")
    # libfaketime fails at Python's sleep, which waits for a moment of the monotonic clock; that one must not jump.
    (jump.parent / "sitecustomize.py").write_text(
        "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
    )
    return {
        "PYTHONPATH": f"{jump.parent}:{os.environ.get('PYTHONPATH', '')}",
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(jump),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _publish(tally: Tally, plan: random.Random, order: Order, library: Path) -> None:
    root, jump = order.folder / "store", order.folder / "jump"
    publishing.new_store(root)
    command = [sys.executable, "-m", "chaos.publishing", str(root)]
    steady = subprocess.Popen([*command, "0"])
    jumping = subprocess.Popen([*command, "1"], env={**os.environ, **_faked(library, jump)})
    reader = in_child(lambda: publishing.read(root))
    for _ in range(order.share(100)):
        time.sleep(plan.uniform(0, 0.4))
        _set(jump, plan.choice(_JUMPS))
        tally.tries += 1
        begun, told = time.monotonic(), _told(root)
        while _told(root) == told and time.monotonic() - begun < 150:
            time.sleep(0.005)
        tally.recovered(begun)
    (root / publishing.STOP).touch()
    if codes := [code for code in (steady.wait(150), jumping.wait(150)) if code]:
        tally.lose(f"publishers ended with {codes}")
    os.waitpid(reader, 0)
    with changing(root, MODEL) as held:
        held.promote(run_id(0), who="chaos")
    for what in publishing.lost(root):
        tally.lose(what)
    for what in publishing.wrong(root):
        tally.go_wrong(what)
    # The limit of decisions/0010: with one clock wrong, both may pass their last look at the lease before they flip.
    slips = len(list(publishing.slips(root)))
    tally.notes.append(
        f"{slips} times two promotions were made over one run: both are in the history, the last is current"
    )


def _told(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("told-*"))


def _train(tally: Tally, jumps: int, order: Order, library: Path) -> None:
    trial = Trial(order, runs.KINDS[0], warm.start_cold, tally)
    trial.unbroken()
    root, jump = trial.folder / "run", trial.folder / "jump"
    variables = _faked(library, jump)

    def start() -> subprocess.Popen[bytes]:
        return trial.start(runs.arguments(trial.config, root), trial.folder / "run.txt", variables)

    process = start()
    for number in range(jumps):
        try:
            process.wait(trial.plan.uniform(0, trial.seconds / jumps))
            break
        except subprocess.TimeoutExpired:
            stopped = number % 2 == 0  # far ahead: the next start counts the time this one ran
            _set(jump, "+3d" if stopped else trial.plan.choice(_JUMPS))
            tally.tries += 1
        if stopped:
            process.terminate()
            if process.wait(300) not in (exit_codes.RETRY, -signal.SIGTERM):
                break
            _set(jump, "+0")
            process = start()
    if (code := process.wait(300)) != exit_codes.DONE:
        tally.lose(f"it ended with {code}: {(trial.folder / 'run.txt').read_text()[-300:]}")
        return
    for what in runs.faults_at_end(root, trial.expected):
        tally.go_wrong(what)


def _set(jump: Path, text: str) -> None:
    """Let the clock jump; the file is never seen empty."""
    beside = jump.with_suffix(".new")
    beside.write_text(text)
    beside.replace(jump)
