"""Runs that are killed over and over, at random times and in the middle of saves and flips, until they are finished.

A kill takes the supervisor, one process below it, or all at once. What the run makes in the end is compared with what
the same run makes when nothing disturbs it: weights byte for byte, and the loss of every step.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from chaos import faults, runs, warm
from chaos.faults import Fault
from chaos.tally import Order, Tally
from mtft import exit_codes
from trainer.processes import adopt_orphans

Start = Callable[[Sequence[str], Path, Mapping[str, str]], "subprocess.Popen[bytes]"]

_VICTIMS = ("supervisor", "rank", "all")
# Where kills are aimed, with the share of each: what is counted are operations on paths with these parts.
_PLACES = {
    "save": (5, ("/checkpoints/",)),
    "end": (2, ("/lora", "/.lora", "results.json", "trainer_state.json", "/finished.json", "/.finished.json")),
    "flip": (3, ("/promotions/", "/current", "/.current", "/.store.lease", "/..store.lease")),
}
_MOST_KILLS = 7  # of one run
_COLD_FROM = 20  # kills; a cold start takes 20 s of CPU, and tests/e2e/test_interrupted.py has some
_HANGS_SECONDS = 180.0


def scenario(order: Order) -> Iterator[Tally]:
    """Kill runs of one rank and of two, a few of them started cold."""
    adopt_orphans()
    warm.load()
    made = {}
    for kind in runs.KINDS:
        trial = Trial(order, kind, warm.start, Tally(f"kills, {kind.name}", order.seed))
        made[kind] = trial.unbroken()
        yield trial.disturb(max(2, order.share(30)), aimed=True)
    if order.kills < _COLD_FROM:
        return
    kills = order.share(8)
    one = runs.KINDS[0]
    cold = Trial(order, one, warm.start_cold, Tally("kills, started cold", order.seed))
    cold.tally.expect(cold.unbroken() == made[one], "a run of forked processes differs from one started cold")
    yield cold.disturb(kills, aimed=False)


@dataclass(frozen=True)
class _Kill:
    """One kill to come: at a moment, or at an operation in a place."""

    victim: str
    after_s: float = 0.0
    fault: Fault | None = None


class Trial:
    """Runs of one kind, disturbed by one plan."""

    def __init__(self, order: Order, kind: runs.Kind, start: Start, tally: Tally) -> None:
        self.start, self.tally = start, tally
        self.plan = order.plan(tally.scenario)
        self.folder = order.folder / tally.scenario.replace(", ", "-").replace(" ", "-")
        self.config = runs.write_config(self.folder, kind)
        self.begun = time.monotonic()

    def unbroken(self) -> runs.Result:
        """Let one run through; it tells how long one takes and how many operations there are to be killed in."""
        root, output, names = self.folder / "unbroken", self.folder / "unbroken.txt", self.folder / "modules.txt"
        marks = {place: self.folder / f"count-{place}" for place in _PLACES}
        counted = [
            Fault(module="trainer.worker", parts=parts, nth=0, before=True, victim="", mark=marks[place])
            for place, (_, parts) in _PLACES.items()
        ]
        variables = {faults.VARIABLE: faults.text(*counted), warm.NAMES_VARIABLE: str(names)}
        begun = time.monotonic()
        code = self.start(runs.arguments(self.config, root), output, variables).wait()
        assert code == exit_codes.DONE, output.read_text()
        if names.exists():
            warm.load_what(names)
        self.seconds = time.monotonic() - begun
        self.operations = {place: mark.stat().st_size for place, mark in marks.items() if mark.exists()}
        paths = runs.paths_of(root)
        assert paths is not None
        self.expected = runs.Result.of(paths)
        assert self.expected.verdict == exit_codes.PROMOTED, "there has to be a flip to be killed in"
        return self.expected

    def disturb(self, kills: int, *, aimed: bool) -> Tally:
        """Kill runs so many times, half of it aimed, and let each go on to its end."""
        number = 0
        while self.tally.tries < kills:
            number += 1
            most = min(kills - self.tally.tries, self.plan.randint(2, _MOST_KILLS))
            before = self.tally.lost + self.tally.wrong
            root = self.folder / f"run-{number}"
            _Run(self, root).go(most, aimed=aimed)
            if self.tally.lost + self.tally.wrong == before:
                shutil.rmtree(root)  # one that went wrong is left to be looked at
            print(f"   {self.tally.scenario}: {self.tally.tries} of {kills}", flush=True)
        self.tally.seconds = time.monotonic() - self.begun
        self.tally.notes.append(f"{number} runs of {runs.STEPS} steps, a checkpoint every {runs.EVERY}")
        return self.tally

    def next_kill(self, mark: Path, *, aimed: bool) -> _Kill:
        """Draw the next kill; one from inside leaves a mark."""
        victim = self.plan.choice(_VICTIMS)
        if not aimed or self.plan.random() < 0.5:
            return _Kill(victim, after_s=self.plan.uniform(0, self.seconds))
        place = self.plan.choices(list(_PLACES), [share for share, _ in _PLACES.values()])[0]
        return _Kill(
            victim,
            fault=Fault(
                module="trainer.worker",
                parts=_PLACES[place][1],
                # A run that goes on from its middle has fewer saves to come.
                nth=self.plan.randint(1, self.operations[place] // (3 if place == "save" else 1)),
                before=self.plan.random() < 0.5,
                victim=victim,
                mark=mark,
            ),
        )


class _Run:
    """One run from its first start to its end."""

    def __init__(self, trial: Trial, root: Path) -> None:
        self.trial, self.tally, self.root = trial, trial.tally, root
        self.attempts = 0
        self.killed_at: float | None = None  # time.time() of the first kill that nothing new came after yet

    def go(self, kills: int, *, aimed: bool) -> None:
        """Start it until it is finished; the first starts are killed."""
        done = 0
        while self.attempts < 3 * kills + 3:
            mark = self.root.with_name(f"{self.root.name}.mark")
            mark.unlink(missing_ok=True)
            kill = self.trial.next_kill(mark, aimed=aimed) if done < kills else None
            killed, code = self._attempt(kill)
            done += killed
            for fault in runs.half_made(self.root):
                self.tally.go_wrong(f"{self.root.name}, attempt {self.attempts}: {fault}")
            if code == exit_codes.DONE:
                self._end()
                return
            if not killed or code not in (exit_codes.RETRY, -9):
                self.tally.lose(f"{self.root.name}, attempt {self.attempts} ended with {code}: {self._last_line()}")
                return
        self.tally.lose(f"{self.root.name} is not finished after {self.attempts} starts")

    def _attempt(self, kill: _Kill | None) -> tuple[bool, int]:
        """Start it once; return whether it was killed, and its exit code."""
        self.attempts += 1
        self.output = self.root.with_name(f"{self.root.name}-{self.attempts}.txt")
        latest = runs.last_checkpoint(self.root)
        variables = {faults.VARIABLE: faults.text(kill.fault)} if kill and kill.fault else {}
        begun = time.time()
        process = self.trial.start(runs.arguments(self.trial.config, self.root), self.output, variables)
        killed_at = self._strike(process, kill)
        try:
            code = process.wait(_HANGS_SECONDS)
        except subprocess.TimeoutExpired:
            faults.kill_all(process.pid)
            code = process.wait()
            self.tally.lose(f"{self.root.name}, attempt {self.attempts} hung for {_HANGS_SECONDS:.0f} s")
        if kill and kill.fault and kill.fault.mark.exists():
            killed_at = kill.fault.mark.stat().st_mtime
        self._expect_nobody()
        self._look_back(latest, begun, killed_at)
        self.tally.tries += killed_at is not None
        if killed_at is not None and self.killed_at is None:
            self.killed_at = killed_at
        return killed_at is not None, code

    def _strike(self, process: subprocess.Popen[bytes], kill: _Kill | None) -> float | None:
        """Kill at the moment of the plan; return when, or None where it was over or the kill comes from inside."""
        if kill is None or kill.fault:
            return None
        try:
            process.wait(kill.after_s)
            return None
        except subprocess.TimeoutExpired:
            pass
        now = time.time()
        if kill.victim == "all":
            faults.kill_all(process.pid)
        elif kill.victim == "supervisor":
            faults.kill(process.pid)
        else:
            try:
                below = psutil.Process(process.pid).children(recursive=True)
            except psutil.NoSuchProcess:
                below = []
            if not below:  # between two of its children: there is no one else
                below = [psutil.Process(process.pid)]
            faults.kill(self.trial.plan.choice(below).pid)
        return now

    def _expect_nobody(self) -> None:
        """Whoever outlives its supervisor could write beside the next start."""
        me, end = psutil.Process(), time.monotonic() + 10
        while left := me.children(recursive=True):
            for each in left:
                try:
                    os.waitpid(each.pid, os.WNOHANG)
                except ChildProcessError:
                    continue
            if time.monotonic() > end:
                self.tally.go_wrong(
                    f"{self.root.name}: {[each.cmdline()[:5] for each in left]} outlived the supervisor"
                )
                for each in left:
                    faults.kill(each.pid)
                return
            time.sleep(0.01)

    def _look_back(self, latest: str | None, begun: float, killed_at: float | None) -> None:
        """See where an attempt went on, and how long after the kill before."""
        trained = runs.train_lines(self.output.read_text(errors="replace"))
        if trained and (went_on := runs.continued_from(self.output.read_text(errors="replace"))) != latest:
            self.tally.lose(f"{self.root.name}, attempt {self.attempts} went on from {went_on}, not from {latest}")
        if self.killed_at is None:
            return
        paths = runs.paths_of(self.root)
        news = []
        if paths and paths.metrics.exists():
            news = [line["time"] for line in runs.train_lines(paths.metrics.read_text()) if line["time"] > begun]
        if paths and paths.finished.exists():
            news.append(max(begun, paths.finished.stat().st_mtime))
        if news:
            self.tally.recoveries.append(max(0.0, min(news) - self.killed_at))
            self.killed_at = None

    def _end(self) -> None:
        for fault in runs.faults_at_end(self.root, self.trial.expected):
            self.tally.go_wrong(f"{self.root.name}: {fault}")

    def _last_line(self) -> str:
        lines = self.output.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(it said nothing)"
