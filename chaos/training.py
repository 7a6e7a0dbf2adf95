"""Runs that are killed or asked to stop over and over, at random times and inside saves and flips, until they finish.

A kill takes the supervisor, one process below it, or all at once; a stop asks one of them. What the run makes in the
end is compared with what the same run makes when nothing disturbs it: weights byte for byte, and every logged loss.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from chaos import faults, runs, strikes, warm
from chaos.faults import Fault
from chaos.strikes import Strike
from chaos.tally import Order, Tally
from mtft import exit_codes
from trainer.processes import adopt_orphans

Start = Callable[[Sequence[str], Path, Mapping[str, str]], "subprocess.Popen[bytes]"]

_MOST_STRIKES = 7  # at one run
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
        yield trial.disturb(max(2, order.share(30)), strikes.aimed_kill)
        yield trial.renamed(f"stops, {kind.name}").disturb(max(2, order.share(30)), strikes.stop)
    if order.kills < _COLD_FROM:
        return
    kills = order.share(8)
    one = runs.KINDS[0]
    cold = Trial(order, one, warm.start_cold, Tally("kills, started cold", order.seed))
    cold.tally.expect(cold.unbroken() == made[one], "a run of forked processes differs from one started cold")
    yield cold.disturb(kills, strikes.kill)


class Trial:
    """Runs of one kind, disturbed by one plan."""

    def __init__(self, order: Order, kind: runs.Kind, start: Start, tally: Tally) -> None:
        self.order, self.start = order, start
        self._name(tally)
        self.config = runs.write_config(self.folder, kind)

    def _name(self, tally: Tally) -> None:
        self.tally, self.plan = tally, self.order.plan(tally.scenario)
        self.folder = self.order.folder / tally.scenario.replace(", ", "-").replace(" ", "-")
        self.begun = time.monotonic()

    def renamed(self, scenario: str) -> Trial:
        """Return these runs, whose undisturbed one is known, for another row of the table."""
        other = copy.copy(self)
        other._name(Tally(scenario, self.order.seed))
        other.folder.mkdir()
        return other

    def unbroken(self) -> runs.Result:
        """Let one run through; it tells how long one takes and how many operations there are to be killed in."""
        root, output, names = self.folder / "unbroken", self.folder / "unbroken.txt", self.folder / "modules.txt"
        marks = {place: self.folder / f"count-{place}" for place in strikes.PLACES}
        counted = [
            Fault(module="trainer.worker", parts=parts, nth=0, before=True, victim="", mark=marks[place])
            for place, (_, parts) in strikes.PLACES.items()
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

    def disturb(self, times: int, draw: strikes.Draw) -> Tally:
        """Strike runs so many times, and let each go on to its end."""
        number = 0
        while self.tally.tries < times:
            number += 1
            most = min(times - self.tally.tries, self.plan.randint(2, _MOST_STRIKES))
            before = self.tally.lost + self.tally.wrong
            root = self.folder / f"run-{number}"
            _Run(self, root).go(most, draw)
            if self.tally.lost + self.tally.wrong == before:
                shutil.rmtree(root)  # one that went wrong is left to be looked at
            print(f"   {self.tally.scenario}: {self.tally.tries} of {times}", flush=True)
        self.tally.seconds = time.monotonic() - self.begun
        self.tally.notes.append(f"{number} runs of {runs.STEPS} steps, a checkpoint every {runs.EVERY}")
        return self.tally


class _Run:
    """One run from its first start to its end."""

    def __init__(self, trial: Trial, root: Path) -> None:
        self.trial, self.tally, self.root = trial, trial.tally, root
        self.attempts = 0
        self.struck_at: float | None = None  # time.time() of the first strike that nothing new came after yet

    def go(self, times: int, draw: strikes.Draw) -> None:
        """Start it until it is finished; the first starts are struck."""
        done = 0
        while self.attempts < 3 * times + 3:
            mark = self.root.with_name(f"{self.root.name}.mark")
            mark.unlink(missing_ok=True)
            trial, strike = self.trial, None
            if done < times:
                strike = draw(trial.plan, trial.seconds, trial.operations, mark)
            struck, code = self._attempt(strike)
            done += struck
            for fault in runs.half_made(self.root):
                self.tally.go_wrong(f"{self.root.name}, attempt {self.attempts}: {fault}")
            if code == exit_codes.DONE:
                self._end()
                return
            if not struck or code not in (exit_codes.RETRY, -9):
                self.tally.lose(f"{self.root.name}, attempt {self.attempts} ended with {code}: {self._last_line()}")
                return
        self.tally.lose(f"{self.root.name} is not finished after {self.attempts} starts")

    def _attempt(self, strike: Strike | None) -> tuple[bool, int]:
        """Start it once; return whether it was struck, and its exit code."""
        self.attempts += 1
        self.output = self.root.with_name(f"{self.root.name}-{self.attempts}.txt")
        latest = runs.last_checkpoint(self.root)
        variables = {faults.VARIABLE: faults.text(strike.fault)} if strike and strike.fault else {}
        begun = time.time()
        process = self.trial.start(runs.arguments(self.trial.config, self.root), self.output, variables)
        struck_at = strike.deliver(process, self.trial.plan) if strike else None
        try:
            code = process.wait(_HANGS_SECONDS)
        except subprocess.TimeoutExpired:
            faults.kill_all(process.pid)
            code = process.wait()
            self.tally.lose(f"{self.root.name}, attempt {self.attempts} hung for {_HANGS_SECONDS:.0f} s")
        if strike and strike.asks and code == -strike.number and not self.output.stat().st_size:
            code = exit_codes.RETRY  # it had not begun to listen, nor to do anything
        if strike and strike.fault and strike.fault.mark.exists():
            struck_at = strike.fault.mark.stat().st_mtime
        self._expect_nobody()
        self._look_back(latest, begun)
        if strike and strike.asks and struck_at is not None:
            self._expect_saved(code)
        self.tally.tries += struck_at is not None
        if struck_at is not None and self.struck_at is None:
            self.struck_at = struck_at
        return struck_at is not None, code

    def _expect_saved(self, code: int) -> None:
        """Who was asked to stop has saved every step that was logged, and leaves with 143."""
        logged = [line["step"] for line in runs.train_lines(self.output.read_text(errors="replace"))]
        saved = runs.last_checkpoint(self.root)
        if logged and (saved is None or int(saved.removeprefix("step-")) < logged[-1]):
            self.tally.lose(f"{self.root.name}, attempt {self.attempts} stopped after step {logged[-1]}, saved {saved}")
        if code not in (exit_codes.RETRY, exit_codes.DONE):
            self.tally.lose(f"{self.root.name}, attempt {self.attempts} was asked to stop and left with {code}")

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

    def _look_back(self, latest: str | None, begun: float) -> None:
        """See where an attempt went on, and how long after the strike before."""
        trained = runs.train_lines(self.output.read_text(errors="replace"))
        if trained and (went_on := runs.continued_from(self.output.read_text(errors="replace"))) != latest:
            self.tally.lose(f"{self.root.name}, attempt {self.attempts} went on from {went_on}, not from {latest}")
        if self.struck_at is None:
            return
        paths = runs.paths_of(self.root)
        news = []
        if paths and paths.metrics.exists():
            news = [line["time"] for line in runs.train_lines(paths.metrics.read_text()) if line["time"] > begun]
        if paths and paths.finished.exists():
            news.append(max(begun, paths.finished.stat().st_mtime))
        if news:
            self.tally.recoveries.append(max(0.0, min(news) - self.struck_at))
            self.struck_at = None

    def _end(self) -> None:
        for fault in runs.faults_at_end(self.root, self.trial.expected):
            self.tally.go_wrong(f"{self.root.name}: {fault}")

    def _last_line(self) -> str:
        lines = self.output.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(it said nothing)"
