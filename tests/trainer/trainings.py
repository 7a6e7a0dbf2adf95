"""A small training, and what may happen to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.helpers import ALONE, Setup
from trainer.checkpoints import Checkpoints
from trainer.evaluation import mean_nll
from trainer.host_memory import kills
from trainer.loop import Loop
from trainer.progress import Reporter
from trainer.training import Training

STEPS = 6


def training(setup: Setup, folder: Path, *, every_step: bool = False, log_every: int = 1, **options: Any) -> Training:
    """Return a training of ``STEPS`` steps that saves every second step in ``folder``, or scores and saves each."""
    options = {"max_steps": STEPS, "batch_size": 4, **options}
    checkpoint = setup.config.checkpoint.model_copy(update={"every_steps": 2})
    evaluation = setup.config.eval.model_copy(update={"every": 1e-9 if every_step else 100.0})
    train = setup.config.train.model_copy(update=options)
    config = setup.config.model_copy(update={"train": train, "checkpoint": checkpoint, "eval": evaluation})
    loop = Loop(config, ALONE, setup.model, setup.rows, torch.float32)
    reporter = Reporter(folder / "metrics.jsonl", tensorboard=None, every=log_every, device=ALONE.device)

    def dev_scores() -> dict[str, Any]:
        nll = mean_nll(setup.model, setup.rows, range(3), ALONE, dtype=torch.float32, batch_tokens=1000)
        return {"nll": nll, "directions": {}}

    store = Checkpoints(folder=folder / "checkpoints", keep=2, settings={})
    return Training(loop, store, kills(folder), reporter, setup.encoder, dev_scores)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def kinds(folder: Path) -> list[str]:
    return [line["type"] for line in lines(folder)]


def spoil(loop: Loop, *steps: int, where: str = "loss") -> None:
    """Let these steps, counted over every try from 1, see a loss or a gradient that is no number."""
    taken = [0]
    step, accumulate = loop.step, loop.accumulate

    def counted(*arguments: Any, **options: Any) -> Any:
        taken[0] += 1
        return step(*arguments, **options)

    def spoiled(*arguments: Any) -> Any:
        sums = accumulate(*arguments)
        if taken[0] in steps and where == "gradient":
            next(iter(loop.parameters.values())).grad.fill_(math.inf)  # type: ignore[union-attr]
        return sums._replace(smoothed=sums.smoothed * math.nan) if taken[0] in steps and where == "loss" else sums

    loop.step, loop.accumulate = counted, spoiled  # type: ignore[method-assign, assignment]


def blow_up(loop: Loop, last: int) -> None:
    """Let the weights after this step be finite, but too large to compute with."""
    step, taken = loop.step, [0]

    def blown(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        taken[0] += 1
        if taken[0] == last:
            with torch.no_grad():
                for parameter in loop.parameters.values():
                    parameter.mul_(1e30)
        return result

    loop.step = blown  # type: ignore[method-assign]


def killed_at(scores: Callable[[], dict[str, Any]], call: int) -> Callable[[], dict[str, Any]]:
    """Return the scoring, which is never done with this call."""
    calls = [0]

    def scored() -> dict[str, Any]:
        calls[0] += 1
        if calls[0] == call:
            raise SystemExit
        return scores()

    return scored


def stopped_after(run: Training, steps: int) -> None:
    """Run, and be killed once so many steps are taken."""
    step, taken = run.loop.step, [0]

    def counted(*arguments: Any, **options: Any) -> Any:
        if taken[0] == steps:
            raise SystemExit
        taken[0] += 1
        return step(*arguments, **options)

    run.loop.step = counted  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        run.run()


def killed_when_it_has_gone_back(run: Training) -> Callable[..., None]:
    """Return the loop's ``run``, which never begins its second go."""
    original, goes = run.loop.run, [0]

    def go(*arguments: Any, **options: Any) -> None:
        goes[0] += 1
        if goes[0] == 2:
            raise SystemExit
        original(*arguments, **options)

    return go
