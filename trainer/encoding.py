"""Sentences to token ids and back, per direction."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mtft.config import Config
from mtft.errors import InputError
from mtft.models import ModelCard
from mtft.provenance import files_hash
from trainer.families import language_id, load_tokenizer, point

_SETTINGS = {"tokenizer_config.json", "special_tokens_map.json"}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of some sentence pairs.

    Attributes:
        source_ids: encoder input per pair, language token and EOS included.
        target_ids: labels per pair, language token and EOS included, unpadded.
        truncated: pairs of which a side was cut to the length limit.
        unknown: source pieces that became the unknown token.
        pieces: source pieces in all, special tokens not counted.
    """

    source_ids: list[list[int]]
    target_ids: list[list[int]]
    truncated: int
    unknown: int
    pieces: int


class Encoder:
    """Encodes sentence pairs for one model; a cut row still ends with EOS.

    Args:
        card: the model's card.
        tokenizer: its tokenizer; the encoder sets its direction before every call.
        max_source_length: most tokens of a source, special tokens included.
        max_target_length: most tokens of a label row, special tokens included.
    """

    def __init__(
        self, card: ModelCard, tokenizer: PreTrainedTokenizerBase, *, max_source_length: int, max_target_length: int
    ) -> None:
        self.card = card
        self.tokenizer: Any = tokenizer
        self.max_source_length = max_source_length
        self.max_target_length = max_target_length
        self._eos: int = self.tokenizer.eos_token_id
        special = set(self.tokenizer.all_special_tokens) - {self.tokenizer.unk_token}
        self._special = frozenset(self.tokenizer.convert_tokens_to_ids(sorted(special)))
        self._special_tokens = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))

    @classmethod
    def load(cls, card: ModelCard, config: Config) -> Encoder:
        """Load the tokenizer of a run's base and encode to the run's lengths.

        Raises:
            InputError: the tokenizer cannot be loaded or is of another family.
        """
        tokenizer = load_tokenizer(card, config.model.path or card.base, config.model.revision)
        lengths = config.train.max_source_length, config.train.max_target_length
        return cls(card, tokenizer, max_source_length=lengths[0], max_target_length=lengths[1])

    @property
    def fingerprint(self) -> str:
        """A hash that changes whenever the same text could give other ids."""
        probe = "Été 2024 : 12,5 % of cod (n = 1 200) – l’estuaire, the Gulf's </s> fr_XX.\n"
        ids = [self.encode([probe], [probe], *direction) for direction in self.card.directions]
        point(self.card, self.tokenizer, *self.card.directions[0])
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            # The settings name the folder it came from; what they do to text shows in the ids.
            saved = [path for path in Path(folder).iterdir() if path.name not in _SETTINGS]
            content = files_hash((path.name, path) for path in saved)
        text = repr((type(self.tokenizer).__name__, content, ids, self.max_source_length, self.max_target_length))
        return hashlib.sha256(text.encode()).hexdigest()

    def encode(self, sources: list[str], targets: list[str], source_lang: str, target_lang: str) -> Encoded:
        """Encode pairs of one direction.

        Raises:
            InputError: a label row does not open with the target's language token or close with EOS.
        """
        source_ids, source_cut = self.encode_sources(sources, source_lang, target_lang)
        target_ids, target_cut = self._cut(self._ids(targets, "text_target"), self.max_target_length)
        self._check_labels(target_ids, target_lang)
        unknown_id = self.tokenizer.unk_token_id
        special = 1 if language_id(self.card, self.tokenizer, source_lang) is None else 2
        return Encoded(
            source_ids=source_ids,
            target_ids=target_ids,
            truncated=len(source_cut | target_cut),
            unknown=sum(ids.count(unknown_id) for ids in source_ids),
            pieces=sum(len(ids) - special for ids in source_ids),
        )

    def encode_sources(
        self, sources: list[str], source_lang: str, target_lang: str
    ) -> tuple[list[list[int]], set[int]]:
        """Encode sources of one direction; also return the positions that had to be cut."""
        point(self.card, self.tokenizer, source_lang, target_lang)
        return self._cut(self._ids(sources, "text"), self.max_source_length)

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Turn generated target ids into text without special tokens."""
        # Marian decodes with the source side's SentencePiece model unless told otherwise.
        extra = {"use_source_tokenizer": False} if self.card.family == "marian" else {}
        texts: list[str] = self.tokenizer.batch_decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False, **extra
        )
        return texts

    def _ids(self, texts: list[str], side: str) -> list[list[int]]:
        """Encode texts whole; what looks like a special token in them, such as ``</s>`` of HTML, stays text."""
        # Marian's tokenizer takes a language code off the front; behind a space, which its pieces ignore, it does not.
        given = [f" {text}" if text.startswith(">>") else text for text in texts]
        options = {"truncation": False, "verbose": False, "split_special_tokens": True}
        rows: list[list[int]] = self.tokenizer(**{side: given}, **options)["input_ids"]
        return [
            self._spelt(text, ids, side) if self._special.intersection(ids[1:-1]) else ids
            for text, ids in zip(given, rows, strict=True)
        ]

    def _spelt(self, text: str, ids: list[int], side: str) -> list[int]:
        """Encode a text in parts that end inside special tokens, which the fast tokenizer's model has as pieces."""
        parts = re.sub(self._special_tokens, lambda found: f"{found[0][0]}\0{found[0][1:]}", text).split("\0")
        options = {"truncation": False, "verbose": False, "add_special_tokens": False}
        pieces: list[list[int]] = self.tokenizer(**{side: parts}, **options)["input_ids"]
        return [ids[0], *(piece for part in pieces for piece in part), ids[-1]]

    def _cut(self, rows: list[list[int]], limit: int) -> tuple[list[list[int]], set[int]]:
        cut = {index for index, ids in enumerate(rows) if len(ids) > limit}
        return [[*ids[: limit - 1], self._eos] if index in cut else ids for index, ids in enumerate(rows)], cut

    def _check_labels(self, rows: list[list[int]], target_lang: str) -> None:
        expected = language_id(self.card, self.tokenizer, target_lang)
        for ids in rows:
            if ids[-1] != self._eos or (expected is not None and ids[0] != expected):
                raise InputError(
                    f"the tokenizer of {self.card.key} makes label rows that do not read "
                    f"[{target_lang}] X </s>: {ids[:3]} ... {ids[-3:]}"
                )
