"""The estimate of GPU memory beside what PyTorch really keeps for the backward pass, on a CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MBartConfig, MBartForConditionalGeneration

from mtft.config import Config
from mtft.memory import layer_bytes
from mtft.models import MODELS
from mtft.settings import resolve
from trainer.adapters import make_trainable

WIDTH, INNER, ROWS = 128, 512, 4
# On a CPU the mask of dropout has the size of the numbers it hides, 2 or 4 bytes; on a GPU it has one.
LARGEST_MASKS = 1.65


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("part", ["encoder", "decoder", "cross"])
def test_activations_of_a_layer(method: str, part: str) -> None:
    measured = {
        "encoder": slope(method, (1, 1), (2, 1), "source"),
        "decoder": slope(method, (1, 1), (1, 2), "target"),
        "cross": slope(method, (1, 1), (1, 2), "source"),
    }[part]
    card = replace(MODELS["mbart50_mmt_fr"], d_model=WIDTH, d_ff=INNER)
    estimated = dict(zip(("encoder", "decoder", "cross"), layer_bytes(card, method, 2), strict=True))[part]
    assert estimated <= 1.01 * measured <= 1.01 * LARGEST_MASKS * estimated


def slope(method: str, few: tuple[int, int], more: tuple[int, int], side: str) -> float:
    """Return the bytes that one token of one more layer keeps."""
    short, long = {"source": 32, "target": 32}, {"source": 32, "target": 32} | {side: 64}
    kept = [kept_bytes(method, layers, **length) for layers in (more, few) for length in (long, short)]
    return (kept[0] - kept[1] - kept[2] + kept[3]) / (32 * ROWS)


def kept_bytes(method: str, layers: tuple[int, int], source: int, target: int) -> int:
    """Return the bytes of everything a forward pass in bf16 keeps, weights left out."""
    config = settings(method)
    model: Any = make_trainable(MODELS["mbart50_mmt_fr"], config, base(*layers)).train()
    own = {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # a freed block's address would be given away again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    inputs, labels = torch.full((ROWS, source), 7), torch.full((ROWS, target), 7)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        model(input_ids=inputs, attention_mask=torch.ones_like(inputs), decoder_input_ids=labels)
    return sum(kept.values())


def base(encoder: int, decoder: int) -> MBartForConditionalGeneration:
    sides = {"attention_heads": 4, "ffn_dim": INNER}
    return MBartForConditionalGeneration(
        MBartConfig(
            vocab_size=50,
            d_model=WIDTH,
            encoder_layers=encoder,
            decoder_layers=decoder,
            max_position_embeddings=128,
            attention_dropout=0.0,  # with it the attention on a CPU is not fused
            **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sides.items()},
        )
    )


def settings(method: str) -> Config:
    return resolve({"model": "mbart50_mmt_fr", "data": {"train": "-"}, "method": method, "lora": {"r": 4}}).config
