"""What is trained: LoRA, QLoRA or all weights."""

from __future__ import annotations

import re
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard


def make_trainable(card: ModelCard, config: Config, base: PreTrainedModel) -> nn.Module:
    """Freeze or open the base model as the method says and put adapters on it.

    Raises:
        InputError: the adapter targets do not fit the model.
    """
    base.config.use_cache = False
    if config.train.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.method == "full":
        _open_all(base)
        opened: nn.Module = base
        return opened
    for parameter in base.parameters():
        parameter.requires_grad_(False)
    pattern = check_targets(card, config, base)
    model: nn.Module = get_peft_model(base, _lora_config(card, config, pattern), autocast_adapter_dtype=True)
    check_fp32(model)
    return model


def target_pattern(targets: list[str]) -> str:
    """Return the full-match pattern for projections inside encoder and decoder layers, and nothing else."""
    return rf"model\.(encoder|decoder)\.layers\.\d+\.(.+\.)?({'|'.join(map(re.escape, targets))})"


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def check_fp32(model: nn.Module) -> None:
    """Refuse trainable weights in a shorter type: their updates would be rounded away.

    Raises:
        InputError: naming the first such weight.
    """
    for name, parameter in trainable(model).items():
        if parameter.dtype != torch.float32:
            raise InputError(f"trainable weight {name} is {parameter.dtype}, not float32")


def _lora_config(card: ModelCard, config: Config, pattern: str) -> LoraConfig:
    return LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        bias=config.lora.bias,
        target_modules=pattern,
        revision=config.model.revision,
    )


def check_targets(card: ModelCard, config: Config, base: nn.Module) -> str:
    """Return the pattern of the layers that get an adapter.

    Raises:
        InputError: a configured target is in no encoder or decoder layer.
    """
    targets = list(card.lora_targets) if config.lora.target_modules == "auto" else list(config.lora.target_modules)
    pattern = target_pattern(targets)
    found = {name.rsplit(".", 1)[-1] for name, _ in base.named_modules() if re.fullmatch(pattern, name)}
    missing = [target for target in targets if target not in found]
    if missing:
        linear = (name for name, module in base.named_modules() if isinstance(module, nn.Linear))
        known = sorted({name.rsplit(".", 1)[-1] for name in linear})
        raise InputError(
            f"lora.target_modules names {', '.join(missing)}, which no encoder or decoder layer has; "
            f"allowed: {', '.join(name for name in known if name != 'lm_head')}"
        )
    return pattern


def _open_all(base: PreTrainedModel) -> None:
    for name, parameter in base.named_parameters():
        # Sinusoidal positions are a table, not a weight; checkpoints do not even hold them.
        parameter.requires_grad_("embed_positions" not in name or base.config.model_type == "mbart")
    check_fp32(base)
    if base.config.model_type == "marian":
        _keep_pad_row(base)


def _keep_pad_row(base: Any) -> None:
    """Withhold the gradient of Marian's pad row: decoding starts from it, and CTranslate2 takes it for zero."""
    pad = base.config.pad_token_id

    def without_pad(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[pad] = 0
        return gradient

    for weight in {base.get_input_embeddings().weight, base.model.decoder.embed_tokens.weight, base.lm_head.weight}:
        weight.register_hook(without_pad)


def base_of(model: nn.Module) -> PreTrainedModel:
    """Return the transformers model inside PEFT's wrapper."""
    inner: Any = model
    if isinstance(inner, PeftModel):
        inner = inner.get_base_model()
    found: PreTrainedModel = inner
    return found
