"""The training loop: one optimizer step over one global batch, until the run is done.

Its own loop and not Seq2SeqTrainer's: docs/decisions/0002-own-training-loop.md has the measurements.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from mtft.config import Config
from mtft.errors import Diverged, InputError
from trainer import out_of_memory
from trainer.adapters import trainable
from trainer.batching import Budget, Rows, cut, padded_tokens, plan_epoch
from trainer.collate import Batch
from trainer.distributed import World
from trainer.gradients import Gradients
from trainer.loss import LossSums, loss_sums
from trainer.optimizer import make_optimizer, make_scheduler
from trainer.reasons import is_out_of_memory
from trainer.rows import TokenRows
from trainer.state import State


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one optimizer step saw, over all ranks.

    Attributes:
        loss: label-smoothed loss, nats per real target token.
        nll: unsmoothed negative log-likelihood, nats per real target token.
        grad_norm: global gradient norm before clipping.
        learning_rate: the rate the step was taken with.
        rows: sentences.
        target_tokens: real target tokens.
        real_tokens, padded_tokens: source and target tokens without and with padding.
        seconds: wall time.
        stop: whether any rank was asked to stop.
        save: whether rank 0 wants a checkpoint.
        skipped: whether the update was left out because loss or gradient is not finite.
        suspects: rows of the micro-batches whose own loss is not finite, where the step was skipped.
        micro_batch_tokens: most padded tokens of a micro-batch that fitted on every rank; None: whole bins did.
    """

    loss: float
    nll: float
    grad_norm: float
    learning_rate: float
    rows: int
    target_tokens: int
    real_tokens: int
    padded_tokens: int
    seconds: float
    stop: bool
    save: bool
    skipped: bool = False
    suspects: tuple[int, ...] = ()
    micro_batch_tokens: int | None = None


class Loop:
    """Trains a model on rows by a plan that every rank computes alike.

    Args:
        config: the effective configuration.
        world: this rank.
        model: the model with its trainable weights on this rank's device.
        rows: the training rows.
        dtype: autocast type; float32 switches autocast off.
    """

    def __init__(self, config: Config, world: World, model: nn.Module, rows: TokenRows, dtype: torch.dtype) -> None:
        self.config = config
        self.world = world
        self.model = model
        self.rows = rows
        self.dtype = dtype
        self.parameters = trainable(model)
        self.optimizer = make_optimizer(config, self.parameters, world.device)
        self.scheduler: LRScheduler | None = None  # set by start()
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=dtype == torch.float16)
        self.scaler.scale(torch.zeros((), device=world.device))  # a rank without a bin of the first step scales nothing
        self.gradients = Gradients(list(self.parameters.values()), world)

    def start(self, total_steps: int, rate_factor: float = 1.0, taken: int = 0) -> None:
        """Set the learning-rate schedule; call before the first step.

        Args:
            total_steps: steps of the whole run.
            rate_factor: what ``train.learning_rate`` is multiplied by.
            taken: steps of the schedule that were taken already.
        """
        for group in self.optimizer.param_groups:
            group["initial_lr"] = rate_factor * self.config.train.learning_rate
        self.scheduler = make_scheduler(self.config, self.optimizer, total_steps, taken)

    def steps_per_epoch(self, budget: Budget) -> int:
        """Return the steps of one epoch; every epoch has as many, since its bins have the same shapes."""
        return len(self._plan(budget, epoch=0))

    def run(
        self,
        state: State,
        on_step: Callable[[State, StepResult], None],
        *,
        stop_asked: Callable[[], bool] = lambda: False,
        save_wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train from ``state`` to its end or until ``on_step`` raises.

        Raises:
            Diverged: more steps in a row than ``train.max_skipped_steps`` were skipped.
            InputError: a single row does not fit into memory.
        """
        self.model.train()
        while not state.done:
            for bins in self._plan(state.budget, state.epoch)[state.position :]:
                tokens = state.micro_batch_tokens
                result = self.step(bins, micro_batch_tokens=tokens, stop_asked=stop_asked, save_wanted=save_wanted)
                state.advance(result.rows, skipped=result.skipped)
                state.micro_batch_tokens = result.micro_batch_tokens
                on_step(state, result)
                self._check_skips(state, result)
                if state.done:
                    return

    def step(
        self,
        bins: Sequence[Rows],
        *,
        micro_batch_tokens: int | None = None,
        stop_asked: Callable[[], bool] = lambda: False,
        save_wanted: Callable[[], bool] = lambda: False,
    ) -> StepResult:
        """Take one optimizer step over a global batch given as bins of row numbers.

        Every rank computes on its own what its bins come to, in micro-batches as small as its memory asks for. Then
        the ranks agree in one exchange: of what they saw, of who had to cut smaller, and whether to skip the update.
        Whether to stop or to save is asked when all have met: a signal that comes while a rank computes a step, or
        waits for a slower one, is heard in that step.
        """
        began = time.monotonic()
        tokens = self.rows.target_tokens(bins)
        sums, fitted = self._gradients(bins[self.world.rank :: self.world.size], tokens, micro_batch_tokens)
        smoothed, nll = (float(sum(getattr(each, name) for _, each in sums)) for name in ("smoothed", "nll"))
        totals = self.world.sum([smoothed, nll, float(fitted != micro_batch_tokens)])
        if totals[2] > 0:
            fitted = min(each for each in self.world.gather(fitted) if each is not None)
        rate = self.optimizer.param_groups[0]["lr"]
        norm, skipped = self._update() if math.isfinite(totals[0]) else (math.nan, True)
        self.gradients.clear()
        stop, save = self.world.sum([float(stop_asked()), float(self.world.is_main and save_wanted())])
        return StepResult(
            loss=totals[0] / tokens,
            nll=totals[1] / tokens,
            grad_norm=norm,
            learning_rate=rate,
            rows=sum(len(rows) for rows in bins),
            target_tokens=tokens,
            real_tokens=tokens + sum(int(self.rows.source_lengths[rows].sum()) for rows in bins),
            padded_tokens=sum(padded_tokens(r, self.rows.source_lengths, self.rows.target_lengths) for r in bins),
            seconds=time.monotonic() - began,
            stop=stop > 0,
            save=save > 0,
            skipped=skipped,
            suspects=self._suspects(sums) if skipped else (),
            micro_batch_tokens=fitted,
        )

    def _gradients(
        self, bins: Sequence[Rows], tokens: int, micro_batch_tokens: int | None
    ) -> tuple[list[tuple[Rows, LossSums]], int | None]:
        """Add up the gradient of this rank's bins; where memory runs out, anew in smaller micro-batches.

        Returns:
            The micro-batches with their sums, and the most padded tokens of one, None where bins were not cut.

        Raises:
            InputError: a single row does not fit.
        """
        lengths = self.rows.source_lengths, self.rows.target_lengths
        while True:
            parts = list(bins)
            if micro_batch_tokens is not None:
                parts = [part for rows in bins for part in cut(rows, *lengths, micro_batch_tokens)]
            self.gradients.clear()
            done: list[tuple[Rows, LossSums]] = []
            try:
                for part in parts:
                    done.append((part, self.accumulate(self.rows.batch(part).to(self.world.device), 1 / tokens)))
                return done, micro_batch_tokens
            except out_of_memory.CAUGHT as error:
                if not is_out_of_memory(error):
                    raise
                text = str(error) or type(error).__name__
            # After the except: the error's traceback holds the tensors of the micro-batch that did not fit.
            failed = parts[len(done)]
            if len(failed) == 1:
                raise InputError(self._too_long(failed, text))
            micro_batch_tokens = padded_tokens(failed, *lengths) // 2
            done.clear()
            out_of_memory.release(self.world.device)

    def accumulate(self, batch: Batch, weight: float) -> LossSums:
        """Add ``weight`` x the gradient of the summed loss of one micro-batch."""
        with autocast(self.world.device, self.dtype):
            logits = forward(self.model, batch)
            sums = loss_sums(logits, batch.labels, self.config.train.label_smoothing)
        self.scaler.scale(sums.smoothed * weight).backward()  # type: ignore[no-untyped-call]
        return LossSums(sums.smoothed.detach(), sums.nll, sums.tokens)

    def _update(self) -> tuple[float, bool]:
        """Take the step; return the gradient norm and whether it was skipped because that is not finite."""
        self.gradients.add_up()
        self.scaler.unscale_(self.optimizer)
        limit = self.config.train.max_grad_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), limit))
        # A scaler lowers its scale and skips the step by itself.
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            return norm, True
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < 1.0:
            raise Diverged("training diverged: gradients overflow fp16 at every scale. Set train.precision: bf16.")
        assert self.scheduler is not None, "start() sets the schedule"
        if self.scaler.get_scale() >= scale:  # a smaller scale means that the step was skipped
            self.scheduler.step()
        return norm, False

    def _suspects(self, sums: Sequence[tuple[Rows, LossSums]]) -> tuple[int, ...]:
        broken = [int(row) for rows, each in sums if not math.isfinite(float(each.smoothed)) for row in rows]
        return tuple(row for rows in self.world.gather(broken) for row in rows)

    def _check_skips(self, state: State, result: StepResult) -> None:
        if state.skipped_in_a_row > self.config.train.max_skipped_steps:
            raise Diverged(
                f"training diverged: {state.skipped_in_a_row} steps in a row gave a loss or gradient that is no finite "
                f"number, the last one step {state.step}: loss {result.loss:g}, gradient norm {result.grad_norm:g}, "
                f"rate {result.learning_rate:g}"
            )

    def _too_long(self, row: Rows, text: str) -> str:
        source, target = int(self.rows.source_lengths[row[0]]), int(self.rows.target_lengths[row[0]])
        return (
            f"out of memory with a single row of {source} source and {target} target tokens: set "
            "train.gradient_checkpointing: true, method: lora or qlora, or lower train.max_source_length and "
            f"train.max_target_length ({text.splitlines()[0]})"
        )

    def _plan(self, budget: Budget, epoch: int) -> list[list[Rows]]:
        lengths = self.rows.source_lengths, self.rows.target_lengths
        return plan_epoch(budget, *lengths, seed=self.config.train.seed, epoch=epoch)


def forward(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return the logits (b, t, vocabulary) of a micro-batch; labels are withheld, the loss is ours."""
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        decoder_input_ids=batch.decoder_input_ids,
        use_cache=False,
    )
    logits: torch.Tensor = output.logits
    return logits


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Return mixed precision on this device, or nothing for float32."""
    return torch.autocast(device.type, dtype) if dtype != torch.float32 else nullcontext()
