"""Prepared data of a run: read, checked, split and tokenised once, then mapped into memory by every process."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from pathlib import Path

from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard
from mtft.split import SPLITS
from trainer import lease
from trainer.building import Builder, Inputs
from trainer.store import FORMAT, Encoder, Prepared, open_prepared, publish


def prepare(config: Config, card: ModelCard, encoder: Encoder, root: Path) -> Prepared:
    """Return the prepared data of a run; build them below ``<root>/cache/data`` when they are not there.

    Raises:
        InputError: a file is missing, unreadable or not the expected one; too many rows are bad; no rows are left
            for training or dev; the tokenizer does not know the text; the cache cannot be written.
    """
    inputs = Inputs.of(config.data)
    folder = root / "cache" / "data" / _key(config, card, encoder, inputs)
    if folder.is_dir():
        return open_prepared(folder)
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lease.hold(folder.with_name(f"{folder.name}.lease")):
            if not folder.is_dir():
                for abandoned in folder.parent.glob(f".{folder.name}.*.tmp"):
                    shutil.rmtree(abandoned, ignore_errors=True)
                building.mkdir()
                Builder(config, card, encoder, inputs, building).build()
                publish(building, folder)
    except OSError as error:
        raise InputError(
            f"{folder.parent}: the tokenised data cannot be written: {error.strerror or error}; "
            "storage.root must be a writable folder with free space"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return open_prepared(folder)


def _key(config: Config, card: ModelCard, encoder: Encoder, inputs: Inputs) -> str:
    """Return the SHA-256 over everything that decides what a store holds, and whether it may be built."""
    parts = {
        "format": FORMAT,
        "content": [inputs.digest(name) for name in SPLITS],
        "data": config.data.model_dump(mode="json", exclude={"train", "dev", "test", "sha256"}),
        "directions": card.directions,
        "encoder": encoder.fingerprint,
        "lengths": [config.train.max_source_length, config.train.max_target_length],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
