"""The files of Helsinki-NLP/opus-mt-tc-big-en-fr and -fr-en, apart from their weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtft.files import write_json
from tests.standins.pieces import filler_names, piece_names, train_pieces

CONFIG: dict[str, Any] = {
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "architectures": ["MarianMTModel"],
    "attention_dropout": 0.0,
    "bad_words_ids": [[53016]],
    "bos_token_id": 0,
    "classifier_dropout": 0.0,
    "d_model": 1024,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 6,
    "decoder_start_token_id": 53016,
    "decoder_vocab_size": 53017,
    "dropout": 0.1,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 6,
    "eos_token_id": 43311,
    "forced_eos_token_id": 43311,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_length": 512,
    "max_position_embeddings": 1024,
    "model_type": "marian",
    "normalize_embedding": False,
    "num_beams": 4,
    "num_hidden_layers": 6,
    "pad_token_id": 53016,
    "scale_embedding": True,
    "share_encoder_decoder_embeddings": True,
    "static_position_embeddings": True,
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 53017,
}
GENERATION: dict[str, Any] = {
    "bad_words_ids": [[53016]],
    "bos_token_id": 0,
    "decoder_start_token_id": 53016,
    "eos_token_id": 43311,
    "forced_eos_token_id": 43311,
    "max_length": 512,
    "num_beams": 4,
    "pad_token_id": 53016,
    "renormalize_logits": True,
}
SPECIAL_TOKENS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def write_tokenizer(
    folder: Path, lines: Sequence[str], pieces: int, fill_to: int | None, languages: tuple[str, str]
) -> dict[str, Any]:
    """Write the tokenizer files; return the configuration that depends on the vocabulary.

    With ``fill_to`` unused entries bring the vocabulary to the published size and its special tokens to their ids.
    Both models see all lines; the target's is smaller, so the two sides split the same word differently.
    """
    source = train_pieces(lines, pieces)
    target = train_pieces(lines, pieces * 4 // 5)
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    tokens = sorted({*piece_names(source), *piece_names(target)}, key=_dictionary_order)
    eos = tokens.index("</s>")
    if fill_to:
        fillers = filler_names(fill_to - 1 - len(tokens))
        before = CONFIG["eos_token_id"] - eos
        tokens = [*fillers[:before], *tokens, *fillers[before:]]
        eos = CONFIG["eos_token_id"]
    tokens.append("<pad>")
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    write_json(folder / "special_tokens_map.json", SPECIAL_TOKENS)
    write_json(
        folder / "tokenizer_config.json",
        {
            "source_lang": languages[0],
            "target_lang": languages[1],
            **SPECIAL_TOKENS,
            "model_max_length": 512,
            "sp_model_kwargs": {},
            "separate_vocabs": False,
            "special_tokens_map_file": None,
            "tokenizer_class": "MarianTokenizer",
        },
    )
    pad = len(tokens) - 1
    return {
        "bad_words_ids": [[pad]],
        "decoder_start_token_id": pad,
        "decoder_vocab_size": len(tokens),
        "eos_token_id": eos,
        "forced_eos_token_id": eos,
        "pad_token_id": pad,
        "vocab_size": len(tokens),
    }


def _dictionary_order(piece: str) -> tuple[str, str]:
    """Sort as the published vocabulary is: punctuation counts last, so ``</s>`` stands among the words in s."""
    return re.sub(r"\W", "", piece).casefold(), piece
