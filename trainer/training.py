"""From the trainable model to its last step: begin or resume, save, evaluate, and go back once after divergence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from mtft.errors import Diverged, InputError, Retry
from trainer import evaluation
from trainer.batching import make_budget
from trainer.checkpoints import Checkpoints
from trainer.distributed import precision_name
from trainer.encoding import Encoder
from trainer.loop import Loop, StepResult
from trainer.processes import STOP_SIGNALS, answering
from trainer.progress import Reporter
from trainer.saving import SaveTimer, StopTime
from trainer.state import State, steps_of

ADVICE = "Lower train.learning_rate, raise train.warmup_ratio, look at the data, or set train.precision: fp32."
_SLOWER = 0.5  # the learning rate after going back, relative to before
_SHOWN_ROWS = 3
_SHOWN_CHARACTERS = 80


class Training:
    """Takes a run's steps.

    Args:
        loop: takes a step.
        checkpoints: those of the run.
        memory_kills: earlier starts that the kernel ended for want of host memory.
        reporter: tells and writes down what happens.
        encoder: reads token rows back, where a person should see them.
        dev_scores: scores the model on dev; every rank calls it and gets the same.
    """

    def __init__(
        self,
        loop: Loop,
        checkpoints: Checkpoints,
        memory_kills: int,
        reporter: Reporter,
        encoder: Encoder,
        dev_scores: Callable[[], dict[str, Any]],
    ) -> None:
        self.config = loop.config
        self.world = loop.world
        self.loop = loop
        self.checkpoints = checkpoints
        self.memory_kills = memory_kills
        self.reporter = reporter
        self.encoder = encoder
        self.dev_scores = dev_scores
        self.stopping = False  # whether this process was asked to
        self.timer = SaveTimer(self.config.checkpoint.every_minutes)
        self._stop_time = StopTime(self.config.cluster.longest_step_seconds)
        self._micro_batch_tokens: int | None = None
        self._suspects = ""  # sources of the last skipped step
        self._unheeded: Mapping[int, Any] = {}  # what stop signals do where nothing heeds them

    def run(self) -> State:
        """Train to the end and return the state there.

        Raises:
            Retry: asked to stop; a checkpoint holds what was done.
            Diverged: again after the run went back to a checkpoint, at a lower rate.
        """
        state = self._start()
        while True:
            try:
                self._evaluate_if_due(state)  # a checkpoint is older than the evaluation of its step
                with answering(dict.fromkeys(STOP_SIGNALS, self._ask_to_stop)) as self._unheeded:
                    self.loop.run(
                        state, self._on_step, stop_asked=lambda: self.stopping, save_wanted=lambda: self.timer.due()
                    )
                break
            except Diverged as diverged:
                state = self._go_back(state, diverged)
        if self.stopping:
            raise Retry("asked to stop after the last step: the next start takes the newest checkpoint to its end")
        return state

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        """Let the step be finished and saved; before and after the steps there is nothing to save."""
        self.stopping = True

    def _start(self) -> State:
        # Rank 0 looks for all: the others may see a new folder on a shared volume at other times.
        wanted = self.config.checkpoint.resume == "auto" and self.world.is_main
        latest = self.world.broadcast(self.checkpoints.latest() if wanted else None)
        if wanted and (damaged := self.checkpoints.damaged_after(latest)):
            self.reporter.say(f"passed over, as damaged: {', '.join(damaged)} in {self.checkpoints.folder}")
        if latest is None:
            state = self._begin()
        else:
            state = self.checkpoints.load(latest, self.loop, self.world)
            if state.rate_factor < 1 and not self.reporter.has_gone_back():  # killed before it could be told
                self._tell_that_it_went_back(state, "an earlier start diverged")
            else:
                self.reporter.resume_at(state.step, evaluated=state.evaluated == state.step)
            self.reporter.say(f"continuing from {latest.name} of {state.total_steps} steps")
            self._tell(_idle(self.world.size, state))
        self._heed_memory_kills(state)
        return state

    def _begin(self) -> State:
        train, rows = self.config.train, self.loop.rows
        budget = make_budget(train, rows.source_lengths, rows.target_lengths, self.world.size)
        per_epoch = self.loop.steps_per_epoch(budget)
        total = steps_of(train.epochs, train.max_steps, per_epoch)
        state = State(total_steps=total, steps_per_epoch=per_epoch, budget=budget)
        self.loop.start(total)
        self.reporter.resume_at(0, evaluated=False)
        self._say_plan(state)
        self._evaluate(state)
        self._save(state)  # where a run goes back to that diverges before its first interval is over
        return state

    def _heed_memory_kills(self, state: State) -> None:
        """Halve the micro-batches for each start that the kernel ended for want of memory: nobody else could."""
        if self.memory_kills > state.memory_kills:
            tokens = state.micro_batch_tokens or state.budget.bin_tokens
            state.micro_batch_tokens = max(1, tokens // 2 ** (self.memory_kills - state.memory_kills))
            state.memory_kills = self.memory_kills
            self._save(state)  # first: a start after this one is not to tell it again
            self._tell_micro_batches(state, "the kernel ended an earlier start for want of host memory")
        self._micro_batch_tokens = state.micro_batch_tokens

    def _tell_micro_batches(self, state: State, why: str) -> None:
        self._micro_batch_tokens = state.micro_batch_tokens
        self.reporter.event(
            state.step,
            "out_of_memory",
            f"{why}: micro-batches of at most {state.micro_batch_tokens} padded tokens from now on, in the same "
            "optimizer steps as before",
            micro_batch_tokens=state.micro_batch_tokens,
        )

    def _on_step(self, state: State, result: StepResult) -> None:
        if result.micro_batch_tokens != self._micro_batch_tokens:
            self._tell_micro_batches(state, "out of memory")
        if result.skipped:
            self._tell_skipped(state, result)
        # An evaluation may be the last, and what is not told before is not told.
        self.reporter.step(state, result, told=not result.skipped and self._evaluation_is_due(state))
        self._tell(self._stop_time.step(result.seconds))
        by_steps = self.config.checkpoint.every_steps
        due = result.save or (by_steps is not None and state.step % by_steps == 0)
        # Before the evaluation, which may take longer than a preempted pod has, and for its weights, which may be the
        # best. While steps are skipped only a stop and the end save: what the run may go back to should lie before.
        stop = result.stop
        if stop or state.done or (not result.skipped and (due or self._evaluation_is_due(state))):
            self._save(state)
            # Asked meanwhile: another step and its save may take longer than a pod has.
            stop = stop or self.world.sum([float(self.stopping)])[0] > 0
        if stop:
            raise Retry(f"asked to stop: saved step {state.step} of {state.total_steps}; the next start goes on there")
        if not result.skipped or state.done:
            self._evaluate_if_due(state)

    def _save(self, state: State) -> None:
        seconds = self.timer.time(lambda: self.checkpoints.save(self.loop, state, self.world))
        self.reporter.saved(state.step, seconds)
        self._tell(self._stop_time.save(seconds))

    def _tell(self, remark: str | None) -> None:
        if remark:
            self.reporter.say(remark)

    def _tell_skipped(self, state: State, result: StepResult) -> None:
        text = (
            f"step {state.step} is skipped: loss {result.loss:g}, gradient norm {result.grad_norm:g} "
            f"({state.skipped_in_a_row} in a row, train.max_skipped_steps is {self.config.train.max_skipped_steps})"
        )
        if result.suspects:
            self._suspects = self._excerpts(result.suspects)
            text += f"; by the rows {self._suspects}"
        self.reporter.event(state.step, "skipped", text, rows=list(result.suspects))

    def _excerpts(self, rows: tuple[int, ...]) -> str:
        """Return the sources of the first of some rows, as the tokenizer reads them back."""
        ids = self.loop.rows.dataset[list(rows[:_SHOWN_ROWS])]["source_ids"].to_pylist()
        texts = ", ".join(f"'{text[:_SHOWN_CHARACTERS]}'" for text in self.encoder.decode(ids))
        return f"{texts} and {len(rows) - _SHOWN_ROWS} more" if len(rows) > _SHOWN_ROWS else texts

    def _go_back(self, state: State, diverged: Diverged) -> State:
        """Return to an earlier checkpoint at half the rate; a run does so once, however often it is started.

        Raises:
            Diverged: it did so before, or there is nothing to go back to.
        """
        chosen = self.world.broadcast(self._trusted(state) if self.world.is_main else None)
        if state.rate_factor < 1 or chosen is None:
            again = ", again after it went back to a checkpoint at half the rate" if state.rate_factor < 1 else ""
            rows = f" The rows of the last skipped step begin with {self._suspects}." if self._suspects else ""
            raise Diverged(f"{diverged}{again}. {ADVICE}{rows}") from None
        found = self.checkpoints.load(chosen, self.loop, self.world)
        found.rate_factor, found.skipped_in_a_row = _SLOWER, 0
        found.skipped = state.skipped
        found.micro_batch_tokens, found.memory_kills = state.micro_batch_tokens, state.memory_kills
        taken = self.loop.scheduler.last_epoch if self.loop.scheduler else 0
        self.loop.start(found.total_steps, found.rate_factor, taken)
        if self.world.is_main:
            self.checkpoints.drop_after(found.step)  # a start after a kill here must not go on from one of them
        self._save(found)  # a start after this one must know
        self._tell_that_it_went_back(found, str(diverged), from_step=state.step)
        return found

    def _tell_that_it_went_back(self, state: State, why: str, **values: int) -> None:
        self.reporter.resume_at(state.step, evaluated=state.evaluated == state.step, going_back=True)
        rate = self.config.train.learning_rate
        text = f"{why}: back to step-{state.step}, with a peak rate of {rate * _SLOWER:g} instead of {rate:g}"
        self.reporter.event(state.step, "went_back", text, **values)

    def _trusted(self, state: State) -> Path | None:
        """Return the newest checkpoint whose weights a good step or an evaluation came after; None without one.

        Where only skipped steps speak against a newer one, that may be the batches: it is better than none.
        """
        good = state.step - state.skipped_in_a_row  # since then the weights are what they are
        known = good if state.evaluated == good else good - 1
        found = self.checkpoints.latest(known)
        return self.checkpoints.latest() if found is None and state.skipped_in_a_row else found

    def _evaluate_if_due(self, state: State) -> None:
        if self._evaluation_is_due(state):
            self._evaluate(state)

    def _evaluation_is_due(self, state: State) -> bool:
        every = max(1, round(self.config.eval.every * state.steps_per_epoch))
        # One just before the last step would say what the last one says.
        scheduled = state.step % every == 0 and state.total_steps - state.step > every // 4
        return (scheduled or state.done) and state.evaluated != state.step

    def _evaluate(self, state: State) -> None:
        with answering(self._unheeded):  # this step is saved: a stop signal may end the rank
            if self.stopping:
                raise Retry(f"asked to stop: step {state.step} of {state.total_steps} is saved and not evaluated yet")
            scores = self.dev_scores()
        if not math.isfinite(scores["nll"]) and state.step == 0:
            raise InputError(_broken_base(scores["nll"], precision_name(self.loop.dtype)))
        if not math.isfinite(scores["nll"]):
            raise Diverged(f"training diverged: dev NLL is {scores['nll']} at step {state.step}")
        self.reporter.evaluation(state.step, "dev", scores)
        state.evaluated = state.step
        rule = self.config.eval.early_stopping
        state.best.update(evaluation.dev_metric(scores, rule.metric), state.step, rule)
        if state.best.exhausted(rule):
            state.stopped_early = True
            self.reporter.say(
                f"stopped early at step {state.step}: dev {rule.metric} has not improved by "
                f"{rule.threshold:.1%} for {rule.patience} evaluations"
            )

    def _say_plan(self, state: State) -> None:
        trained = sum(parameter.numel() for parameter in self.loop.parameters.values())
        rows = len(self.loop.rows)
        self.reporter.say(
            f"{self.encoder.card.key}: {self.config.method}, {trained:,} trained weights, {rows:,} rows, "
            f"{state.total_steps} steps of about {rows / state.steps_per_epoch:.0f} sentences "
            f"in {state.budget.bins_per_step} micro-batches, {self.world.size} processes on {self.world.device.type}"
        )


def _idle(processes: int, state: State) -> str | None:
    """Say that a run goes on with more processes than its steps have micro-batches; None: all have something to do."""
    bins = state.budget.bins_per_step
    if processes <= bins:
        return None
    return (
        f"{processes - bins} of {processes} processes only wait in each training step: this run began with {bins} "
        f"micro-batches in a step and keeps to them. Give it {bins} processes at most (cluster.nodes x "
        "cluster.processes_per_node), or start another run with --rerun"
    )


def _broken_base(nll: float, precision: str) -> str:
    text = (
        f"the untouched base gives a dev NLL of {nll} in {precision}: its checkpoint holds numbers that are not finite"
    )
    if precision == "fp32":
        return f"{text}; get it anew"
    return f"{text}, or it overflows; get it anew or set train.precision to fp32"
