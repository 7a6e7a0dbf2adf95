"""The deliverable: an adapter (or, for full fine-tuning, a model) that loads without mtft."""

from __future__ import annotations

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
from trainer.loading import check_tied


def export(model: Any, card: ModelCard, config: Config, encoder: Encoder, paths: RunPaths) -> Path:
    """Write ``lora/`` (``model/`` for method full) and the base's config and tokenizer beside it.

    The tokenizer is saved pointing in the model's first direction; the generation settings carry the
    forced first token of a one-way model, and none for a two-way one.
    """
    target = paths.deliverable(config.method)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        _write(model, card, config, encoder, temporary, paths.folder)
        files.publish_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # a volume that is full needs its room
    return target


def _write(model: Any, card: ModelCard, config: Config, encoder: Encoder, temporary: Path, run: Path) -> None:
    base = base_of(model)
    base.config.use_cache = True
    check_tied(model)
    point(card, encoder.tokenizer, *card.directions[0])
    encoder.tokenizer.save_pretrained(temporary)
    base.config.save_pretrained(temporary)
    _copy_beside(temporary, run)
    # PEFT tells an adapter from a model by its own config; a second config.json would confuse loaders.
    if config.method != "full":
        (temporary / "config.json").unlink()
    model.save_pretrained(temporary)
    only = card.directions[0] if len(card.directions) == 1 else None
    settings = generation_settings(base, card, encoder.tokenizer, only, config.eval.beams)
    # As long as the base's own users may translate, however short the training rows were.
    settings.max_length = max(config.train.max_target_length, settings.max_length or 0)
    settings.save_pretrained(temporary)
    (temporary / "README.md").unlink(missing_ok=True)  # PEFT's model card template, all of it unfilled
    refuse_pickles(temporary)


def _copy_beside(source: Path, folder: Path) -> None:
    for path in source.iterdir():
        with files.replacing(folder / path.name) as beside:
            shutil.copyfile(path, beside)


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
