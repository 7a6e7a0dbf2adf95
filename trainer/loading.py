"""The base model: loaded in fp32 with the right device map, and complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSeq2SeqLM, BitsAndBytesConfig, PreTrainedModel

from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard
from trainer.adapters import base_of
from trainer.base_files import check_checkpoint, unreadable
from trainer.distributed import World, choose_precision
from trainer.weights import SUFFIX, touch

DeviceMap = dict[str, Any] | str | None


def choose_device_map(card: ModelCard, config: Config, world: World) -> DeviceMap:
    """Apply the device-map rule.

    Several processes: no map, or this rank's own device where weights are quantised (bitsandbytes
    places them at load time). One process: none for OPUS; the configured map for the others, which on
    a CPU can only mean the CPU.
    """
    if world.size > 1:
        return {"": _place(world.device)} if config.method == "qlora" else None
    if config.method == "qlora" and world.device.type == "cpu":
        return {"": "cpu"}
    if card.family == "marian":
        return {"": _place(world.device)} if config.method == "qlora" else None
    if world.device.type == "cpu":
        return {"": "cpu"}
    configured: DeviceMap = config.train.device_map
    return configured


def load_base(card: ModelCard, config: Config, world: World) -> PreTrainedModel:
    """Load the base checkpoint in fp32 (or NF4 under qlora) from safetensors, without layer dropping.

    Raises:
        InputError: the checkpoint is missing, of another family, incomplete, or only there as a pickle.
    """
    source, settings = check_checkpoint(card, config)
    quantised = config.method == "qlora"
    # Checkpoints may be fp16 on disk (Marian is): trainable weights have to be fp32 all the same.
    arguments: dict[str, Any] = {
        "config": settings,
        "revision": config.model.revision,
        "dtype": torch.float32,
        "device_map": choose_device_map(card, config, world),
        "use_safetensors": True,
        "trust_remote_code": False,
        "ignore_mismatched_sizes": True,  # reported below, in words that name the weight
        "output_loading_info": True,
    }
    if quantised:
        arguments["quantization_config"] = quantisation(choose_precision(config, world.device))
    try:
        for file in Path(source).glob(f"*{SUFFIX}"):
            touch(file)
        model, report = AutoModelForSeq2SeqLM.from_pretrained(source, **arguments)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise unreadable(card, source, error) from error
    if absent := sorted([*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]):
        raise InputError(
            f"{source} is no complete checkpoint: {len(absent)} weights are missing or of another shape, "
            f"first {absent[0]}"
        )
    # With a map the layers are where they belong, possibly on several devices.
    if arguments["device_map"] is None:
        model.to(world.device)
    if quantised and world.device.type == "cpu":
        _keep_trainable(model)
    check_tied(model)
    # generate() fills from here what a call leaves open: a forced EOS would hide that a sentence was cut.
    model.generation_config.forced_eos_token_id = None
    model.generation_config.max_length = None
    loaded: PreTrainedModel = model
    return loaded


def _keep_trainable(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights at the first inference on a CPU: packed, they have no gradient."""
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quantisation(compute: torch.dtype) -> BitsAndBytesConfig:
    """Return NF4 with double quantisation; embeddings and the output layer stay as they are (Dettmers et al. 2023)."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        llm_int8_skip_modules=["lm_head"],
    )


def check_tied(model: nn.Module) -> None:
    """Refuse a model whose output layer or embeddings are not shared where its configuration says so.

    Raises:
        InputError: naming the two weights that should be one.
    """
    inner: Any = base_of(model)
    if not inner.config.tie_word_embeddings:
        return
    core = inner.model
    shared = core.decoder.embed_tokens.weight
    pairs = {"lm_head": inner.lm_head.weight}
    if getattr(inner.config, "share_encoder_decoder_embeddings", True):
        pairs["encoder.embed_tokens"] = core.encoder.embed_tokens.weight
    for name, weight in pairs.items():
        if weight.data_ptr() != shared.data_ptr():
            raise InputError(f"the weights of {name} and decoder.embed_tokens should be one tensor and are two")


def _place(device: torch.device) -> int | str:
    return device.index if device.type == "cuda" else "cpu"
