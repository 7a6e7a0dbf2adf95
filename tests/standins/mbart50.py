"""The files of facebook/mbart-large-50-many-to-many-mmt, apart from its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES

from mtft.files import write_json
from tests.standins.pieces import piece_names, train_pieces, with_fillers

CONFIG: dict[str, Any] = {
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "add_bias_logits": False,
    "add_final_layer_norm": True,
    "architectures": ["MBartForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "classifier_dropout": 0.0,
    "d_model": 1024,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 12,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "early_stopping": True,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 12,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "gradient_checkpointing": False,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_length": 200,
    "max_position_embeddings": 1024,
    "model_type": "mbart",
    "normalize_before": True,
    "normalize_embedding": True,
    "num_beams": 5,
    "num_hidden_layers": 12,
    "output_past": True,
    "pad_token_id": 1,
    "scale_embedding": True,
    "static_position_embeddings": False,
    "tokenizer_class": "MBart50Tokenizer",
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 250054,
}
GENERATION: dict[str, Any] = {
    "bos_token_id": 0,
    "decoder_start_token_id": 2,
    "early_stopping": True,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "max_length": 200,
    "num_beams": 5,
    "pad_token_id": 1,
}
MASK = {"content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False, "normalized": True}
SPECIAL_TOKENS: dict[str, Any] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
}
# The tokenizer adds to SentencePiece's pieces: <pad>, the language codes and <mask>.
ADDED = 1 + len(FAIRSEQ_LANGUAGE_CODES) + 1


def write_tokenizer(
    folder: Path, lines: Sequence[str], pieces: int, fill_to: int | None, languages: tuple[str, str]
) -> dict[str, Any]:
    """Write the tokenizer files; return the configuration that depends on the vocabulary.

    With ``fill_to`` unused entries bring the vocabulary to the published size and its special tokens to their ids.
    """
    model = train_pieces(lines, pieces)
    if fill_to:
        model = with_fillers(model, fill_to - ADDED)
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    write_json(
        folder / "special_tokens_map.json",
        {**SPECIAL_TOKENS, "mask_token": MASK, "additional_special_tokens": FAIRSEQ_LANGUAGE_CODES},
    )
    write_json(
        folder / "tokenizer_config.json",
        {
            "src_lang": None,
            "tgt_lang": None,
            **SPECIAL_TOKENS,
            "mask_token": {**MASK, "__type": "AddedToken"},
            "tokenizer_file": None,
            "language_codes": "ML50",
        },
    )
    return {"vocab_size": len(piece_names(model)) + ADDED}
