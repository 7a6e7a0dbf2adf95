"""Ranks killed in the middle of saves by the hundred: loop and checkpoints alone, forked with the model in memory.

The whole trainer around them is in :mod:`chaos.training`; here a start costs milliseconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import faults, runs
from chaos.publishers import in_child
from chaos.tally import Order, Tally
from mtft import files

if TYPE_CHECKING:
    from tests.trainer.helpers import Setup
    from trainer.loop import Loop, StepResult
    from trainer.state import State

_STEPS = 24
_EVERY = 2
_WEIGHTS = "weights.safetensors"
_MOST_KILLS = 12  # of one run
_HANGS_SECONDS = 120.0


def scenario(order: Order) -> Iterator[Tally]:
    """Kill one rank, then one of two or both."""
    for ranks in (1, 2):
        tally = Tally(f"kills in saves, {ranks} rank{'s' * (ranks > 1)}", order.seed)
        _Saves(order, ranks, tally).disturb(max(2, order.share(100)))
        yield tally


class _Saves:
    """Runs of one number of ranks, all equal."""

    def __init__(self, order: Order, ranks: int, tally: Tally) -> None:
        from tests.standins.text import generated_pairs
        from tests.trainer.helpers import build
        from trainer.quiet import quiet_libraries

        quiet_libraries()
        self.ranks, self.tally, self.plan = ranks, tally, order.plan(tally.scenario)
        self.folder = order.folder / f"ranks-{ranks}"
        self.setup: Setup = build(runs.MODEL, runs.base(), generated_pairs(12), dropout=True)
        unbroken = self.folder / "unbroken"
        mark = self.folder / "count"
        unbroken.mkdir(parents=True)
        begun = time.monotonic()
        codes = self._run(unbroken, lambda: faults.wrap([str(unbroken)], faults.counting(mark)))
        assert codes == [0] * ranks, codes
        self.seconds, self.operations = time.monotonic() - begun, mark.stat().st_size
        self.expected = (unbroken / _WEIGHTS).read_bytes(), (unbroken / "steps").read_text()

    def disturb(self, kills: int) -> None:
        """Kill so many times, half of it in the middle of an operation on a checkpoint."""
        number = 0
        while self.tally.tries < kills:
            number += 1
            root = self.folder / f"run-{number}"
            root.mkdir()
            left = min(kills - self.tally.tries, self.plan.randint(4, _MOST_KILLS))
            while not (root / _WEIGHTS).exists():
                if not self._attempt(root, kill=left > 0):
                    break  # lost: what hangs or fails once may do so at every start
                left -= 1
            else:
                self._compare(root)
            shutil.rmtree(root)
        self.tally.notes.append(f"{number} runs of {_STEPS} steps, a checkpoint every {_EVERY}")

    def _compare(self, root: Path) -> None:
        made = (root / _WEIGHTS).read_bytes(), (root / "steps").read_text()
        self.tally.expect(made[0] == self.expected[0], f"{root}: other weights than the unbroken run's")
        self.tally.expect(made[1] == self.expected[1], f"{root}: other steps or losses than the unbroken run's")

    def _attempt(self, root: Path, *, kill: bool) -> bool:
        """Start the run once; return whether another start may continue it. Ranks that hang or fail lose it."""
        from trainer.checkpoints import is_complete

        strike: Callable[[], object] = lambda: None  # noqa: E731
        after = None
        if kill and self.plan.random() < 0.5:
            after = self.plan.uniform(0, self.seconds)
        elif kill:
            strike = self._aimed(root)
        codes = self._run(root, strike, after)
        self.tally.tries += codes is None or any(codes)
        continues = codes is not None and (-signal.SIGKILL in codes or not any(codes))
        if not continues:
            ended = f"ended with {codes}" if codes else f"hung for {_HANGS_SECONDS:.0f} s"
            self.tally.lose(f"{root}: ranks {ended}")
        for path in (root / "checkpoints").glob("step-*"):
            self.tally.expect(is_complete(path), f"{path} is not complete")
        return continues

    def _aimed(self, root: Path) -> Callable[[], object]:
        nth, first = self.plan.randint(1, self.operations // 3), self.plan.random() < 0.5

        def reached(number: int, before: bool) -> None:
            if number == nth and before is first:
                os.kill(os.getpid(), signal.SIGKILL)

        return lambda: faults.wrap([str(root / "checkpoints")], reached)

    def _run(self, root: Path, strike: Callable[[], object], after: float | None = None) -> list[int] | None:
        """Start all ranks, perhaps kill one of them after some seconds; return how each ended, None: they hung."""
        meeting = root / f"meeting-{time.monotonic_ns()}"
        # Quiet, because of two ranks the other one complains when its peer is gone.
        works = [partial(self._rank, rank, root, meeting, strike) for rank in range(self.ranks)]
        children = [in_child(work, quiet=self.ranks > 1) for work in works]
        ended: dict[int, int] = {}
        begun, victim, hung = time.monotonic(), self.plan.choice(children), False
        while len(ended) < len(children):
            for child in children:
                if child not in ended and (done := os.waitpid(child, os.WNOHANG))[0]:
                    ended[child] = os.waitstatus_to_exitcode(done[1])
            now = time.monotonic() - begun
            left = set(children) - set(ended)
            hung = hung or (bool(left) and now > _HANGS_SECONDS)
            if hung or -signal.SIGKILL in ended.values():
                # As torchrun does, so that the other is gone before the next start.
                for child in left:
                    faults.kill(child)
            elif after is not None and now > after and victim in left:
                faults.kill(victim)
            time.sleep(0.002)
        return None if hung else [ended[child] for child in children]

    def _rank(self, rank: int, root: Path, meeting: Path, strike: Callable[[], object]) -> None:
        """Be one rank of one start: go on from the newest checkpoint to the end."""
        import torch
        import torch.distributed as dist

        from trainer.checkpoints import Checkpoints
        from trainer.distributed import World

        if self.ranks > 1:
            dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=self.ranks)
        if rank == 0:
            strike()
        world = World(rank=rank, local_rank=rank, size=self.ranks, device=torch.device("cpu"))
        self.setup.world = world
        torch.manual_seed(rank)  # dropout differs between ranks
        loop = self.setup.loop(_STEPS)
        checkpoints = Checkpoints(folder=root / "checkpoints", keep=2, settings={})
        latest = world.broadcast(checkpoints.latest() if rank == 0 else None)
        state = checkpoints.load(latest, loop, world) if latest else _first_state(loop)
        log = root / "steps"
        if rank == 0:
            kept = log.read_text().splitlines(keepends=True)[: state.step] if log.exists() else []
            files.write_text(log, "".join(kept))

        def on_step(state: State, result: StepResult) -> None:
            if rank == 0:
                with log.open("a") as out:
                    out.write(f"{state.step} {result.loss!r}\n")
            if state.step % _EVERY == 0:
                checkpoints.save(loop, state, world)

        loop.run(state, on_step)
        if rank == 0:
            os.link(root / "checkpoints" / f"step-{_STEPS}" / _WEIGHTS, root / _WEIGHTS)


def _first_state(loop: Loop) -> State:
    from tests.trainer.helpers import new_state

    return new_state(loop, bins_per_step=2, bin_tokens=200, steps=_STEPS)
