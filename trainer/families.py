"""What differs between M2M100, mBART-50 and Marian, in one table.

All three are encoder-decoders whose decoder input is the label row moved right by one behind a
start token; they differ in that start token, in whether a language token opens each side, and in
the classes that load them.

Sources: ``shift_tokens_right`` and the tokenizer classes of transformers' m2m_100, mbart50 and marian.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from mtft.errors import InputError, unread
from mtft.models import ModelCard
from trainer.weights import TEXTS, read_twice


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model family.

    Attributes:
        model_type: ``config.model_type`` of its checkpoints.
        tokenizers: tokenizer class names its checkpoints may load as.
        vocabulary: files a tokenizer is read from; of several at one place one is enough.
        language_token: how a language code becomes a token, or None without language tokens.
        growing_positions: positions are computed for any length; else the checkpoint's table is the limit.
    """

    model_type: str
    tokenizers: tuple[str, ...]
    vocabulary: tuple[tuple[str, ...], ...]
    language_token: str | None
    growing_positions: bool = False


FAMILIES: dict[str, Family] = {
    "m2m100": Family(
        model_type="m2m_100",
        tokenizers=("M2M100Tokenizer",),
        vocabulary=(("vocab.json",), ("sentencepiece.bpe.model",)),
        language_token="__{}__",
        growing_positions=True,
    ),
    "mbart50": Family(
        model_type="mbart",
        tokenizers=("MBart50Tokenizer", "MBart50TokenizerFast"),
        vocabulary=(("sentencepiece.bpe.model", "tokenizer.json"),),
        language_token="{}",
    ),
    "marian": Family(
        model_type="marian",
        tokenizers=("MarianTokenizer",),
        vocabulary=(("source.spm",), ("target.spm",), ("vocab.json",)),
        language_token=None,
    ),
}


def family_of(card: ModelCard) -> Family:
    """Return the family that a card names."""
    return FAMILIES[card.family]


def language_id(card: ModelCard, tokenizer: PreTrainedTokenizerBase, language: str) -> int | None:
    """Return the id of a language's token, or None for a family without language tokens.

    Raises:
        InputError: the tokenizer does not know the token, so the checkpoint is not of this family.
    """
    pattern = family_of(card).language_token
    if pattern is None:
        return None
    token = pattern.format(card.language_codes[language])
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int) or found == tokenizer.unk_token_id:
        raise InputError(f"the tokenizer has no token {token!r} for language {language!r} of model {card.key}")
    return found


def forced_bos_id(card: ModelCard, tokenizer: PreTrainedTokenizerBase, target_language: str) -> int | None:
    """Return the token that every translation into this language has to begin with, or None."""
    return language_id(card, tokenizer, target_language) if card.forces_bos else None


def load_tokenizer(card: ModelCard, source: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a checkpoint folder or hub id and check that it belongs to the card's family.

    Raises:
        InputError: it cannot be loaded, lacks a file, or is a tokenizer of another family.
    """
    if Path(source).is_dir() and not Path(source, "config.json").is_file():
        raise InputError(f"model.path {source} holds no config.json: it is no checkpoint folder")

    def read() -> Any:
        for file in Path(source).glob("*"):
            if file.suffix in TEXTS:
                file.read_bytes()  # parsers in C++ give no number of an error
        return AutoTokenizer.from_pretrained(str(source), revision=revision, trust_remote_code=False)

    try:
        tokenizer = read_twice(read)
    except Exception as error:  # transformers raises whatever its parsers raise
        _check_vocabulary(card, source)
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise unread(f"no tokenizer could be loaded from {source}: {first_line}", error) from error
    name = type(tokenizer).__name__
    allowed = family_of(card).tokenizers
    if name not in allowed:
        raise InputError(
            f"{source} holds a {name}; model {card.key} needs {' or '.join(allowed)}. "
            "Point model.path at a checkpoint of the same family, or choose the key that fits it."
        )
    _check_vocabulary(card, source)
    _check_direction(card, source, tokenizer)
    source_language, target_language = card.directions[0]
    point(card, tokenizer, source_language, target_language)
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def _check_vocabulary(card: ModelCard, source: str | Path) -> None:
    """Refuse a folder without the files of its tokenizer: transformers loads an empty one, or names no file."""
    folder, family = Path(source), family_of(card)
    missing = [names for names in family.vocabulary if not any((folder / name).is_file() for name in names)]
    if folder.is_dir() and missing:
        raise InputError(
            f"{source} holds no whole tokenizer: {', '.join(' or '.join(names) for names in missing)} is missing (what "
            f"a {family.tokenizers[0]} is read from); tokenizer.save_pretrained(folder) with transformers writes them"
        )


def _check_direction(card: ModelCard, source: str | Path, tokenizer: Any) -> None:
    """Refuse a one-way checkpoint of the other direction; only Marian's tokenizers name theirs."""
    if family_of(card).language_token is not None:
        return
    named = tuple((getattr(tokenizer, f"{side}_lang", None) or "")[:2].lower() for side in ("source", "target"))
    if all(named) and named not in card.directions:
        raise InputError(
            f"{source} translates {named[0]} to {named[1]}; model {card.key} is for "
            f"{' to '.join(card.directions[0])}. `mtft-launch models` lists the keys."
        )


def point(card: ModelCard, tokenizer: Any, source_language: str, target_language: str) -> None:
    """Set the tokenizer's current direction; both sides, because mBART-50 would reuse the source's.

    Stateful by the library's design: set it before every call and never share it between threads.
    """
    if family_of(card).language_token is not None:
        tokenizer.src_lang = card.language_codes[source_language]
        tokenizer.tgt_lang = card.language_codes[target_language]
