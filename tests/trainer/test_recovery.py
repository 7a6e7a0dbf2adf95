"""Memory that runs out and losses that are no numbers, planted: the run goes on, and says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from demo.corpus import Pair
from mtft.errors import Diverged, InputError
from tests.trainer.helpers import ALONE, KEYS, Practised, Setup, build, new_state, segments_of, train
from tests.trainer.trainings import (
    STEPS,
    blow_up,
    killed_at,
    killed_when_it_has_gone_back,
    kinds,
    lines,
    spoil,
    stopped_after,
    training,
)
from trainer.checkpoints import Checkpoints
from trainer.distributed import World
from trainer.evaluation import mean_nll
from trainer.generation import Decoding, translate
from trainer.host_memory import mark
from trainer.loop import Loop
from trainer.state import State

Standins = Callable[[str], Path]
BIN_TOKENS = 400
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.fixture
def setup(standins: Standins, short_text: list[Pair]) -> Setup:
    return build(KEYS["mbart50"], standins("mbart50"), short_text)


@contextmanager
def room_for(setup: Setup, tokens: int, error: BaseException = OUT_OF_MEMORY[0]) -> Iterator[list[int]]:
    """Let the model raise on more padded tokens than these; give the size of every micro-batch that was tried."""
    tried: list[int] = []

    def refuse(_: Any, __: Any, given: dict[str, Any]) -> None:
        tried.append(given["input_ids"].numel() + given["decoder_input_ids"].numel())
        if tried[-1] > tokens:
            raise error

    handle = setup.model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield tried
    finally:
        handle.remove()


def begin(setup: Setup, **options: Any) -> tuple[Loop, State]:
    loop = setup.loop(STEPS, **options)
    return loop, new_state(loop, bins_per_step=2, bin_tokens=BIN_TOKENS, steps=STEPS)


class TestOutOfMemory:
    @pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
    def test_halves_the_micro_batch_and_keeps_the_batch(
        self, error: BaseException, standins: Standins, short_text: list[Pair], tmp_path: Path
    ) -> None:
        expected = train(*begin(build(KEYS["mbart50"], standins("mbart50"), short_text)))
        setup = build(KEYS["mbart50"], standins("mbart50"), short_text)
        loop, state = begin(setup)
        with room_for(setup, 150, error) as tried:
            results = train(loop, state)
        assert max(tried) > 150 and sum(size > 150 for size in tried) <= 3, "it learns what fits"
        assert [result.rows for result in results] == [result.rows for result in expected]
        assert [result.loss for result in results] == pytest.approx([result.loss for result in expected], rel=1e-4)
        norms = [result.grad_norm for result in expected]
        assert [result.grad_norm for result in results] == pytest.approx(norms, rel=1e-3)
        assert state.micro_batch_tokens is not None and state.micro_batch_tokens <= 150 < state.budget.bin_tokens
        store = Checkpoints(folder=tmp_path, keep=1, settings={})
        store.save(loop, state, ALONE)
        again = store.load(tmp_path / f"step-{STEPS}", setup.loop(STEPS), ALONE)
        assert again.micro_batch_tokens == state.micro_batch_tokens

    def test_a_single_row_that_does_not_fit_ends_the_run_with_advice(self, setup: Setup) -> None:
        loop, state = begin(setup)
        with room_for(setup, 10), pytest.raises(InputError, match=r"single row of \d+ source .*gradient_checkpointing"):
            train(loop, state)
        assert state.step == 0

    def test_any_other_error_is_none_of_its_business(self, setup: Setup) -> None:
        with room_for(setup, 10, RuntimeError("a mistake")), pytest.raises(RuntimeError, match="a mistake"):
            train(*begin(setup))

    def test_scores_are_the_same_in_smaller_batches(self, practised: Callable[[str], Practised]) -> None:
        learned = practised("mbart50")
        setup = build(KEYS["mbart50"], learned.folder, learned.pairs)
        segments, _ = segments_of(setup.card, learned.pairs)
        decoding = Decoding(beams=2, batch_tokens=2000, dtype=torch.float32)

        def scores(parts: int = 1) -> tuple[float, list[str]]:
            nll = mean_nll(
                setup.model, setup.rows, range(12), ALONE, dtype=torch.float32, batch_tokens=2000, parts=parts
            )
            cut = replace(decoding, parts=parts)
            return nll, [each.text for each in translate(setup.model, setup.encoder, segments, cut, ALONE)]

        nll, texts = scores()
        encoded: list[int] = []

        def refuse(_: Any, __: Any, given: dict[str, Any]) -> None:
            encoded.append(given["input_ids"].shape[0])
            if encoded[-1] > 4:
                raise OUT_OF_MEMORY[0]

        handle = setup.base.get_encoder().register_forward_pre_hook(refuse, with_kwargs=True)
        less, same = scores()
        assert encoded[:3] == [12, 6, 3] and same == texts
        assert less == pytest.approx(nll, rel=1e-5)
        encoded.clear()  # a start that knows from the one before
        assert scores(parts=4)[1] == texts and max(encoded) == 3
        handle.remove()

    def test_a_start_that_the_kernel_ended_halves_the_next_one_once(self, setup: Setup, tmp_path: Path) -> None:
        mark(tmp_path / "attempt-1", 0)
        mark(tmp_path / "attempt-1", 1)  # two nodes, one start
        first = training(setup, tmp_path).run()
        assert (first.micro_batch_tokens, first.memory_kills) == (first.budget.bin_tokens // 2, 1)
        assert training(setup, tmp_path).run().micro_batch_tokens == first.micro_batch_tokens
        mark(tmp_path / "attempt-2", 0)
        assert training(setup, tmp_path).run().micro_batch_tokens == first.budget.bin_tokens // 4
        assert kinds(tmp_path).count("out_of_memory") == 2

    def test_a_start_that_the_kernel_ended_counts_once_whatever_comes_after(self, setup: Setup, tmp_path: Path) -> None:
        """Two starts that reach no checkpoint, then one that goes back to one from before."""
        stopped_after(training(setup, tmp_path), 4)
        mark(tmp_path / "attempt-1", 0)
        for _ in range(2):
            stopped_after(training(setup, tmp_path, max_skipped_steps=0), 1)
        assert kinds(tmp_path).count("out_of_memory") == 1
        run = training(setup, tmp_path, max_skipped_steps=0)
        spoil(run.loop, 1)
        run.loop.run = killed_when_it_has_gone_back(run)  # type: ignore[method-assign]
        with pytest.raises(SystemExit):
            run.run()
        (back,) = (line["step"] for line in lines(tmp_path) if line["type"] == "went_back")
        state = training(setup, tmp_path).run()
        assert (back, state.micro_batch_tokens) == (2, state.budget.bin_tokens // 2)
        assert kinds(tmp_path).count("out_of_memory") == 1


class TestDivergence:
    @pytest.mark.parametrize("where", ["loss", "gradient"])
    def test_a_broken_step_is_skipped_and_changes_nothing(self, setup: Setup, where: str) -> None:
        loop, state = begin(setup)
        spoil(loop, 2, where=where)
        seen: list[tuple[Any, ...]] = []

        def note(state: State, result: Any) -> None:
            weights = [p.detach().clone() for p in loop.parameters.values()]
            moments = [s["exp_avg"].clone() for s in loop.optimizer.state.values()]
            assert loop.scheduler is not None
            seen.append((result.skipped, weights, moments, loop.scheduler.last_epoch, state.skipped_in_a_row))

        loop.run(state, note)
        before, broken, after = seen[:3]
        assert (before[0], broken[0], after[0]) == (False, True, False)
        assert (before[3], broken[3], after[3]) == (1, 1, 2), "the schedule waits"
        assert (broken[4], after[4], state.skipped, state.step) == (1, 0, 1, STEPS)
        for part in (1, 2):
            assert all(torch.equal(one, other) for one, other in zip(before[part], broken[part], strict=True))
        assert not all(torch.equal(one, other) for one, other in zip(broken[1], after[1], strict=True))

    def test_too_many_in_a_row_go_back_once_at_half_the_rate(self, setup: Setup, tmp_path: Path) -> None:
        """Saved at step 2, broken from step 4 on, back to step 2; then all is well."""
        run = training(setup, tmp_path, max_skipped_steps=1, scheduler="constant", warmup_ratio=0.0)
        spoil(run.loop, 4, 5)
        state = run.run()
        assert (state.step, state.skipped, state.rate_factor) == (STEPS, 2, 0.5)
        told = lines(tmp_path)
        assert [line["step"] for line in told if line["type"] == "train"] == [1, 2, 3, 4, 5, 6]
        assert [line["lr"] for line in told if line["type"] == "train"] == [2e-3, 2e-3, 1e-3, 1e-3, 1e-3, 1e-3]
        (back,) = (line for line in told if line["type"] == "went_back")
        assert back["step"] == 2 and "back to step-2, with a peak rate of 0.001 instead of 0.002" in back["text"]

    @pytest.mark.parametrize("killed", [False, True])
    def test_a_dev_score_that_is_no_number_goes_back_before_it(
        self, setup: Setup, tmp_path: Path, killed: bool
    ) -> None:
        """The weights of step 4 are finite and useless, and saved before they are scored; maybe no more than saved."""
        run = training(setup, tmp_path, every_step=True)
        blow_up(run.loop, 4)
        if killed:
            run.dev_scores = killed_at(run.dev_scores, 5)
            with pytest.raises(SystemExit):
                run.run()
            run = training(setup, tmp_path, every_step=True)
        state = run.run()
        assert (state.step, state.rate_factor) == (STEPS, 0.5)
        (back,) = (line for line in lines(tmp_path) if line["type"] == "went_back")
        assert back["step"] == 3 and "dev NLL is nan at step 4: back to step-3" in back["text"]
        losses = [line["loss"] for line in lines(tmp_path) if line["type"] == "train"]
        assert len(losses) == STEPS and all(math.isfinite(loss) for loss in losses)

    @pytest.mark.parametrize("saved", [False, True])
    def test_a_kill_while_it_goes_back_leaves_it_before_or_after(
        self, setup: Setup, tmp_path: Path, saved: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = training(setup, tmp_path, every_step=True, max_skipped_steps=1)
        spoil(run.loop, 4, 5)

        def killed(kept: Checkpoints, loop: Loop, state: State, world: World, save: Any = Checkpoints.save) -> None:
            if state.rate_factor == 1 or saved:
                save(kept, loop, state, world)
            if state.rate_factor < 1:
                raise SystemExit

        with monkeypatch.context() as dying, pytest.raises(SystemExit):
            dying.setattr(Checkpoints, "save", killed)
            run.run()
        assert not [line for line in lines(tmp_path) if line["type"] == "went_back"]
        state = training(setup, tmp_path, every_step=True, max_skipped_steps=1).run()
        told = [line for line in lines(tmp_path) if line["type"] == "went_back"]
        assert (state.rate_factor, len(told), state.skipped) == ((0.5, 1, 2) if saved else (1.0, 0, 0))
        assert [line["step"] for line in lines(tmp_path) if line["type"] == "train"] == [1, 2, 3, 4, 5, 6]

    def test_what_was_recovered_from_and_scored_stays_written(self, setup: Setup, tmp_path: Path) -> None:
        run = training(setup, tmp_path, every_step=True, max_skipped_steps=1)
        spoil(run.loop, 4, 5)
        run.loop.run = killed_when_it_has_gone_back(run)  # type: ignore[method-assign]
        with pytest.raises(SystemExit):
            run.run()
        state = training(setup, tmp_path, every_step=True).run()
        told = lines(tmp_path)
        skipped = [line["step"] for line in told if line["type"] == "skipped" and line["rows"]]
        assert skipped == [4, 5] and state.skipped == 2
        scored = {line["step"]: line["nll"] for line in told if line["type"] == "eval"}
        assert list(scored) == list(range(STEPS + 1))
        assert state.best.value == min(scored.values())

    @pytest.mark.parametrize(("keep", "back_to"), [(2, 0), (1, 2)])
    def test_a_checkpoint_that_only_skips_came_after_is_the_last_choice(
        self, setup: Setup, tmp_path: Path, keep: int, back_to: int
    ) -> None:
        run = training(setup, tmp_path, max_skipped_steps=0)
        run.checkpoints = replace(run.checkpoints, keep=keep)
        spoil(run.loop, 3)
        run.run()
        assert [line["step"] for line in lines(tmp_path) if line["type"] == "went_back"] == [back_to]

    def test_a_start_after_that_knows_and_ends_with_advice(self, setup: Setup, tmp_path: Path) -> None:
        run = training(setup, tmp_path, max_skipped_steps=0)
        spoil(run.loop, 3)
        run.loop.run = killed_when_it_has_gone_back(run)  # type: ignore[method-assign]
        with pytest.raises(SystemExit):
            run.run()
        again = training(setup, tmp_path, max_skipped_steps=0)
        spoil(again.loop, 2)
        with pytest.raises(Diverged) as found:
            again.run()
        for part in ("loss nan", "again after it went back", "Lower train.learning_rate", "The rows", "'"):
            assert part in str(found.value)
        assert Diverged.exit_code == 3

    def test_in_the_very_first_steps_it_begins_anew(self, setup: Setup, tmp_path: Path) -> None:
        run = training(setup, tmp_path, max_skipped_steps=0)
        before = [p.detach().clone() for p in run.loop.parameters.values()]
        spoil(run.loop, 1)
        start = run.loop.step
        seen: list[bool] = []

        def noted(*arguments: Any, **options: Any) -> Any:
            seen.append(all(torch.equal(p, b) for p, b in zip(run.loop.parameters.values(), before, strict=True)))
            return start(*arguments, **options)

        run.loop.step = noted  # type: ignore[method-assign]
        state = run.run()
        assert (state.step, state.rate_factor) == (STEPS, 0.5)
        assert seen == [True, True] + [False] * (STEPS - 1)


def test_processes_that_a_run_has_no_micro_batch_for_are_told_once_at_its_start(
    setup: Setup, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Crowd(World):
        def broadcast(self, value: Any) -> Any:
            return value

    stopped_after(training(setup, tmp_path), 3)
    again = training(setup, tmp_path)
    bins = again._start().budget.bins_per_step
    assert "only wait" not in capsys.readouterr().out
    again.world = Crowd(rank=0, local_rank=0, size=bins + 2, device=ALONE.device)
    again._start()
    [told] = [line for line in capsys.readouterr().out.splitlines() if "only wait" in line]
    assert told.startswith(f"2 of {bins + 2} processes") and f"Give it {bins} processes at most" in told


@pytest.mark.parametrize("diverging", [False, True])
def test_lines_of_several_steps_are_those_of_a_run_that_nothing_happened_to(
    standins: Standins, short_text: list[Pair], tmp_path: Path, diverging: bool
) -> None:
    """Back to step 2, in the middle of a line, after a kill at step 3 or after two skipped steps."""
    logged = []
    for folder, harmed in ((tmp_path / "unbroken", False), (tmp_path / "harmed", True)):
        setup = build(KEYS["mbart50"], standins("mbart50"), short_text)
        options: dict[str, Any] = {"log_every": 4, "max_skipped_steps": 1}
        if diverging:  # half of it is the same
            options["learning_rate"] = 0.0
        run = training(setup, folder, **options)
        if harmed and diverging:
            spoil(run.loop, 4, 5)
        elif harmed:
            stopped_after(run, 3)
            run = training(setup, folder, **options)
        run.run()
        logged.append([(x["step"], x["loss"], x["nll"], x["target_tokens"]) for x in lines(folder) if "loss" in x])
    assert [each[0] for each in logged[0]] == [4, STEPS]
    assert logged[0] == logged[1]
