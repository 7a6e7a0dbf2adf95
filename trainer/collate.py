"""Rows of token ids to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.loss import IGNORED


class Batch(NamedTuple):
    """One micro-batch; b rows, s source tokens, t target tokens after padding.

    Attributes:
        input_ids: (b, s) encoder input.
        attention_mask: (b, s) 1 on real tokens.
        decoder_input_ids: (b, t) the labels moved right behind the decoder's start token.
        labels: (b, t) ``IGNORED`` on padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    decoder_input_ids: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> Batch:
        """Move every tensor to a device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


def collate(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], *, pad_id: int, start_id: int) -> Batch:
    """Pad on the right and build the decoder's input.

    The decoder input is made here, from the true ids: the model's own shift would trust the last token
    that is not padding to be EOS (mBART), and is missing for M2M100 when labels are withheld.
    """
    input_ids = _padded(sources, pad_id)
    labels = _padded(targets, IGNORED)
    lengths = torch.tensor([len(ids) for ids in sources])
    attention_mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    decoder_input_ids = torch.full_like(labels, pad_id)
    decoder_input_ids[:, 0] = start_id
    decoder_input_ids[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, pad_id)
    return Batch(input_ids, attention_mask, decoder_input_ids, labels)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    table = np.full((len(rows), max(len(ids) for ids in rows)), value, dtype=np.int64)
    for index, ids in enumerate(rows):
        table[index, : len(ids)] = ids
    return torch.from_numpy(table)
