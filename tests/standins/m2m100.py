"""The files of facebook/m2m100_418M, apart from its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

from mtft.files import write_json
from tests.standins.pieces import filler_names, piece_names, train_pieces

CONFIG: dict[str, Any] = {
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "architectures": ["M2M100ForConditionalGeneration"],
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "d_model": 1024,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "decoder_layerdrop": 0.05,
    "decoder_layers": 12,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "early_stopping": True,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "encoder_layerdrop": 0.05,
    "encoder_layers": 12,
    "eos_token_id": 2,
    "gradient_checkpointing": False,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_length": 200,
    "max_position_embeddings": 1024,
    "model_type": "m2m_100",
    "num_beams": 5,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "scale_embedding": True,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 128112,
}
GENERATION: dict[str, Any] = {
    "bos_token_id": 0,
    "decoder_start_token_id": 2,
    "early_stopping": True,
    "eos_token_id": 2,
    "max_length": 200,
    "num_beams": 5,
    "pad_token_id": 1,
}
SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
}
LANGUAGE_TOKENS = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
# Rows of the embedding that no token owns: fairseq rounds the vocabulary up with made-up words.
MADEUP_WORDS = 8


def write_tokenizer(
    folder: Path, lines: Sequence[str], pieces: int, fill_to: int | None, languages: tuple[str, str]
) -> dict[str, Any]:
    """Write the tokenizer files; return the configuration that depends on the vocabulary.

    With ``fill_to`` unused entries bring the vocabulary to the published size and its special tokens to their ids.
    """
    model = train_pieces(lines, pieces)
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    # fairseq order: its own four first, then the pieces without SentencePiece's three.
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *piece_names(model)[3:]]
    if fill_to:
        tokens += filler_names(fill_to - MADEUP_WORDS - len(LANGUAGE_TOKENS) - len(tokens))
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    write_json(folder / "special_tokens_map.json", SPECIAL_TOKENS | {"additional_special_tokens": LANGUAGE_TOKENS})
    write_json(
        folder / "tokenizer_config.json",
        {"src_lang": None, "tgt_lang": None, **SPECIAL_TOKENS, "tokenizer_file": None, "model_max_length": 1024},
    )
    return {"vocab_size": len(tokens) + len(LANGUAGE_TOKENS) + MADEUP_WORDS}
