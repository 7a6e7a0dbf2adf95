"""When a checkpoint is due by time, and what saving costs."""

from __future__ import annotations

import time
from collections.abc import Callable

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
