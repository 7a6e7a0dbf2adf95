"""Translating sentences with a loaded model: batched, sharded over the ranks, order kept."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from mtft.models import ModelCard
from trainer.adapters import base_of
from trainer.distributed import World
from trainer.encoding import Encoder
from trainer.families import forced_bos_id
from trainer.loop import autocast
from trainer.out_of_memory import Parts


class Segment(NamedTuple):
    """One sentence to translate.

    Attributes:
        source: its text.
        direction: (source, target) languages.
    """

    source: str
    direction: tuple[str, str]


class Hypothesis(NamedTuple):
    """A translation.

    Attributes:
        text: the target text.
        truncated: whether it stopped at the length limit instead of at EOS.
    """

    text: str
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How translations are searched for.

    Attributes:
        beams: beam width; 1 is greedy.
        batch_tokens: most padded source tokens in one batch.
        dtype: autocast type; float32 switches autocast off.
        parts: how many parts a batch is cut into from the start, because memory ran out before.
    """

    beams: int
    batch_tokens: int
    dtype: torch.dtype
    parts: int = 1


def translate(
    model: nn.Module, encoder: Encoder, segments: Sequence[Segment], decoding: Decoding, world: World
) -> list[Hypothesis]:
    """Translate all segments and return the hypotheses in their order, on every rank.

    Which sentences share a batch depends on the sentences alone, so the result is the same on any
    number of ranks. An empty source gives an empty translation.
    """
    return joined(len(segments), world.gather(translate_share(model, encoder, segments, decoding, world)))


def translate_share(
    model: nn.Module, encoder: Encoder, segments: Sequence[Segment], decoding: Decoding, world: World
) -> dict[int, Hypothesis]:
    """Translate this rank's share of the segments, without a word to the others; return hypotheses by position."""
    batches = _batches(encoder, segments, decoding.batch_tokens)
    mine: dict[int, Hypothesis] = {}
    inner = base_of(model)
    was_training = inner.training
    inner.eval()
    try:
        parts = Parts(world.device, decoding.parts)
        for batch in batches[world.rank :: world.size]:
            work = partial(_translate_batch, inner, encoder, decoding, world.device, batch.direction)
            for found in parts.each(work, batch.sources):
                mine.update(found)
    finally:
        inner.train(was_training)
    return mine


def joined(count: int, shares: Iterable[Mapping[int, Hypothesis]]) -> list[Hypothesis]:
    """Return the hypotheses of ``count`` segments in their order, from every rank's share."""
    found: dict[int, Hypothesis] = {}
    for share in shares:
        found.update(share)
    return [found.get(index, Hypothesis("", False)) for index in range(count)]


def new_token_limit(source_length: int, positions: int) -> int:
    """Return how many tokens a translation may have: 1.5 x source + 20, within the model's positions."""
    return min(source_length * 3 // 2 + 20, positions - 2)


_Sources = list[tuple[int, list[int]]]
"""Position and token ids of some sources, the longest first."""


class _Batch(NamedTuple):
    direction: tuple[str, str]
    sources: _Sources


def _batches(encoder: Encoder, segments: Sequence[Segment], batch_tokens: int) -> list[_Batch]:
    """Group by direction and length, longest first so that ranks end together."""
    by_direction: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, segment in enumerate(segments):
        if segment.source.strip():
            by_direction[segment.direction].append(index)
    batches = []
    for direction in sorted(by_direction):
        indices = by_direction[direction]
        ids, _ = encoder.encode_sources([segments[index].source for index in indices], *direction)
        order = sorted(range(len(indices)), key=lambda at: (-len(ids[at]), at))
        start = 0
        while start < len(order):
            size = max(1, batch_tokens // len(ids[order[start]]))
            chunk = order[start : start + size]
            batches.append(_Batch(direction, [(indices[at], ids[at]) for at in chunk]))
            start += size
    return batches


@torch.no_grad()
def _translate_batch(
    model: Any,
    encoder: Encoder,
    decoding: Decoding,
    device: torch.device,
    direction: tuple[str, str],
    sources: _Sources,
) -> dict[int, Hypothesis]:
    longest = len(sources[0][1])
    pad = model.config.pad_token_id
    input_ids = torch.tensor([ids + [pad] * (longest - len(ids)) for _, ids in sources], device=device)
    lengths = torch.tensor([len(ids) for _, ids in sources], device=device)
    mask = (torch.arange(longest, device=device) < lengths[:, None]).long()
    limit = new_token_limit(longest, model.config.max_position_embeddings)
    settings = generation_settings(model, encoder.card, encoder.tokenizer, direction, decoding.beams)
    settings.max_new_tokens = limit
    settings.use_cache = True
    with autocast(device, decoding.dtype):
        output = model.generate(input_ids=input_ids, attention_mask=mask, generation_config=settings)
    rows = output[:, 1:].tolist()
    eos = model.config.eos_token_id
    texts = encoder.decode(rows)
    return {index: Hypothesis(text, eos not in ids) for (index, _), text, ids in zip(sources, texts, rows, strict=True)}


def generation_settings(
    model: Any, card: ModelCard, tokenizer: Any, direction: tuple[str, str] | None, beams: int
) -> Any:
    """Return the checkpoint's generation settings with our beam and, given a direction, its first token."""
    settings = copy.deepcopy(model.generation_config)
    settings.num_beams = beams
    settings.do_sample = False
    if beams == 1:  # left over from a card's beam search, these are refused on saving
        settings.early_stopping, settings.length_penalty = False, 1.0
    settings.forced_bos_token_id = forced_bos_id(card, tokenizer, direction[1]) if direction else None
    return settings
