"""The base model: found, checked against its card, loaded in fp32 with the right device map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BitsAndBytesConfig, PreTrainedModel

from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard
from trainer.adapters import base_of
from trainer.distributed import World
from trainer.families import family_of

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


def choose_precision(config: Config, device: torch.device) -> torch.dtype:
    """Return the autocast type: bf16 where the device has it, else fp32; an explicit choice is honoured or refused.

    Raises:
        InputError: the device cannot compute in the precision asked for.
    """
    wanted = config.train.precision
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return torch.bfloat16 if has_bf16 else torch.float32
    if wanted == "fp16" and device.type == "cpu":
        raise InputError("train.precision is 'fp16', but this process computes on a CPU. Allowed: auto, fp32, bf16.")
    if wanted == "bf16" and device.type == "cuda" and not has_bf16:
        name = torch.cuda.get_device_name(device)
        raise InputError(f"train.precision is 'bf16', but {name} has no bf16. Allowed here: auto, fp32, fp16.")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]


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
        model, report = AutoModelForSeq2SeqLM.from_pretrained(source, **arguments)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _unreadable(card, source, error) from error
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


def check_checkpoint(card: ModelCard, config: Config) -> tuple[str, Any]:
    """Return where the base is and its configuration, with what can be seen without reading its weights checked.

    Raises:
        InputError: it is missing, of another family, too short for the lengths asked for, or only there as a pickle.
    """
    source = str(config.model.path or card.base)
    settings = _load_config(card, source, config.model.revision)
    _check_lengths(card, config, source, settings.max_position_embeddings)
    _check_weight_files(source)
    return source, settings


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


def _load_config(card: ModelCard, source: str, revision: str | None) -> Any:
    try:
        settings: Any = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _unreadable(card, source, error) from error
    expected = family_of(card).model_type
    if settings.model_type != expected:
        raise InputError(
            f"{source} is a {settings.model_type} checkpoint; model {card.key} needs {expected}. "
            "`mtft-launch models` lists the keys and their families."
        )
    # A dropped layer has no gradient, and DDP waits for it for ever.
    for name in ("encoder_layerdrop", "decoder_layerdrop"):
        if hasattr(settings, name):
            setattr(settings, name, 0.0)
    return settings


def _check_lengths(card: ModelCard, config: Config, source: str, positions: int) -> None:
    for name in ("max_source_length", "max_target_length"):
        asked = getattr(config.train, name)
        if asked > positions and not family_of(card).growing_positions:
            raise InputError(f"train.{name} is {asked}, but {source} has {positions} positions; set it to at most that")


def _check_weight_files(source: str) -> None:
    folder = Path(source)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt") for path in folder.glob(pattern))
    if pickles:
        raise InputError(
            f"{source} holds its weights only as a pickle ({pickles[0]}), which is never read. Convert it where you "
            "trust it: model.save_pretrained(folder) with transformers writes model.safetensors."
        )
    raise InputError(f"{source} holds no weights: no *.safetensors file in it")


def _place(device: torch.device) -> int | str:
    return device.index if device.type == "cuda" else "cpu"


def _unreadable(card: ModelCard, source: str, error: Exception) -> InputError:
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return InputError(f"the base model of {card.key} could not be read from {source}: {reason}")
