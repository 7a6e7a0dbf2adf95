"""What is done to a run: a kill or a stop signal, at a moment or in the middle of a file operation."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos import faults, warm
from chaos.faults import Fault
from trainer.processes import STOP_SIGNALS

# Where kills are aimed, with the share of each: what is counted are operations on paths with these parts.
PLACES = {
    "save": (5, ("/checkpoints/",)),
    "end": (2, ("/lora", "/.lora", "results.json", "trainer_state.json", "/finished.json", "/.finished.json")),
    "flip": (3, ("/promotions/", "/current", "/.current", "/.store.lease", "/..store.lease")),
}
_VICTIMS = ("supervisor", "rank", "all")
_ASKED = ("trainer.preparation", "trainer.worker")


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One kill or stop to come.

    Attributes:
        victim: ``supervisor``; ``rank``, one process below it; ``all`` of them at once.
        number: the signal.
        after_s: seconds after the start at which it is sent, unless it comes from inside.
        fault: the operation at which the process ends itself or all.
    """

    victim: str
    number: int = signal.SIGKILL
    after_s: float = 0.0
    fault: Fault | None = None

    @property
    def asks(self) -> bool:
        """Whether it asks to stop: what was done is saved then."""
        return self.number != signal.SIGKILL

    def deliver(self, process: subprocess.Popen[bytes], plan: random.Random) -> float | None:
        """Send it when its time comes; return ``time.time()`` then, None where it was over or comes from inside."""
        if self.fault:
            return None
        try:
            process.wait(self.after_s)
            return None
        except subprocess.TimeoutExpired:
            pass
        now = time.time()
        if self.victim == "all":
            faults.kill_all(process.pid)
            return now
        try:
            os.kill(self._pid(process.pid, plan), self.number)
        except ProcessLookupError:
            return now if self.number == signal.SIGKILL else None
        return now

    def _pid(self, supervisor: int, plan: random.Random) -> int:
        if self.victim == "supervisor":
            return supervisor
        try:
            below = psutil.Process(supervisor).children(recursive=True)
        except psutil.NoSuchProcess:
            return supervisor
        if self.asks:  # nobody but the supervisor asks torchrun
            below = [each for each in below if warm.runs_as(each) in _ASKED]
        return plan.choice([each.pid for each in below] or [supervisor])  # between two children there is no one else


Draw = Callable[[random.Random, float, Mapping[str, int], Path], Strike]
"""From the plan, the seconds of a run, its operations by place and a mark to leave: the next strike."""


def kill(plan: random.Random, seconds: float, _operations: Mapping[str, int], _mark: Path) -> Strike:
    """Draw a kill at any moment of a run."""
    return Strike(victim=plan.choice(_VICTIMS), after_s=plan.uniform(0, seconds))


def aimed_kill(plan: random.Random, seconds: float, operations: Mapping[str, int], mark: Path) -> Strike:
    """Draw a kill, half of them in the middle of a file operation of a save, an export or a flip."""
    victim = plan.choice(_VICTIMS)
    if plan.random() < 0.5:
        return Strike(victim=victim, after_s=plan.uniform(0, seconds))
    place = plan.choices(list(PLACES), [share for share, _ in PLACES.values()])[0]
    fault = Fault(
        module="trainer.worker",
        parts=PLACES[place][1],
        # A run that goes on from its middle has fewer saves to come.
        nth=plan.randint(1, operations[place] // (3 if place == "save" else 1)),
        before=plan.random() < 0.5,
        victim=victim,
        mark=mark,
    )
    return Strike(victim=victim, fault=fault)


def stop(plan: random.Random, seconds: float, _operations: Mapping[str, int], _mark: Path) -> Strike:
    """Draw a signal that asks the supervisor, or one process below it, to stop."""
    victim = plan.choice(("supervisor", "rank"))
    return Strike(victim=victim, number=plan.choice(STOP_SIGNALS), after_s=plan.uniform(0, seconds))
