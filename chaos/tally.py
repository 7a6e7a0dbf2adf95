"""What became of the work, counted: one row of the table for each scenario."""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mtft import files

HEADER = ("scenario", "tries", "survived", "lost", "wrong", "recovery median s", "recovery max s", "seconds", "seed")


@dataclass
class Tally:
    """One scenario.

    Attributes:
        scenario: its name.
        seed: of its plan.
        tries: what was done to the work: kills, cuts, full disks.
        lost: runs that did not come back, acknowledged work that is gone, steps done again beyond the last checkpoint.
        wrong: what was duplicated, half-written or unequal to the undisturbed run.
        recoveries: seconds from each disturbance to the next new piece of work.
        notes: what a reader should know.
        problems: each lost and wrong, in words.
        missing: what this machine lacks for the scenario; None: it ran.
        seconds: how long it took.
    """

    scenario: str
    seed: int
    tries: int = 0
    lost: int = 0
    wrong: int = 0
    recoveries: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: str | None = None
    seconds: float = 0.0

    @property
    def survived(self) -> int:
        """Tries after which the work went on, with nothing lost or wrong."""
        return max(0, self.tries - self.lost - self.wrong)

    def lose(self, what: str) -> None:
        """Count something lost."""
        self.lost += 1
        self._tell("lost", what)

    def go_wrong(self, what: str) -> None:
        """Count something wrong."""
        self.wrong += 1
        self._tell("wrong", what)

    def _tell(self, kind: str, what: str) -> None:
        self.problems.append(f"{kind}: {what}")
        print(f"{self.scenario}: {kind}: {what}", flush=True)

    def expect(self, fine: bool, what: str) -> None:
        """Count something wrong unless it is fine."""
        if not fine:
            self.go_wrong(what)

    def recovered(self, since: float) -> None:
        """Count the seconds since a moment of ``time.monotonic()``."""
        self.recoveries.append(time.monotonic() - since)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        rounded = [round(seconds, 3) for seconds in self.recoveries]
        files.write_json(path, {**asdict(self), "recoveries": rounded, "survived": self.survived})


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a scenario is asked for.

    Attributes:
        kills: CHAOS_KILLS: how much of everything.
        seed: of all plans.
        folder: an empty one of its own, on a disk.
    """

    kills: int
    seed: int
    folder: Path

    def share(self, of: int, whole: int = 200) -> int:
        """Return this order's share of what ``whole`` kills come with: ``share(20)`` is 20 at 200, 1 at 10."""
        return round(of * self.kills / whole)

    def plan(self, scenario: str) -> random.Random:
        """Return the random numbers of a scenario, the same for the same seed."""
        return random.Random(f"{self.seed}/{scenario}")


def read(path: Path) -> Tally:
    """Read a tally that was written."""
    values = json.loads(path.read_text())
    del values["survived"]
    return Tally(**values)


def table(tallies: Sequence[Tally]) -> str:
    """Return the table, then what was lost, wrong or not run, and last the sum."""
    rows = [HEADER, *(_row(each) for each in tallies if each.missing is None)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for each in tallies:
        lines += [f"{each.scenario}: not run: {each.missing}"] if each.missing else []
        lines += [f"{each.scenario}: {text}" for text in (*each.notes, *each.problems)]
    survived, lost, wrong = (
        sum(values) for values in zip(*((t.survived, t.lost, t.wrong) for t in tallies), strict=True)
    )
    return "\n".join([*lines, f"{survived} survived, {lost} lost, {wrong} wrong"])


def _row(tally: Tally) -> tuple[str, ...]:
    times = sorted(tally.recoveries)
    seconds = (f"{statistics.median(times):.1f}", f"{times[-1]:.1f}") if times else ("-", "-")
    counts = map(str, (tally.tries, tally.survived, tally.lost, tally.wrong))
    return (tally.scenario, *counts, *seconds, f"{tally.seconds:.0f}", str(tally.seed))
