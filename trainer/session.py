"""One run on one rank, from the loaded base model to ``finished.json``."""

from __future__ import annotations

import gc
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from mtft import files
from mtft.config import Config
from mtft.errors import Diverged, InputError, Retry
from mtft.models import ModelCard
from trainer import evaluation, finish, published
from trainer.adapters import check_targets, make_trainable
from trainer.batching import make_budget
from trainer.checkpoints import Checkpoints, is_complete, load_weights
from trainer.distributed import World, choose_precision, precision_name
from trainer.encoding import Encoder
from trainer.export import all_finite, export
from trainer.generation import Decoding
from trainer.loading import load_base
from trainer.loop import Loop, StepResult
from trainer.pairs import Pair, sampled
from trainer.prepared_run import PreparedRun
from trainer.processes import STOP_SIGNALS
from trainer.progress import Reporter
from trainer.rows import TokenRows
from trainer.state import State, steps_of

_ADVICE = "Lower train.learning_rate, raise train.warmup_ratio, or look at the data."


class Session:
    """Holds what a run needs and walks through its phases.

    Attributes:
        prepared_run: resolved configuration, card, paths and prepared data.
        world: this rank.
        stopping: whether this process was asked to stop.
    """

    def __init__(self, run: PreparedRun, world: World) -> None:
        self.prepared_run = run
        self.config: Config = run.config
        self.card: ModelCard = run.card
        self.paths = run.paths
        self.world = world
        self.stopping = False
        self.last_save = time.monotonic()
        self.dtype = choose_precision(self.config, world.device)
        settings = self.config.eval
        self.decoding = Decoding(beams=settings.beams, batch_tokens=settings.batch_tokens, dtype=self.dtype)
        self.encoder = Encoder.load(self.card, self.config)
        self.dev_pairs: list[Pair] = run.pairs("dev", settings.max_dev_rows)
        self.test_pairs: list[Pair] = run.pairs("test", settings.max_test_rows)

    def run(self) -> None:
        """Go through the whole run.

        Raises:
            Retry: asked to stop; a checkpoint holds what was done.
            Diverged: the loss is not finite.
        """
        self._record_precision()
        with self._reporter() as self.reporter:
            base, base_outputs = self._base_and_outputs()
            self._open_rows(base)
            torch.manual_seed(self.config.train.seed)
            self.model: nn.Module = make_trainable(self.card, self.config, base)
            del base  # self.model alone holds it: _free_device lets go of it
            torch.manual_seed(self.config.train.seed + 1 + self.world.rank)  # dropout differs between ranks
            self.loop = Loop(self.config, self.world, self.model, self.rows, self.dtype)
            self.checkpoints = Checkpoints(
                folder=self.paths.checkpoints,
                keep=self.config.checkpoint.keep,
                config_hash=self.prepared_run.training_hash,
            )
            state = self._start()
            with self._heeding_signals():
                self.loop.run(
                    state, self._on_step, stop_asked=lambda: self.stopping, save_wanted=lambda: self._save_is_due()
                )
            if self.stopping:
                raise Retry("asked to stop after the last step, which is saved; the next start scores and exports")
            self._finish(state, base_outputs)

    def _record_precision(self) -> None:
        """Add to the provenance what ``auto`` came to on this device."""
        if self.world.is_main:
            record = files.read_json(self.paths.provenance)
            files.write_json(self.paths.provenance, record | {"precision": precision_name(self.dtype)})

    @contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        """Answer a stop signal with a checkpoint; before and after there is nothing to save, so it ends the rank."""
        before = {number: signal.signal(number, self._ask_to_stop) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _open_rows(self, base: PreTrainedModel) -> None:
        start_id, pad_id = base.config.decoder_start_token_id, base.config.pad_token_id
        self.rows = TokenRows(self.prepared_run.prepared.train, pad_id=pad_id, start_id=start_id)
        self.dev_rows = TokenRows(self.prepared_run.prepared.dev, pad_id=pad_id, start_id=start_id)

    def _start(self) -> State:
        # Rank 0 looks for all: the others may see a new folder on a shared volume at other times.
        wanted = self.config.checkpoint.resume == "auto" and self.world.is_main
        latest = self.world.broadcast(self.checkpoints.latest() if wanted else None)
        if latest is not None:
            state = self.checkpoints.load(latest, self.loop, self.world)
            self.reporter.resume_at(state.step, evaluated=state.evaluated == state.step)
            self.reporter.say(f"continuing from {latest.name} of {state.total_steps} steps")
            self._evaluate_if_due(state)
            return state
        train = self.config.train
        budget = make_budget(train, self.rows.source_lengths, self.rows.target_lengths, self.world.size)
        per_epoch = self.loop.steps_per_epoch(budget)
        total = steps_of(train.epochs, train.max_steps, per_epoch)
        state = State(total_steps=total, steps_per_epoch=per_epoch, budget=budget)
        self.loop.start(total)
        self.reporter.resume_at(0, evaluated=False)
        self._say_plan(state)
        self._evaluate(state)
        return state

    def _on_step(self, state: State, result: StepResult) -> None:
        self.reporter.step(state, result)
        by_steps = self.config.checkpoint.every_steps
        due = result.save or (by_steps is not None and state.step % by_steps == 0)
        # Before the evaluation, which may take longer than a preempted pod has.
        if due or result.stop or self._evaluation_is_due(state):
            self.checkpoints.save(self.loop, state, self.world)
            self.last_save = time.monotonic()
        if result.stop:
            raise Retry(f"asked to stop: saved step {state.step} of {state.total_steps}; the next start goes on there")
        self._evaluate_if_due(state)

    def _evaluate_if_due(self, state: State) -> None:
        if self._evaluation_is_due(state):
            self._evaluate(state)

    def _evaluation_is_due(self, state: State) -> bool:
        every = max(1, round(self.config.eval.every * state.steps_per_epoch))
        # One just before the last step would say what the last one says.
        scheduled = state.step % every == 0 and state.total_steps - state.step > every // 4
        return (scheduled or state.done) and state.evaluated != state.step

    def _evaluate(self, state: State) -> None:
        scores = self._dev_scores()
        if not math.isfinite(scores["nll"]) and state.step == 0:
            raise InputError(_broken_base(scores["nll"], precision_name(self.dtype)))
        if not math.isfinite(scores["nll"]):
            raise Diverged(f"training diverged: dev NLL is {scores['nll']} at step {state.step}. {_ADVICE}")
        self.reporter.evaluation(state.step, "dev", scores)
        state.evaluated = state.step
        rule = self.config.eval.early_stopping
        best = state.best.update(evaluation.dev_metric(scores, rule.metric), state.step, rule)
        if state.best.exhausted(rule):
            state.stopped_early = True
            self.reporter.say(
                f"stopped early at step {state.step}: dev {rule.metric} has not improved by "
                f"{rule.threshold:.1%} for {rule.patience} evaluations"
            )
        if rule.patience and state.step and (best or state.stopped_early):
            self.checkpoints.save(self.loop, state, self.world)

    def _dev_scores(self) -> dict[str, Any]:
        settings = self.config.eval
        chosen = sampled(len(self.dev_rows), settings.max_nll_rows)
        nll = evaluation.mean_nll(
            self.model,
            self.dev_rows,
            chosen,
            self.world,
            dtype=self.dtype,
            batch_tokens=self.config.train.micro_batch_tokens,
        )
        texts, _ = evaluation.translate_pairs(self.model, self.encoder, self.dev_pairs, self.decoding, self.world)
        directions = evaluation.score_pairs(self.dev_pairs, texts) if self.world.is_main else None
        return {"nll": nll, "directions": self.world.broadcast(directions)}

    def _base_and_outputs(self) -> tuple[PreTrainedModel, list[str]]:
        """Return the base to train, and test as the untouched base translates it.

        A restart reads what was translated the first time. Under qlora the base as published translates, not its
        4-bit form; it is gone before that is loaded.
        """
        path: Path = self.paths.eval / "base_outputs.json"
        floor = self.config.eval.min_base_bleu
        kept = self.world.broadcast(finish.read_base_outputs(path, self.test_pairs) if self.world.is_main else None)
        base = None
        if kept is None:
            published = self.config.model_copy(update={"method": "lora"})
            base = load_base(self.card, published if self.config.method == "qlora" else self.config, self.world)
            check_targets(self.card, self.config, base)
            kept, limits = evaluation.translate_pairs(base, self.encoder, self.test_pairs, self.decoding, self.world)
            if self.world.is_main:
                finish.write_base_outputs(path, self.test_pairs, kept)
                scores = evaluation.quick_scores(self.test_pairs, kept)
                self.reporter.evaluation(0, "base_test", {"directions": scores, "length_limit": limits})
        if floor is not None:
            scores = evaluation.quick_scores(self.test_pairs, kept) if self.world.is_main else {}
            evaluation.check_base(self.world.broadcast(scores), floor)
        if base is None or self.config.method == "qlora":
            del base
            base = load_base(self.card, self.config, self.world)
        return base, list(kept)

    def _finish(self, state: State, base_outputs: list[str]) -> None:
        if self.config.eval.early_stopping.patience and state.best.step:
            best = self.paths.checkpoints / f"step-{state.best.step}"
            if self.world.broadcast(self.world.is_main and is_complete(best)):
                load_weights(best, self.loop.parameters)
                self.reporter.say(f"the best dev score was at step {state.best.step}: its weights are taken")
            else:
                self.reporter.say(
                    f"{best.name}, the checkpoint of the best dev score, is damaged: the last weights stay"
                )
        elif self.config.eval.early_stopping.patience:
            self.reporter.say("no evaluation beat the untouched base: the last weights stay")
        if not all_finite(self.model):
            raise Diverged(f"training diverged: a trained weight is not a finite number. {_ADVICE}")
        texts, limits = evaluation.translate_pairs(self.model, self.encoder, self.test_pairs, self.decoding, self.world)
        deliverable = None
        if self.world.is_main:
            deliverable = export(self.model, self.card, self.config, self.encoder, self.paths)
            evaluation.write_sentences(self.paths.eval, self.test_pairs, base_outputs, texts)
        self._free_device()
        self._judge(state, base_outputs, texts, limits, deliverable)

    def _free_device(self) -> None:
        """Let go of the trained model and its optimizer, which are on disk: the published run may need their room."""
        del self.model, self.loop
        gc.collect()
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()

    def _judge(
        self,
        state: State,
        base_outputs: list[str],
        texts: list[str],
        limits: dict[str, float],
        deliverable: Path | None,
    ) -> None:
        """Judge, write the results and publish, again where another run was published meanwhile.

        Args:
            state: of the last step.
            base_outputs: test as the base translates it.
            texts: test as the tuned model does.
            limits: share of those that ran into the length limit, per direction.
            deliverable: what was exported; None on other ranks, which help to translate only.
        """
        facts = published.facts_of_test(self.prepared_run, self.test_pairs, self.decoding)
        rival = published.published(self.prepared_run, self.test_pairs, facts, self.decoding, self.world)
        while deliverable is not None:
            judgement = finish.judge(self.config, self.test_pairs, base_outputs, texts, rival)
            self.reporter.evaluation(state.step, "test", {"directions": judgement.tuned, "length_limit": limits})
            self.reporter.say(f"{judgement.gate['verdict']}: {'; '.join(judgement.gate['reasons'])}")
            if finish.write_results(self.prepared_run, state, judgement, deliverable, facts):
                return
            # The other ranks are gone: nothing can be translated anew.
            rival = published.on_file(self.prepared_run, self.test_pairs, facts)
            self.reporter.say(f"run {rival.run_id} was published meanwhile: judged again")

    def _reporter(self) -> Reporter:
        tracking = self.config.tracking
        return Reporter(
            self.paths.metrics,
            tensorboard=self.paths.logs if tracking.tensorboard else None,
            every=tracking.log_every_steps,
            device=self.world.device,
            quiet=not self.world.is_main,
        )

    def _save_is_due(self) -> bool:
        minutes = self.config.checkpoint.every_minutes
        return minutes is not None and time.monotonic() - self.last_save > 60 * minutes

    def _say_plan(self, state: State) -> None:
        trained = sum(parameter.numel() for parameter in self.loop.parameters.values())
        self.reporter.say(
            f"{self.card.key}: {self.config.method}, {trained:,} trained weights, {len(self.rows):,} rows, "
            f"{state.total_steps} steps of about {len(self.rows) / state.steps_per_epoch:.0f} sentences "
            f"in {state.budget.bins_per_step} micro-batches, {self.world.size} processes on {self.world.device.type}"
        )

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True


def _broken_base(nll: float, precision: str) -> str:
    text = (
        f"the untouched base gives a dev NLL of {nll} in {precision}: its checkpoint holds numbers that are not finite"
    )
    if precision == "fp32":
        return f"{text}; get it anew"
    return f"{text}, or it overflows; get it anew or set train.precision to fp32"
