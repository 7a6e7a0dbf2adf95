"""Where a run stands: what has to be known to go on with it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mtft.config import EarlyStoppingConfig
from trainer.batching import Budget

if TYPE_CHECKING:
    from trainer.loop import StepResult


@dataclass(kw_only=True)
class BestScore:
    """Early stopping: the best dev score so far and how long ago it was.

    Attributes:
        value: the best score; None before the first evaluation.
        step: optimizer step it was seen at.
        waited: evaluations since without an improvement that counts.
    """

    value: float | None = None
    step: int = 0
    waited: int = 0

    def update(self, value: float, step: int, rule: EarlyStoppingConfig) -> bool:
        """Take in a score; return whether it is the best so far.

        NLL is better when lower, BLEU and chrF when higher. Only an improvement by more than
        ``threshold`` (relative) resets the waiting.
        """
        if self.value is None:
            self.value, self.step, self.waited = value, step, 0
            return True
        gain = self.value - value if rule.metric == "nll" else value - self.value
        self.waited = 0 if gain > rule.threshold * abs(self.value) else self.waited + 1
        if gain > 0:
            self.value, self.step = value, step
        return gain > 0

    def exhausted(self, rule: EarlyStoppingConfig) -> bool:
        """Whether patience has run out; a patience of 0 never does."""
        return rule.patience > 0 and self.waited >= rule.patience


@dataclass(kw_only=True)
class Window:
    """Optimizer steps since the last line of progress; in the checkpoint, so that a restart logs the same numbers.

    Attributes:
        steps: how many.
        loss, nll: sums over them, each step's times its target tokens.
        target_tokens, real_tokens, padded_tokens, rows, seconds: sums over them.
        learning_rate, grad_norm: of the last one; no norm where half precision overflowed.
    """

    steps: int = 0
    loss: float = 0.0
    nll: float = 0.0
    target_tokens: int = 0
    real_tokens: int = 0
    padded_tokens: int = 0
    rows: int = 0
    seconds: float = 0.0
    learning_rate: float = 0.0
    grad_norm: float | None = None

    def add(self, result: StepResult) -> None:
        """Take in one optimizer step."""
        self.steps += 1
        self.loss += result.loss * result.target_tokens
        self.nll += result.nll * result.target_tokens
        self.target_tokens += result.target_tokens
        self.real_tokens += result.real_tokens
        self.padded_tokens += result.padded_tokens
        self.rows += result.rows
        self.seconds += result.seconds
        self.learning_rate = result.learning_rate
        self.grad_norm = result.grad_norm if math.isfinite(result.grad_norm) else None


@dataclass(kw_only=True)
class State:
    """Progress of a run.

    Attributes:
        step: optimizer steps done.
        epoch: epoch being trained, from 0.
        position: steps done in that epoch.
        total_steps: steps of the whole run.
        steps_per_epoch: steps of one epoch.
        rows: rows trained on, repetitions over epochs counted.
        budget: shape of the global batch, fixed at the first start.
        evaluated: step of the last evaluation on dev; -1 before the first.
        best: early-stopping state.
        stopped_early: whether patience ended the run.
        micro_batch_tokens: most padded tokens in one forward pass since memory ran out; None: whole bins fit.
        memory_kills: starts that the kernel ended for want of host memory, as far as they are heeded here.
        skipped: steps without an update, because loss or gradient was not finite.
        skipped_in_a_row: how many of them were the last ones.
        rate_factor: what the learning rate is multiplied by; below 1 after the run has gone back to a checkpoint.
        window: steps that no line of progress tells of yet.
    """

    total_steps: int
    steps_per_epoch: int
    budget: Budget
    step: int = 0
    epoch: int = 0
    position: int = 0
    rows: int = 0
    evaluated: int = -1
    best: BestScore = field(default_factory=BestScore)
    stopped_early: bool = False
    micro_batch_tokens: int | None = None
    memory_kills: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    rate_factor: float = 1.0
    window: Window = field(default_factory=Window)

    @property
    def done(self) -> bool:
        """Whether no step is left."""
        return self.stopped_early or self.step >= self.total_steps

    def advance(self, rows: int, *, skipped: bool = False) -> None:
        """Count one optimizer step over so many rows, which were learned from unless it was skipped."""
        self.step += 1
        self.rows += 0 if skipped else rows
        self.skipped += skipped
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if skipped else 0
        self.position += 1
        if self.position == self.steps_per_epoch:
            self.epoch, self.position = self.epoch + 1, 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> State:
        """Read what :meth:`to_dict` wrote."""
        parts = {"budget": Budget, "best": BestScore, "window": Window}
        return cls(**{name: parts[name](**value) if name in parts else value for name, value in values.items()})


def steps_of(epochs: float, max_steps: int | None, steps_per_epoch: int) -> int:
    """Return the optimizer steps of a run; a fraction of an epoch is rounded up to a whole step.

    ``max_steps`` overrides ``epochs``, as in transformers: a run of so many steps repeats the data as needed.
    """
    if max_steps is not None:
        return max_steps
    return max(1, math.ceil(epochs * steps_per_epoch - 1e-9))
