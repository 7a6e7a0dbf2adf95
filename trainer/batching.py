"""Which rows are trained together: token-budget micro-batches of like lengths, planned per epoch.

A step's global batch is a list of bins; a bin is one micro-batch. The plan depends on the data, the
seed, the epoch and the budget only, never on the number of processes, so another world size walks
through the same global batches (bins are dealt to ranks, then to accumulation rounds).

Bins come from cutting the rows, sorted by target length, into slabs of equal token cost, sorting each
slab by source length (every second one downwards, so that neighbours stay alike) and filling bins
greedily. Sorting by (target, source) alone pads the sources: about 0.90 real tokens on law texts
where slabs give 0.94.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtft.config import TrainConfig

Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The shape of a run's global batch, fixed when the run starts and kept in its checkpoints.

    Attributes:
        bins_per_step: micro-batches in one optimizer step, over all processes.
        bin_tokens: most padded tokens (source + target) in one micro-batch.
    """

    bins_per_step: int
    bin_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return asdict(self)


def make_budget(train: TrainConfig, source_lengths: Rows, target_lengths: Rows, processes: int) -> Budget:
    """Derive the global batch from the configuration, the data's lengths and the processes at the start.

    ``batch_size`` counts sentences: a step sees batch_size x gradient_accumulation x processes of them on
    average. With ``tokens_per_batch`` a step sees about that many real tokens instead.
    """
    mean_tokens = float(source_lengths.mean() + target_lengths.mean())
    if train.tokens_per_batch is not None:
        step_tokens = float(train.tokens_per_batch)
    else:
        assert train.batch_size is not None, "the schema asks for one of the two"
        step_tokens = train.batch_size * train.gradient_accumulation * processes * mean_tokens
    steps = max(1, round(len(source_lengths) * mean_tokens / step_tokens))
    # Counted, not computed: padding takes its share of the bins.
    fewest = len(make_bins(source_lengths, target_lengths, train.micro_batch_tokens))
    bins_per_step = math.ceil(fewest / (steps * processes)) * processes
    bin_tokens = _budget_for(source_lengths, target_lengths, bins=steps * bins_per_step, cap=train.micro_batch_tokens)
    return Budget(bins_per_step=bins_per_step, bin_tokens=bin_tokens)


def plan_epoch(
    budget: Budget, source_lengths: Rows, target_lengths: Rows, *, seed: int, epoch: int
) -> list[list[Rows]]:
    """Return the steps of one epoch, each a list of bins of row numbers; every row is in exactly one bin.

    The last step may have fewer bins. The same arguments give the same plan on every rank.
    """
    generator = np.random.default_rng([seed, epoch])
    bins = make_bins(source_lengths, target_lengths, budget.bin_tokens, generator)
    order = generator.permutation(len(bins))
    size = budget.bins_per_step
    return [[bins[index] for index in order[start : start + size]] for start in range(0, len(bins), size)]


def make_bins(
    source_lengths: Rows, target_lengths: Rows, bin_tokens: int, generator: np.random.Generator | None = None
) -> list[Rows]:
    """Cut all rows into bins of like lengths of at most ``bin_tokens`` padded tokens.

    A row longer than the budget gets a bin of its own. With a generator, rows of equal lengths are
    shuffled, so that each epoch mixes them anew.
    """
    order = _slab_order(source_lengths, target_lengths, bin_tokens, generator)
    return cut(order, source_lengths, target_lengths, bin_tokens)


def cut(order: Rows, source_lengths: Rows, target_lengths: Rows, bin_tokens: int) -> list[Rows]:
    """Cut rows, in the order given, into bins of at most ``bin_tokens`` padded tokens; a longer row is alone."""
    sources, targets = source_lengths[order].tolist(), target_lengths[order].tolist()
    bins, start, longest_source, longest_target = [], 0, 0, 0
    for position, (source, target) in enumerate(zip(sources, targets, strict=True)):
        wider_source, wider_target = max(longest_source, source), max(longest_target, target)
        if position > start and (position - start + 1) * (wider_source + wider_target) > bin_tokens:
            bins.append(order[start:position])
            start, wider_source, wider_target = position, source, target
        longest_source, longest_target = wider_source, wider_target
    if len(order) > start:
        bins.append(order[start:])
    return bins


def real_token_share(bins: Sequence[Rows], source_lengths: Rows, target_lengths: Rows) -> float:
    """Return real tokens / padded tokens, source and target together."""
    real = sum(int(source_lengths[rows].sum() + target_lengths[rows].sum()) for rows in bins)
    return real / sum(padded_tokens(rows, source_lengths, target_lengths) for rows in bins)


def padded_tokens(rows: Rows, source_lengths: Rows, target_lengths: Rows) -> int:
    """Return the tokens of a bin after padding, source and target together."""
    return len(rows) * int(source_lengths[rows].max() + target_lengths[rows].max())


def _slab_order(
    source_lengths: Rows, target_lengths: Rows, bin_tokens: int, generator: np.random.Generator | None
) -> Rows:
    count = len(source_lengths)
    shuffled = generator.permutation(count) if generator is not None else np.arange(count)
    sources, targets = source_lengths[shuffled], target_lengths[shuffled]
    by_target = np.lexsort((sources, targets))
    cost = np.cumsum((sources + targets)[by_target])
    # With n bins, about sqrt(n) slabs make both sides equally tight; a few more pay for cut slabs.
    slabs = max(1, math.ceil(1.2 * math.sqrt(cost[-1] / bin_tokens)))
    slab = np.empty(count, dtype=np.int64)
    slab[by_target] = cost * slabs // (cost[-1] + 1)
    inner = np.where(slab % 2 == 0, sources, -sources)
    # Targets break ties, so that every epoch has bins of the same shapes and so the same number of steps.
    order: Rows = shuffled[np.lexsort((targets, inner, slab))]
    return order


def _budget_for(source_lengths: Rows, target_lengths: Rows, *, bins: int, cap: int) -> int:
    """Find the padded-token budget that cuts the rows into about this many bins, at most ``cap``."""
    total = int(source_lengths.sum() + target_lengths.sum())
    budget = min(cap, max(1, math.ceil(total / bins)))
    for _ in range(4):
        made = len(make_bins(source_lengths, target_lengths, budget))
        if made == bins:
            break
        budget = min(cap, max(1, round(budget * made / bins)))
    return budget
