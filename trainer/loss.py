"""Token-normalised, label-smoothed cross-entropy.

The loss of a global batch is (1 - s) x NLL + s x U, summed over its real target tokens and divided by
their number, where U is the mean of -log p over the vocabulary (Szegedy et al. 2016). Dividing by the
tokens of the whole global batch, not of a micro-batch, makes loss and gradient the same for any split
into processes, accumulation rounds and micro-batches.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100


class LossSums(NamedTuple):
    """Sums over the real target tokens of a micro-batch.

    Attributes:
        smoothed: label-smoothed loss, nats, with gradient.
        nll: unsmoothed negative log-likelihood, nats, without gradient.
        tokens: number of real target tokens.
    """

    smoothed: Tensor
    nll: Tensor
    tokens: Tensor


def loss_sums(logits: Tensor, labels: Tensor, smoothing: float) -> LossSums:
    """Sum the loss over the positions whose label is not ``IGNORED``.

    Args:
        logits: (batch, length, vocabulary), any float type; summed in float32.
        labels: (batch, length) token ids, ``IGNORED`` on padding.
        smoothing: share of the probability mass spread over the vocabulary, 0 to 1.
    """
    nll, uniform = token_losses(logits, labels)
    smoothed = (1.0 - smoothing) * nll + smoothing * uniform if smoothing else nll
    return LossSums(smoothed.sum(), nll.detach().sum(), (labels != IGNORED).sum())


def token_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return per token, zero on padding: -log p(label), and the mean of -log p over the vocabulary."""
    logits = logits.float()
    real = labels != IGNORED
    normaliser = torch.logsumexp(logits, dim=-1)
    gold = logits.gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    zero = logits.new_zeros(())
    nll = torch.where(real, normaliser - gold, zero)
    return nll, torch.where(real, normaliser - logits.mean(dim=-1), zero)
