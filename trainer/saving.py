"""When a checkpoint is due by time, what saving costs, and how long a stop signal waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from mtft.stopping import STOP_SECONDS

MOST_TIME = 0.02
"""Largest share of the wall time that goes into checkpoints by time; a slow volume makes them rarer."""


class SaveTimer:
    """Tells when the next checkpoint by time is due.

    Args:
        minutes: least wall-clock time between two; None: none is ever due by time.
        clock: seconds that only go forward.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self.cost = 0.0  # seconds the last one took
        self._clock = clock
        self._last = clock()

    def due(self) -> bool:
        """Whether the interval is over, which is longer than asked for where saving takes too large a share of it."""
        if self.minutes is None:
            return False
        return self._clock() - self._last >= max(60 * self.minutes, self.cost * (1 / MOST_TIME - 1))

    def time(self, save: Callable[[], None]) -> float:
        """Save, and begin the next interval; return the seconds it took."""
        began = self._clock()
        save()
        self._last = self._clock()
        self.cost = self._last - began
        return self.cost


class StopTime:
    """Holds the longest step and save against what ``cluster.longest_step_seconds`` promises.

    Args:
        promised: seconds both take at most together.
    """

    def __init__(self, promised: float) -> None:
        self.promised = promised
        self._step = self._save = 0.0  # seconds of the longest so far
        self._told = False

    def step(self, seconds: float) -> str | None:
        """Take in a step; return what to tell a person the first time the promise is broken."""
        self._step = max(self._step, seconds)
        return self._remark()

    def save(self, seconds: float) -> str | None:
        """Take in a save, as `step`."""
        self._save = max(self._save, seconds)
        return self._remark()

    def _remark(self) -> str | None:
        if self._told or self._step + self._save <= self.promised:
            return None
        self._told = True
        return (
            f"a step took up to {self._step:.0f} s and a checkpoint {self._save:.0f} s, together more than "
            f"cluster.longest_step_seconds says ({self.promised:g}): stopped ranks are killed after {STOP_SECONDS} s, "
            "and then go on from the checkpoint before; lower train.batch_size or train.gradient_accumulation"
        )
