"""Tokenised rows on disk, read by row number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from trainer.batching import Rows
from trainer.collate import Batch, collate


class TokenRows:
    """Memory-mapped rows of token ids; only their lengths are held in memory.

    Attributes:
        source_lengths: (n,) tokens of each encoder input.
        target_lengths: (n,) tokens of each label row: the real target tokens that the loss counts.
        pad_id, start_id: padding and decoder start token.
    """

    def __init__(self, dataset: Dataset, *, pad_id: int, start_id: int) -> None:
        self.dataset: Any = dataset.with_format("arrow")
        self.source_lengths: Rows = _lengths(dataset, "source_ids")
        self.target_lengths: Rows = _lengths(dataset, "target_ids")
        self.pad_id = pad_id
        self.start_id = start_id

    def __len__(self) -> int:
        return len(self.source_lengths)

    def batch(self, rows: Rows) -> Batch:
        """Return these rows as one padded micro-batch."""
        table = self.dataset[rows.tolist()]
        sources, targets = table["source_ids"].to_pylist(), table["target_ids"].to_pylist()
        return collate(sources, targets, pad_id=self.pad_id, start_id=self.start_id)

    def target_tokens(self, bins: Sequence[Rows]) -> int:
        """Return the real target tokens of some bins."""
        return sum(int(self.target_lengths[rows].sum()) for rows in bins)


def _lengths(dataset: Dataset, column: str) -> Rows:
    lengths = pc.list_value_length(dataset.data.column(column))
    return np.asarray(lengths.to_numpy(), dtype=np.int64)
