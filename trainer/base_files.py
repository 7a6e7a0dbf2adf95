"""The base checkpoint: found and checked against its card without reading its weights.

Preparation needs no more, and loading what models are made of takes seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from mtft.config import Config
from mtft.errors import InputError, MtftError, unread
from mtft.models import ModelCard
from trainer.families import family_of
from trainer.weights import check_names, read_twice


def check_checkpoint(card: ModelCard, config: Config) -> tuple[str, Any]:
    """Return where the base is and its configuration, with what can be seen without reading its weights checked.

    Raises:
        InputError: it is missing, of another family, too short for the lengths asked for, or only there as a pickle.
    """
    source = str(config.model.path or card.base)
    settings = _load_config(card, source, config.model.revision)
    _check_lengths(card, config, source, settings.max_position_embeddings)
    if Path(source).is_dir():  # one from the hub was looked at when it was fetched
        check_names((path.name for path in Path(source).iterdir()), source)
    return source, settings


def unreadable(card: ModelCard, source: str, error: Exception) -> MtftError:
    """Return the error for a base that transformers cannot read."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return unread(f"the base model of {card.key} could not be read from {source}: {reason}", error)


def _load_config(card: ModelCard, source: str, revision: str | None) -> Any:
    try:
        settings: Any = read_twice(
            lambda: AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        )
    except (OSError, ValueError) as error:
        raise unreadable(card, source, error) from error
    expected = family_of(card).model_type
    if settings.model_type != expected:
        raise InputError(
            f"{source} is a {settings.model_type} checkpoint; model {card.key} needs {expected}. "
            "`mtft-launch models` lists the keys and their families."
        )
    # Each process would drop layers of its own: loss and gradient would depend on how a batch is split.
    for name in ("encoder_layerdrop", "decoder_layerdrop"):
        if hasattr(settings, name):
            setattr(settings, name, 0.0)
    return settings


def _check_lengths(card: ModelCard, config: Config, source: str, positions: int) -> None:
    for name in ("max_source_length", "max_target_length"):
        asked = getattr(config.train, name)
        if asked > positions and not family_of(card).growing_positions:
            raise InputError(f"train.{name} is {asked}, but {source} has {positions} positions; set it to at most that")
