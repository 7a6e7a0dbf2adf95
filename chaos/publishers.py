"""Two publishers of one store at once, killed again and again while a reader looks; no torch, so by the hundred."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos import faults, publishing
from chaos.publishing import PUBLISHERS
from chaos.tally import Order, Tally
from mtft import journal, store
from mtft.promotion import changing
from tests.unit.runs_on_disk import MODEL, run_id

_KILLS_A_STORE = 20  # each change reads the whole history
_LONGEST_WAIT_S = 0.1  # a promotion takes about a tenth of it
_OPERATIONS = 40  # of two promotions
_STUCK_SECONDS = 150.0  # a lease is over after 60 s, and is waited for twice as long


def scenario(order: Order) -> Iterator[Tally]:
    """Kill publishers, half of the time in the middle of an operation on the store."""
    tally, plan = Tally("two publishers, killed", order.seed), order.plan("publishers")
    looks = 0
    for at in range(0, order.kills, _KILLS_A_STORE):
        root = order.folder / f"store-{at}"
        looks += _Round(root, tally, plan).go(min(_KILLS_A_STORE, order.kills - at))
    tally.notes.append(f"a reader looked {looks} times")
    yield tally


class _Round:
    """One store and those who work in it."""

    def __init__(self, root: Path, tally: Tally, plan: random.Random) -> None:
        self.root, self.tally, self.plan = root, tally, plan
        publishing.new_store(root)

    def go(self, kills: int) -> int:
        """Kill so many times; return how often a reader looked."""
        reader = in_child(lambda: publishing.read(self.root))
        alive = {number: self._publisher(number) for number in PUBLISHERS}
        for _ in range(kills):
            victims = self.plan.choice([[0], [1], [0, 1]])
            self._kill(alive, victims)
            self.tally.tries += 1
            self._await_progress()
        (self.root / publishing.STOP).touch()
        for child in (reader, *alive.values()):
            _, status = os.waitpid(child, 0)
            if status:
                self.tally.lose(f"a process ended with {os.waitstatus_to_exitcode(status)}")
        with changing(self.root, MODEL) as held:  # settles what the last kill left
            held.promote(run_id(0), who="chaos")
        for what in publishing.lost(self.root):
            self.tally.lose(what)
        for what in (*publishing.slips(self.root), *publishing.wrong(self.root)):
            self.tally.go_wrong(what)
        return int((self.root / "looks").read_text())

    def _publisher(self, number: int, kill: Callable[[int, bool], None] | None = None) -> int:
        def work() -> None:
            if kill is not None:
                faults.wrap([str(store.outputs(self.root, MODEL))], kill)
            publishing.publish(self.root, number)

        return in_child(work)

    def _kill(self, alive: dict[int, int], victims: list[int]) -> None:
        """Kill publishers at once or in the middle of an operation, and start them again."""
        if self.plan.random() < 0.5:
            time.sleep(self.plan.uniform(0, _LONGEST_WAIT_S))
            for number in victims:
                faults.kill(alive[number])
        else:
            for number in victims:
                faults.kill(alive[number])
                os.waitpid(alive[number], 0)
                alive[number] = self._publisher(number, self._dying())
        waited = set(victims)
        while waited:
            # Whoever is dead is buried at once: until then the other takes its lease for a living one's.
            waited -= {number for number in waited if os.waitpid(alive[number], os.WNOHANG)[0]}
            time.sleep(0.001)
        for number in victims:
            alive[number] = self._publisher(number)

    def _dying(self) -> Callable[[int, bool], None]:
        nth, first = self.plan.randint(1, _OPERATIONS), self.plan.random() < 0.5

        def reached(number: int, before: bool) -> None:
            if number == nth and before is first:
                os.kill(os.getpid(), signal.SIGKILL)

        return reached

    def _await_progress(self) -> None:
        begun, folder = time.monotonic(), store.outputs(self.root, MODEL) / journal.FOLDER
        had = len(list(folder.glob("0*.json")))
        while len(list(folder.glob("0*.json"))) == had:
            if time.monotonic() - begun > _STUCK_SECONDS:
                self.tally.lose(f"no promotion in {_STUCK_SECONDS:.0f} s after a kill")
                return
            time.sleep(0.002)
        self.tally.recovered(begun)


def in_child(work: Callable[[], object], *, quiet: bool = False) -> int:
    """Do something in another process and return its number; it ends with 0, or 1 when the work failed."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            if not quiet:
                traceback.print_exc()
        finally:
            os._exit(1)
    return child
