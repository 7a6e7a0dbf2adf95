"""The deliverable: an adapter (or, for full fine-tuning, a model) that loads without mtft."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtft import files
from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard
from mtft.runs import RunPaths
from trainer.adapters import base_of
from trainer.encoding import Encoder
from trainer.families import point
from trainer.generation import generation_settings


def export(model: Any, card: ModelCard, config: Config, encoder: Encoder, paths: RunPaths) -> Path:
    """Write ``lora/`` (``model/`` for method full) and the base's config and tokenizer beside it.

    The tokenizer is saved pointing in the model's first direction; the generation settings carry the
    forced first token of a one-way model, and none for a two-way one.
    """
    target = paths.folder / "model" if config.method == "full" else paths.lora
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    base = base_of(model)
    base.config.use_cache = True
    tokenizer = encoder.tokenizer
    point(card, tokenizer, *card.directions[0])
    only = card.directions[0] if len(card.directions) == 1 else None
    settings = generation_settings(base, card, tokenizer, only, config.eval.beams)
    settings.max_length = config.train.max_target_length
    for folder in (temporary, paths.folder):
        tokenizer.save_pretrained(folder)
        base.config.save_pretrained(folder)
    # PEFT tells an adapter from a model by its own config; a second config.json would confuse loaders.
    if config.method != "full":
        (temporary / "config.json").unlink()
    model.save_pretrained(temporary)
    settings.save_pretrained(temporary)
    (temporary / "README.md").unlink(missing_ok=True)  # PEFT's model card template, all of it unfilled
    refuse_pickles(temporary)
    files.share(temporary)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(temporary, target)
    files.sync_folder(target.parent)
    return target


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder that holds a pickle.

    Raises:
        InputError: naming the file.
    """
    for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl"):
        for found in folder.rglob(pattern):
            raise InputError(f"{found} is a pickle; published files hold none")


def all_finite(model: nn.Module) -> bool:
    """Whether every trainable weight is a finite number."""
    return all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.requires_grad)
