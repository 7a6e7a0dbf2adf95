"""What is trained: the right layers, in fp32, with gradients that arrive, and weights that stay tied."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from demo.corpus import Pair
from mtft import models
from mtft.errors import InputError
from tests.standins.build import FAMILIES as BUILDERS
from tests.trainer.helpers import (
    ALONE,
    KEYS,
    assert_same_gradient,
    build,
    logits_of,
    make_config,
    new_state,
    segments_of,
    split,
    step_gradient,
    stir_adapters,
    train,
)
from trainer.adapters import base_of, make_trainable, trainable
from trainer.generation import Decoding, translate
from trainer.loading import check_tied

Standins = Callable[[str], Path]
TARGETS = {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}


def wrapped_modules(model: nn.Module) -> list[str]:
    """Return the names of the modules that carry an adapter."""
    return [name for name, module in model.named_modules() if hasattr(module, "lora_A") and len(module.lora_A)]


class TestLora:
    # 12 x 6 + 12 x 10 layers and 17.3 M weights at r = 32 for the large models, half of both for OPUS.
    @pytest.mark.parametrize(
        ("key", "layers", "weights"),
        [("m2m100_418m", 192, 17_301_504), ("mbart50_mmt_fr", 192, 17_301_504), ("opus_mt_en_fr", 96, 8_650_752)],
    )
    def test_real_geometry_gets_every_projection_and_nothing_else(self, key: str, layers: int, weights: int) -> None:
        card = models.card(key)
        settings = AutoConfig.for_model(**BUILDERS[card.family].CONFIG)
        with torch.device("meta"):
            base = AutoModelForSeq2SeqLM.from_config(settings)
            model = make_trainable(card, make_config(key, "somewhere", lora={"r": 32}), base)
        names = wrapped_modules(model)
        assert len(names) == layers
        assert {name.rsplit(".", 1)[-1] for name in names} == TARGETS
        assert all(".encoder.layers." in name or ".decoder.layers." in name for name in names)
        assert not [name for name in trainable(model) if "lora_" not in name]
        assert sum(p.numel() for p in trainable(model).values()) == weights == card.lora_parameters(32)

    @pytest.mark.parametrize("names", [["lm_head"], ["shared"], ["q_proj", "embed_tokens"], ["query"]])
    def test_targets_outside_the_layers_are_refused(self, names: list[str], standins: Standins) -> None:
        with pytest.raises(InputError, match=rf"names {names[-1]}, which no encoder or decoder layer has; allowed: "):
            build(KEYS["mbart50"], standins("mbart50"), [], lora={"target_modules": names})

    def test_chosen_targets_are_the_only_ones(self, standins: Standins) -> None:
        folder = standins("mbart50")
        model = build(KEYS["mbart50"], folder, [Pair("A", "B", "C")], lora={"target_modules": ["fc1"]}).model
        assert {name.rsplit(".", 1)[-1] for name in wrapped_modules(model)} == {"fc1"}
        assert len(wrapped_modules(model)) == 4

    def test_trains_fp32_and_leaves_the_base_as_it_was(
        self, family: str, standins: Standins, short_text: list[Pair]
    ) -> None:
        setup = build(KEYS[family], standins(family), short_text)
        assert {parameter.dtype for parameter in trainable(setup.model).values()} == {torch.float32}
        frozen = {n: p.detach().clone() for n, p in setup.model.named_parameters() if not p.requires_grad}
        loop = setup.loop(4)
        train(loop, new_state(loop, bins_per_step=1, bin_tokens=300, steps=4))
        assert all(torch.equal(p, frozen[n]) for n, p in setup.model.named_parameters() if n in frozen)
        check_tied(setup.model)

    def test_remembers_base_and_revision(self, standins: Standins, short_text: list[Pair], tmp_path: Path) -> None:
        folder = standins("marian")
        setup = build(KEYS["marian"], folder, short_text, model={"revision": "a" * 40})
        setup.model.save_pretrained(tmp_path)  # type: ignore[operator]
        saved = json.loads((tmp_path / "adapter_config.json").read_text())
        assert (saved["base_model_name_or_path"], saved["revision"]) == (str(folder), "a" * 40)


class TestMerging:
    def test_merged_model_equals_the_adapted_one(self, family: str, standins: Standins, short_text: list[Pair]) -> None:
        setup = build(KEYS[family], standins(family), short_text)
        plain = logits_of(setup.model, setup.rows)
        stir_adapters(setup.model)
        adapted = logits_of(setup.model, setup.rows)
        assert (adapted - plain).abs().max() > 0.1
        decoding = Decoding(beams=3, batch_tokens=500, dtype=torch.float32)
        segments, _ = segments_of(setup.card, short_text[:8])
        before = translate(setup.model, setup.encoder, segments, decoding, ALONE)
        merged: Any = setup.model
        merged = merged.merge_and_unload(safe_merge=True)
        check_tied(merged)
        torch.testing.assert_close(logits_of(merged, setup.rows), adapted, rtol=1e-3, atol=1e-4)
        assert translate(merged, setup.encoder, segments, decoding, ALONE) == before


class TestGradientCheckpointing:
    def test_is_off_unless_asked_for(self, family: str, standins: Standins, short_text: list[Pair]) -> None:
        assert not build(KEYS[family], standins(family), short_text).base.is_gradient_checkpointing

    @pytest.mark.parametrize("method", ["lora", "qlora", "full"])
    def test_gives_the_same_gradient(
        self, family: str, method: str, standins: Standins, short_text: list[Pair]
    ) -> None:
        gradients = []
        for checkpointing in (False, True):
            options = {"gradient_checkpointing": checkpointing}
            setup = build(KEYS[family], standins(family), short_text, method=method, train=options)
            assert setup.base.is_gradient_checkpointing == checkpointing
            stir_adapters(setup.model)
            gradients.append(step_gradient(setup, split(8, 2), training=True)[1])
        assert_same_gradient(gradients[0], gradients[1])

    def test_every_adapter_learns(self, family: str, standins: Standins, short_text: list[Pair]) -> None:
        setup = build(KEYS[family], standins(family), short_text, train={"gradient_checkpointing": True})
        loop = setup.loop(5)
        train(loop, new_state(loop, bins_per_step=1, bin_tokens=400, steps=5))
        outputs = {name: p for name, p in trainable(setup.model).items() if "lora_B" in name}
        assert len(outputs) == 2 * 6 + 2 * 10
        assert not [name for name, parameter in outputs.items() if not parameter.norm() > 0]


class TestFull:
    def test_every_weight_is_trained_and_stays_tied(
        self, family: str, standins: Standins, short_text: list[Pair], tmp_path: Path
    ) -> None:
        setup = build(KEYS[family], standins(family), short_text, method="full")
        untrained = {name for name, parameter in setup.model.named_parameters() if not parameter.requires_grad}
        assert all("embed_positions" in name for name in untrained)
        assert bool(untrained) == (family == "marian")  # M2M100 computes them outside its parameters
        before = {name: p.detach().clone() for name, p in trainable(setup.model).items()}
        loop = setup.loop(3)
        train(loop, new_state(loop, bins_per_step=1, bin_tokens=400, steps=3))
        assert not [name for name, p in trainable(setup.model).items() if torch.equal(p, before[name])]
        check_tied(setup.model)

    def test_marians_pad_row_stays_zero(self, standins: Standins, short_text: list[Pair]) -> None:
        setup = build(KEYS["marian"], standins("marian"), short_text, method="full", train={"weight_decay": 0.1})
        pad = setup.base.config.pad_token_id
        weight: nn.Parameter = setup.base.get_input_embeddings().weight
        before = weight.detach().clone()
        loop = setup.loop(25)
        train(loop, new_state(loop, bins_per_step=1, bin_tokens=200, steps=25))
        assert not weight[pad].any()
        assert not weight[pad].isnan().any()
        changed = (weight != before).any(-1)
        assert changed.sum() == len(weight) - 1  # smoothing and the tied output layer reach every other row

    def test_without_the_hook_the_pad_row_would_move(self, standins: Standins, short_text: list[Pair]) -> None:
        setup = build(KEYS["marian"], standins("marian"), short_text, method="full")
        weight = setup.base.get_input_embeddings().weight
        assert weight._backward_hooks
        weight._backward_hooks.clear()
        _, gradient = step_gradient(setup, split(4, 1))
        shared = next(value for name, value in gradient.items() if value.shape == weight.shape)
        assert shared[setup.base.config.pad_token_id].any()


class TestQlora:
    def test_a_few_steps_lower_the_loss(self, family: str, standins: Standins, short_text: list[Pair]) -> None:
        setup = build(KEYS[family], standins(family), short_text[:8], method="qlora", train={"scheduler": "constant"})
        assert {parameter.dtype for parameter in trainable(setup.model).values()} == {torch.float32}
        assert len(wrapped_modules(setup.model)) == 2 * 6 + 2 * 10
        assert base_of(setup.model).is_quantized
        loop = setup.loop(12, learning_rate=2e-2)
        results = train(loop, new_state(loop, bins_per_step=1, bin_tokens=2000, steps=12))
        assert {result.rows for result in results} == {8}
        assert results[-1].loss < results[0].loss - 0.1
