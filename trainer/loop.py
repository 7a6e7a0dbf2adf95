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
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from mtft.config import Config
from mtft.errors import Diverged
from trainer.adapters import trainable
from trainer.batching import Budget, Rows, padded_tokens, plan_epoch
from trainer.collate import Batch
from trainer.distributed import World
from trainer.loss import LossSums, loss_sums
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
        self.wrapped = wrap(model, world)

    def start(self, total_steps: int) -> None:
        """Set the learning-rate schedule; call once before the first step."""
        self.scheduler = make_scheduler(self.config, self.optimizer, total_steps)

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
            Diverged: loss or gradient is not finite.
        """
        self.wrapped.train()
        while not state.done:
            for bins in self._plan(state.budget, state.epoch)[state.position :]:
                result = self.step(bins, stop=stop_asked(), save=save_wanted())
                state.advance(result.rows)
                on_step(state, result)
                if state.done:
                    return

    def step(self, bins: Sequence[Rows], *, stop: bool = False, save: bool = False) -> StepResult:
        """Take one optimizer step over a global batch given as bins of row numbers."""
        began = time.monotonic()
        tokens = self.rows.target_tokens(bins)
        mine = list(bins[self.world.rank :: self.world.size])
        rounds = math.ceil(len(bins) / self.world.size)
        smoothed = nll = torch.zeros((), device=self.world.device)
        for number in range(rounds):
            # A rank without a bin in the last round still takes part in the gradient exchange, with weight 0.
            weight = 1.0 if number < len(mine) else 0.0
            batch = self.rows.batch(mine[number] if weight else bins[0]).to(self.world.device)
            with self._without_exchange() if number < rounds - 1 else nullcontext():
                sums = self.accumulate(batch, weight * self.world.size / tokens)
            smoothed = smoothed + weight * sums.smoothed.detach()
            nll = nll + weight * sums.nll
        totals = self.world.sum([float(smoothed), float(nll), float(stop), float(save and self.world.is_main)])
        rate = self.optimizer.param_groups[0]["lr"]
        norm = self._update(totals[0] / tokens)
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
            stop=totals[2] > 0,
            save=totals[3] > 0,
        )

    def accumulate(self, batch: Batch, weight: float) -> LossSums:
        """Add ``weight`` x the gradient of the summed loss of one micro-batch."""
        with autocast(self.world.device, self.dtype):
            logits = forward(self.wrapped, batch)
            sums = loss_sums(logits, batch.labels, self.config.train.label_smoothing)
        self.scaler.scale(sums.smoothed * weight).backward()  # type: ignore[no-untyped-call]
        return sums

    def _update(self, loss: float) -> float:
        self.scaler.unscale_(self.optimizer)
        limit = self.config.train.max_grad_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.parameters.values(), limit))
        # A scaler lowers its scale and skips the step by itself; elsewhere nothing would mend such a weight.
        if not math.isfinite(loss) or not (math.isfinite(norm) or self.scaler.is_enabled()):
            raise Diverged(
                f"training diverged: loss {loss}, gradient norm {norm}. Lower train.learning_rate "
                f"(now {self.config.train.learning_rate:g}), raise train.warmup_ratio, or look at the data."
            )
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < 1.0:
            raise Diverged("training diverged: gradients overflow fp16 at every scale. Set train.precision: bf16.")
        assert self.scheduler is not None, "start() sets the schedule"
        if self.scaler.get_scale() >= scale:  # a smaller scale means that the step was skipped
            self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _plan(self, budget: Budget, epoch: int) -> list[list[Rows]]:
        lengths = self.rows.source_lengths, self.rows.target_lengths
        return plan_epoch(budget, *lengths, seed=self.config.train.seed, epoch=epoch)

    def _without_exchange(self) -> AbstractContextManager[Any]:
        return self.wrapped.no_sync() if isinstance(self.wrapped, DistributedDataParallel) else nullcontext()


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


def wrap(model: nn.Module, world: World) -> nn.Module:
    """Put the model behind gradient averaging where there are several ranks."""
    if world.size == 1:
        return model
    # Every trainable weight gets a gradient in every step (no layer dropping), so none has to be looked for.
    devices = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(
        model, device_ids=devices, find_unused_parameters=False, gradient_as_bucket_view=True
    )


def make_optimizer(config: Config, parameters: dict[str, nn.Parameter], device: torch.device) -> Optimizer:
    """Return AdamW without weight decay on biases and norms (every weight of fewer than two dimensions)."""
    groups = [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": config.train.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    return torch.optim.AdamW(filled, lr=config.train.learning_rate, fused=device.type == "cuda")


def make_scheduler(config: Config, optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """Return the schedule: a linear warm-up, then linear or cosine to 0, or constant.

    No step is taken with a rate of 0, as transformers' schedules do with the first: one step would train nothing.
    """
    warmup = math.ceil(config.train.warmup_ratio * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, total_steps - warmup)
        match config.train.scheduler:
            case "linear":
                return max(0.0, 1.0 - done)
            case "cosine":
                return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
            case "constant":
                return 1.0

    return LambdaLR(optimizer, factor)
