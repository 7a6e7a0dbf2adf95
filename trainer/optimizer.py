"""AdamW and the learning-rate schedule of a run."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from mtft.config import Config


def make_optimizer(config: Config, parameters: dict[str, nn.Parameter], device: torch.device) -> Optimizer:
    """Return AdamW without weight decay on biases and norms (every weight of fewer than two dimensions)."""
    groups = [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": config.train.weight_decay},
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    return torch.optim.AdamW(filled, lr=config.train.learning_rate, fused=device.type == "cuda")


def make_scheduler(config: Config, optimizer: Optimizer, total_steps: int, taken: int) -> LRScheduler:
    """Return the schedule after ``taken`` steps of it: a linear warm-up, then linear or cosine to 0, or constant.

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

    return LambdaLR(optimizer, factor, last_epoch=taken - 1)
