"""The loop: schedule, clipping, decay, arithmetic, what a step reports, and when it stops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demo.corpus import Pair
from mtft.config import EarlyStoppingConfig
from mtft.errors import Diverged
from tests.trainer.helpers import (
    ALONE,
    KEYS,
    Practised,
    Setup,
    build,
    new_state,
    split,
    step_gradient,
    stir_adapters,
    train,
)
from trainer.batching import Budget
from trainer.checkpoints import Checkpoints
from trainer.collate import Batch
from trainer.loop import Loop, StepResult
from trainer.loss import LossSums
from trainer.state import BestScore, State, steps_of

Standins = Callable[[str], Path]
Bins = list[np.ndarray[Any, Any]]


@pytest.fixture
def setup(standins: Standins, short_text: list[Pair]) -> Setup:
    """A tiny mBART-50 with adapters that do something."""
    made = build(KEYS["mbart50"], standins("mbart50"), short_text)
    stir_adapters(made.model)
    return made


def bins_of(*rows: list[int]) -> Bins:
    return [np.array(its, dtype=np.int64) for its in rows]


class TestLearning:
    def test_every_step_of_full_fine_tuning_is_finite_and_the_pairs_are_learned(
        self, family: str, practised: Callable[[str], Practised]
    ) -> None:
        steps = practised(family).steps
        assert len(steps) >= 50
        assert all(math.isfinite(step.loss) and math.isfinite(step.grad_norm) for step in steps)
        assert steps[-1].nll < 0.2 < 6 < steps[0].nll

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_adapters_lower_the_loss(
        self, family: str, dtype: torch.dtype, standins: Standins, short_text: list[Pair]
    ) -> None:
        made = build(KEYS[family], standins(family), short_text[:8])
        loop = Loop(made.config, ALONE, made.model, made.rows, dtype)
        loop.start(10)
        results = train(loop, new_state(loop, bins_per_step=1, bin_tokens=2000, steps=10))
        assert results[-1].loss < results[0].loss - 0.01
        assert {parameter.dtype for parameter in loop.parameters.values()} == {torch.float32}


class TestStep:
    def test_reports_what_it_saw(self, setup: Setup) -> None:
        loop = setup.loop(10)
        bins = bins_of([0, 1, 2], [3, 4])
        result = loop.step(bins)
        sources, targets = setup.rows.source_lengths, setup.rows.target_lengths
        assert result.rows == 5
        assert result.target_tokens == targets[:5].sum()
        assert result.real_tokens == sources[:5].sum() + targets[:5].sum()
        padded = sum(len(rows) * (sources[rows].max() + targets[rows].max()) for rows in bins)
        assert result.padded_tokens == padded > result.real_tokens
        assert (result.stop, result.save) == (False, False)

    def test_passes_on_that_it_was_asked_to_stop_or_save(self, setup: Setup) -> None:
        loop = setup.loop(10)
        computed: list[int] = []
        accumulate = loop.accumulate

        def counted(batch: Batch, weight: float) -> LossSums:
            computed.append(1)
            return accumulate(batch, weight)

        loop.accumulate = counted  # type: ignore[method-assign]
        assert loop.step(bins_of([0]), stop_asked=lambda: len(computed) == 1).stop, "asked while it computes"
        assert loop.step(bins_of([0]), save_wanted=lambda: len(computed) == 2).save

    def test_gradient_is_clipped_as_a_whole(self, setup: Setup) -> None:
        norms: list[float] = []

        def measure(*_: Any) -> None:
            gradients = [p.grad.flatten() for p in loop.parameters.values() if p.grad is not None]
            norms.append(float(torch.cat(gradients).norm()))

        for limit in (0.0, 0.01):
            loop = setup.loop(100, max_grad_norm=limit, learning_rate=0.0)
            loop.optimizer.register_step_pre_hook(measure)
            result = loop.step(bins_of([0, 1, 2, 3]))
            assert result.grad_norm > 0.02  # measured before clipping
        assert norms == [pytest.approx(result.grad_norm, rel=1e-4), pytest.approx(0.01, rel=1e-3)]

    def test_gradients_do_not_add_up_over_steps(self, setup: Setup) -> None:
        first = step_gradient(setup, split(8, 2))[0]
        loop = setup.loop(100, learning_rate=0.0)
        loop.model.eval()
        loop.step(bins_of([*range(8)]))
        assert loop.step(bins_of([*range(8)])).grad_norm == pytest.approx(first.grad_norm, rel=1e-4)


class TestOptimizer:
    def test_half_precision_skips_a_step_that_overflows_and_goes_on(self, setup: Setup, tmp_path: Path) -> None:
        loop = Loop(setup.config, ALONE, setup.model, setup.rows, torch.float16)
        loop.start(10)
        loop.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
        before = {name: parameter.detach().clone() for name, parameter in loop.parameters.items()}
        skipped = loop.step(bins_of([0, 1]))
        assert math.isfinite(skipped.loss) and not math.isfinite(skipped.grad_norm)
        assert all(torch.equal(parameter, before[name]) for name, parameter in loop.parameters.items())
        assert loop.scaler.get_scale() == 2.0**39
        assert loop.scheduler is not None and loop.scheduler.last_epoch == 0, "a skipped step is not in the schedule"
        loop.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        taken = loop.step(bins_of([0, 1]))
        assert math.isfinite(taken.grad_norm) and loop.scheduler.last_epoch == 1
        state = new_state(loop, bins_per_step=2, bin_tokens=400, steps=10)
        Checkpoints(folder=tmp_path, keep=1, settings={}).save(loop, state, ALONE)
        again = Loop(setup.config, ALONE, setup.model, setup.rows, torch.float16)
        saved = Checkpoints(folder=tmp_path, keep=1, settings={})
        saved.load(tmp_path / "step-0", again, ALONE)
        assert again.scaler.state_dict() == loop.scaler.state_dict()

    def test_half_precision_that_overflows_at_every_scale_has_diverged(self, setup: Setup) -> None:
        loop = Loop(setup.config, ALONE, setup.model, setup.rows, torch.float16)
        loop.start(10)
        loop.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
        next(iter(loop.parameters.values())).register_hook(lambda gradient: gradient * math.inf)  # type: ignore[no-untyped-call]
        with pytest.raises(Diverged, match="overflow fp16"):
            loop.step(bins_of([0, 1]))

    def test_biases_and_norms_are_not_decayed(self, standins: Standins, short_text: list[Pair]) -> None:
        made = build(KEYS["mbart50"], standins("mbart50"), short_text, method="full")
        loop = made.loop(10, weight_decay=0.3)
        decayed, spared = ({id(p) for p in group["params"]} for group in loop.optimizer.param_groups)
        assert [group["weight_decay"] for group in loop.optimizer.param_groups] == [0.3, 0.0]
        by_name = {name: id(parameter) for name, parameter in loop.parameters.items()}
        assert {name for name, its in by_name.items() if its in spared} == {
            name for name in by_name if name.endswith(".bias") or "norm" in name
        }
        assert decayed | spared == set(by_name.values())

    @pytest.mark.parametrize(
        ("scheduler", "shape"),
        [
            ("linear", [0.3333, 0.6667, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
            ("cosine", [0.3333, 0.6667, 1.0, 0.962, 0.854, 0.691, 0.5, 0.309, 0.146, 0.038]),
            ("constant", [0.3333, 0.6667] + 8 * [1.0]),
        ],
    )
    def test_rate_rises_to_its_peak_and_falls_as_asked(self, setup: Setup, scheduler: str, shape: list[float]) -> None:
        loop = setup.loop(10, scheduler=scheduler, warmup_ratio=0.15, learning_rate=0.01)  # 2 steps of warm-up
        state = new_state(loop, bins_per_step=1, bin_tokens=100, steps=10)
        rates = [result.learning_rate for result in train(loop, state)]
        assert rates == pytest.approx([0.01 * part for part in shape], abs=1e-5)

    def test_a_single_step_is_not_taken_in_vain(self, setup: Setup) -> None:
        loop = setup.loop(1, learning_rate=0.01)
        assert 0 < loop.step(bins_of([0, 1])).learning_rate <= 0.01


class TestRun:
    def test_goes_on_through_the_epochs_until_the_last_step(self, setup: Setup) -> None:
        loop = setup.loop(1)
        state = new_state(loop, bins_per_step=2, bin_tokens=300, steps=1)
        assert state.steps_per_epoch > 2
        state.total_steps = 2 * state.steps_per_epoch + 1
        loop.start(state.total_steps)
        results = train(loop, state)
        assert len(results) == state.total_steps == state.step
        assert (state.epoch, state.position, state.done) == (2, 1, True)
        epoch = results[: state.steps_per_epoch]
        assert sum(result.rows for result in epoch) == len(setup.rows)
        assert state.rows == sum(result.rows for result in results)

    def test_epochs_differ_in_what_they_mix(self, setup: Setup) -> None:
        loop = setup.loop(1)
        budget = Budget(bins_per_step=2, bin_tokens=300)
        seen: list[set[frozenset[int]]] = []
        for epoch in (0, 1):
            plan = loop._plan(budget, epoch)
            seen.append({frozenset(int(row) for rows in bins for row in rows) for bins in plan})
        assert seen[0] != seen[1]

    def test_asks_before_every_step(self, setup: Setup) -> None:
        loop = setup.loop(3)
        state = new_state(loop, bins_per_step=1, bin_tokens=300, steps=3)
        seen: list[StepResult] = []
        loop.run(state, lambda _, r: seen.append(r), stop_asked=lambda: len(seen) == 1, save_wanted=lambda: not seen)
        assert [(result.stop, result.save) for result in seen] == [(False, True), (True, False), (False, False)]


class TestState:
    @pytest.mark.parametrize(
        ("epochs", "max_steps", "expected"),
        [(1, None, 40), (0.25, None, 10), (0.26, None, 11), (1e-6, None, 1), (1, 7, 7)],
    )
    def test_steps_of_a_run(self, epochs: float, max_steps: int | None, expected: int) -> None:
        assert steps_of(epochs, max_steps, 40) == expected

    def test_survives_json(self) -> None:
        budget = Budget(bins_per_step=2, bin_tokens=100)
        state = State(total_steps=9, steps_per_epoch=4, budget=budget, best=BestScore(value=1.5, step=3, waited=1))
        for _ in range(5):
            state.advance(3)
        again = State.from_dict(json.loads(json.dumps(state.to_dict())))
        assert again == state
        assert (again.step, again.epoch, again.position, again.rows) == (5, 1, 1, 15)

    @pytest.mark.parametrize(
        ("metric", "scores", "best", "waited"),
        [
            ("nll", [2.0, 1.5, 1.6, 1.7], (1.5, 1), 2),
            ("chrf", [20.0, 30.0, 29.0, 31.0], (31.0, 3), 0),
            # Better by less than 1 %: the best so far, yet no reason to wait longer.
            ("nll", [2.0, 1.99, 1.985], (1.985, 2), 2),
            ("bleu", [0.0, 0.0, 0.1], (0.1, 2), 0),
        ],
    )
    def test_best_score_and_patience(
        self, metric: str, scores: list[float], best: tuple[float, int], waited: int
    ) -> None:
        rule = EarlyStoppingConfig.model_validate({"metric": metric, "patience": 2, "threshold": 0.01})
        tracker = BestScore()
        for step, score in enumerate(scores):
            tracker.update(score, step, rule)
        assert (tracker.value, tracker.step) == best
        assert tracker.waited == waited
        assert tracker.exhausted(rule) == (waited >= 2)

    def test_no_patience_never_stops(self) -> None:
        assert not BestScore(value=1.0, waited=99).exhausted(EarlyStoppingConfig())
