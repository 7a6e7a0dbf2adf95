"""One run on one world size after another: four ranks begin it, two go on, three end it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from tests.trainer.helpers import Setup, new_state, note_learned
from trainer.checkpoints import Checkpoints
from trainer.loop import StepResult
from trainer.state import State

BINS_PER_STEP, BIN_TOKENS = 4, 200
EPOCHS = 2
END = 99
RELAY = ((4, 2), (2, 4), (3, END))
"""World sizes and the steps they go to; an epoch has three, so two ranks go from one into the next."""


def relay(setup: Setup, folder: Path, until: int) -> dict[str, Any]:
    """Go on from the last checkpoint, if any, to a step and save there, as a stopped run does."""
    loop, store = setup.loop(1), Checkpoints(folder=folder, keep=1, settings={})
    latest = store.latest()
    if latest is None:
        state = new_state(loop, bins_per_step=BINS_PER_STEP, bin_tokens=BIN_TOKENS, steps=1)
        state.total_steps = EPOCHS * state.steps_per_epoch
        loop.start(state.total_steps)
    else:
        state = store.load(latest, loop, setup.world)
    row = note_learned(setup, loop)
    learned: dict[str, list[int]] = {str(epoch): [] for epoch in range(EPOCHS)}
    losses: list[float] = []

    def on_step(state: State, result: StepResult) -> None:
        losses.append(result.loss)
        learned[str((state.step - 1) // state.steps_per_epoch)] += row
        row.clear()
        if state.step == until:
            store.save(loop, state, setup.world)
            raise StopIteration

    with contextlib.suppress(StopIteration):
        loop.run(state, on_step)
    return {"losses": losses, "learned": learned, "step": state.step, "steps_per_epoch": state.steps_per_epoch}
