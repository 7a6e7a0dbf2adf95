"""The wiring shared by the tests of the trainer core: a tiny model, its rows and a loop, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel

from demo.corpus import Pair
from mtft import models
from mtft.config import Config
from mtft.models import ModelCard
from trainer.adapters import make_trainable
from trainer.batching import Budget, Rows, make_bins
from trainer.collate import Batch
from trainer.distributed import World
from trainer.encoding import Encoded, Encoder
from trainer.families import load_tokenizer
from trainer.generation import Segment
from trainer.loading import load_base
from trainer.loop import Loop, StepResult
from trainer.loss import LossSums
from trainer.rows import TokenRows
from trainer.state import State

FAMILIES = ("m2m100", "mbart50", "marian")
KEYS = {"m2m100": "m2m100_418m", "mbart50": "mbart50_mmt_fr", "marian": "opus_mt_en_fr"}
ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))


def make_config(key: str, folder: Path | str, *, method: str = "lora", **parts: dict[str, Any]) -> Config:
    """Return a configuration for a stand-in; ``parts`` are sections such as ``train={"epochs": 2}``."""
    document: dict[str, Any] = {
        "model": {"key": key, "path": str(folder)} | parts.pop("model", {}),
        "data": {"train": "rows.jsonl"},
        "method": method,
        "lora": {"r": 8, "alpha": 16.0, "dropout": 0.0} | parts.pop("lora", {}),
        "train": {"device": "cpu", "learning_rate": 2e-3} | parts.pop("train", {}),
        **parts,
    }
    return Config.model_validate(document)


def make_encoder(card: ModelCard, folder: Path | str, length: int = 512) -> Encoder:
    """Return an encoder with the stand-in's tokenizer."""
    return Encoder(card, load_tokenizer(card, folder), max_source_length=length, max_target_length=length)


def segments_of(card: ModelCard, pairs: Sequence[Pair]) -> tuple[list[Segment], list[str]]:
    """Return what a model is given and its references; a two-way model gets the directions in turn."""
    segments, references = [], []
    for index, pair in enumerate(pairs):
        direction = card.directions[index % len(card.directions)]
        sides = {"en": pair.source_en, "fr": pair.target_fr}
        segments.append(Segment(sides[direction[0]], direction))
        references.append(sides[direction[1]])
    return segments, references


def encode(encoder: Encoder, pairs: Sequence[Pair]) -> Dataset:
    """Return token rows in the order of the pairs."""
    segments, references = segments_of(encoder.card, pairs)
    encoded: list[Encoded] = [
        encoder.encode([segment.source], [reference], *segment.direction)
        for segment, reference in zip(segments, references, strict=True)
    ]
    return Dataset.from_dict(
        {"source_ids": [e.source_ids[0] for e in encoded], "target_ids": [e.target_ids[0] for e in encoded]}
    )


@dataclass(kw_only=True)
class Setup:
    """A model ready to be trained on some rows."""

    card: ModelCard
    config: Config
    encoder: Encoder
    base: PreTrainedModel
    model: nn.Module
    rows: TokenRows
    world: World

    def loop(self, steps: int, **train: Any) -> Loop:
        """Return a started loop; ``train`` changes settings of ``config.train``."""
        config = self.config.model_copy(update={"train": self.config.train.model_copy(update=train)})
        loop = Loop(config, self.world, self.model, self.rows, torch.float32)
        loop.start(steps)
        return loop


def build(
    key: str,
    folder: Path | str,
    pairs: Sequence[Pair],
    *,
    method: str = "lora",
    world: World = ALONE,
    dropout: bool = False,
    **parts: dict[str, Any],
) -> Setup:
    """Load a stand-in, make it trainable and encode the pairs. Same arguments give the same weights."""
    torch.manual_seed(1)
    card, config = models.card(key), make_config(key, folder, method=method, **parts)
    encoder = make_encoder(card, folder)
    base = load_base(card, config, world)
    model = make_trainable(card, config, base)
    if not dropout:
        silence_dropout(model)
    pad, start = base.config.pad_token_id, base.config.decoder_start_token_id
    rows = TokenRows(encode(encoder, pairs), pad_id=pad, start_id=start)
    return Setup(card=card, config=config, encoder=encoder, base=base, model=model, rows=rows, world=world)


def silence_dropout(model: nn.Module) -> None:
    """Switch off every dropout, also where a model keeps its probability as a plain number."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "activation_dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def stir_adapters(model: nn.Module) -> None:
    """Fill every ``lora_B``, which starts as zero and would hide mistakes about A and about merging."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def new_state(loop: Loop, *, bins_per_step: int, bin_tokens: int, steps: int) -> State:
    """Return the state of a run that begins, with a given global batch."""
    budget = Budget(bins_per_step=bins_per_step, bin_tokens=bin_tokens)
    return State(total_steps=steps, steps_per_epoch=loop.steps_per_epoch(budget), budget=budget)


def train(loop: Loop, state: State) -> list[StepResult]:
    """Train to the end of ``state`` and return what each step saw."""
    results: list[StepResult] = []
    loop.run(state, lambda _, result: results.append(result))
    return results


def note_learned(setup: Setup, loop: Loop) -> list[int]:
    """Return the list of the rows this rank learns from; it grows with the training."""
    read, accumulate = setup.rows.batch, loop.accumulate
    last: list[int] = []
    learned: list[int] = []

    def note_rows(rows: Rows) -> Batch:
        last[:] = rows.tolist()
        return read(rows)

    def note_weight(batch: Batch, weight: float) -> LossSums:
        learned.extend(last)
        return accumulate(batch, weight)

    setup.rows.batch = note_rows  # type: ignore[method-assign]
    loop.accumulate = note_weight  # type: ignore[method-assign]
    return learned


def logits_of(model: nn.Module, rows: TokenRows, count: int = 8) -> torch.Tensor:
    """Return the logits of the first rows, without dropout."""
    from trainer.loop import forward

    bins = make_bins(rows.source_lengths[:count], rows.target_lengths[:count], 10**6)
    assert len(bins) == 1
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = forward(model, rows.batch(bins[0]))
    model.train(was_training)
    return logits


def step_gradient(
    setup: Setup, bins: Sequence[Sequence[int]], *, training: bool = False
) -> tuple[StepResult, dict[str, torch.Tensor]]:
    """Take a step of a fresh loop with a rate of 0 over some bins; return what it saw and the unclipped gradient."""
    loop = setup.loop(100, max_grad_norm=0.0, learning_rate=0.0)
    seen: dict[str, torch.Tensor] = {}

    def remember(*_: Any) -> None:
        seen.update((name, p.grad.detach().clone()) for name, p in loop.parameters.items() if p.grad is not None)

    loop.optimizer.register_step_pre_hook(remember)
    loop.model.train(training)
    result = loop.step([np.asarray(rows, dtype=np.int64) for rows in bins])
    assert result.learning_rate == 0.0
    return result, seen


def split(count: int, parts: int) -> list[list[int]]:
    """Return row numbers 0 to count - 1 in equal parts."""
    return [part.tolist() for part in np.array_split(np.arange(count), parts)]


def assert_same_gradient(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], rtol: float = 1e-4) -> None:
    """Compare two gradients tensor by tensor; the difference's norm is measured against the tensor's."""
    assert one.keys() == other.keys()
    assert one
    largest = max(float(gradient.norm()) for gradient in one.values())
    for name, gradient in one.items():
        # Key biases have no gradient in exact arithmetic (softmax ignores a shift): only noise to compare.
        if float(gradient.norm()) > 1e-5 * largest:
            assert float((gradient - other[name]).norm()) <= rtol * float(gradient.norm()), name


@dataclass(frozen=True)
class Practised:
    """A checkpoint that translates the pairs it has learned.

    Attributes:
        folder: the checkpoint; shared, so read-only.
        pairs: what it learned.
        steps: what every step of the training saw.
    """

    folder: Path
    pairs: Sequence[Pair]
    steps: Sequence[StepResult]


def practise(key: str, folder: Path, pairs: Sequence[Pair], steps: int = 90) -> Practised:
    """Train every weight of a checkpoint folder on a few pairs and write the weights back."""
    setup = build(key, folder, pairs, method="full")
    loop = setup.loop(steps, learning_rate=8e-3, label_smoothing=0.0)
    results = train(loop, new_state(loop, bins_per_step=1, bin_tokens=5000, steps=steps))
    setup.base.save_pretrained(folder)
    return Practised(folder=folder, pairs=pairs, steps=results)
