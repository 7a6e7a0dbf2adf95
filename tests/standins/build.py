"""Build a stand-in checkpoint, or take it from the cache."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import sentencepiece
import torch
import transformers
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel

from mtft.errors import InputError
from mtft.files import write_json
from mtft.models import MODELS, ModelCard, card
from tests.standins import m2m100, marian, mbart50

FAMILIES: dict[str, ModuleType] = {"m2m100": m2m100, "mbart50": mbart50, "marian": marian}


SIZES = ("tiny", "small", "real")


@dataclass(frozen=True)
class Geometry:
    """Shape of a stand-in's network; ``pieces`` is how many vocabulary entries are trained."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    d_ff: int
    pieces: int


TINY = Geometry(d_model=64, encoder_layers=2, decoder_layers=2, heads=4, d_ff=128, pieces=800)
# Learns to translate generated sentences from nothing within a thousand steps, which wider and deeper ones do not.
SMALL = Geometry(d_model=192, encoder_layers=2, decoder_layers=2, heads=4, d_ff=768, pieces=1600)


def build_standin(
    model: str,
    folder: Path,
    *,
    lines: Sequence[str],
    size: str = "tiny",
    seed: int = 0,
    vocab_pieces: int | None = None,
) -> Path:
    """Write a complete checkpoint folder for a model key or family and return it; the same arguments give equal files.

    Args:
        model: key of the registry, or a family, which stands for its first key.
        folder: must not exist; it appears complete or not at all.
        lines: text the SentencePiece models are trained on, both languages mixed.
        size: ``tiny`` for tests, ``small`` for the demo, ``real`` has the published geometry and vocabulary size.
        seed: of the random weights.
        vocab_pieces: pieces to train in place of the size's; the text may support fewer.

    Raises:
        InputError: unknown model or size, no text, or the folder exists.
    """
    base = _card(model)
    if size not in SIZES:
        raise InputError(f"there is no stand-in size {size!r}; known sizes: {', '.join(SIZES)}")
    if not lines:
        raise InputError("a stand-in needs lines of text to train its SentencePiece models on; got none")
    if folder.exists():
        raise InputError(f"{folder} already exists; remove it or name another folder")
    with _appearing(folder) as temporary:
        write_files(base, temporary, lines, size, vocab_pieces)
        _write_weights(temporary, seed)
    return folder


def cached_standin(model: str, *, lines: Sequence[str], size: str = "tiny", seed: int = 0) -> Path:
    """Return a stand-in kept below the user's cache folder; built at the first call with these arguments.

    The folder is shared by later runs: read it, do not write into it.
    """
    base = _card(model)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "mtft" / "standins" / f"{base.key}-{size}-{_fingerprint(base, lines, size, seed)}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        build_standin(base.key, folder, lines=lines, size=size, seed=seed)
    return folder


def _card(model: str) -> ModelCard:
    first_of_family = {known.family: known for known in reversed(MODELS.values())}
    return first_of_family.get(model) or card(model)  # type: ignore[call-overload]


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``folder`` and rename it at the end; a folder that came first is kept."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_files(
    base: ModelCard, folder: Path, lines: Sequence[str], size: str, vocab_pieces: int | None = None
) -> dict[str, Any]:
    """Write everything but the weights; return the content of ``config.json``."""
    family = FAMILIES[base.family]
    geometry = _geometry(base, size)
    fill_to = base.vocabulary_size if size == "real" else None
    identifiers = family.write_tokenizer(folder, lines, vocab_pieces or geometry.pieces, fill_to, base.directions[0])
    config: dict[str, Any] = {
        **family.CONFIG,
        "d_model": geometry.d_model,
        "num_hidden_layers": geometry.encoder_layers,
        "encoder_layers": geometry.encoder_layers,
        "decoder_layers": geometry.decoder_layers,
        "encoder_attention_heads": geometry.heads,
        "decoder_attention_heads": geometry.heads,
        # Glorot's size for a square layer; at the published 0.02 narrow models take long to look at the source at all.
        **({} if size == "real" else {"init_std": geometry.d_model**-0.5}),
        **({"dropout": 0.0} if size == "small" else {}),  # minutes of training cannot overfit
        "encoder_ffn_dim": geometry.d_ff,
        "decoder_ffn_dim": geometry.d_ff,
        **identifiers,
    }
    generation = {name: identifiers.get(name, value) for name, value in family.GENERATION.items()}
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", generation)
    return config


def _geometry(base: ModelCard, size: str) -> Geometry:
    if size != "real":
        return {"tiny": TINY, "small": SMALL}[size]
    heads = base.d_model // 64  # all published models have heads of 64
    return Geometry(base.d_model, base.encoder_layers, base.decoder_layers, heads, base.d_ff, TINY.pieces)


def _write_weights(folder: Path, seed: int) -> None:
    config = AutoConfig.from_pretrained(folder)
    published = config.dtype  # from_config overwrites it
    model = _random_model(config, seed).to(published)
    with tempfile.TemporaryDirectory(dir=folder) as saved:
        model.save_pretrained(saved)
        weights = Path(saved, "model.safetensors").rename(folder / "model.safetensors")
    weights.chmod(0o644)  # safetensors writes for the owner only


def _random_model(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
        if config.model_type == "marian":
            # The published models have a trained bias; its entry for <pad>, which was added later, is zero.
            bias = model.get_buffer("final_logits_bias").normal_(std=0.5)
            bias[:, config.pad_token_id] = 0.0
    return model


def _fingerprint(base: ModelCard, lines: Sequence[str], size: str, seed: int) -> str:
    """Hash everything a stand-in depends on: arguments, library versions and the sources of the builder."""
    digest = hashlib.sha256()
    versions = (transformers.__version__, sentencepiece.__version__, torch.__version__)
    for part in (*versions, str(base), size, str(seed), *lines):
        digest.update(part.encode() + b"\0")
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
