"""SentencePiece models trained on given lines."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import sentencepiece
from sentencepiece.sentencepiece_model_pb2 import ModelProto

# Always in the vocabulary, so that text unlike the training lines is not mostly unknown.
REQUIRED_CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    ".,;:!?'\"()[]/%+-=&*@#_°«»’–—àâæçéèêëîïôœùûüÿÀÂÇÉÈÊËÎÏÔŒÙÛÜ"
)
MAX_LINES = 10_000  # enough for some thousand pieces, in seconds


def train_pieces(lines: Sequence[str], count: int) -> bytes:
    """Train a unigram model of at most ``count`` pieces on up to ``MAX_LINES``; the same lines give the same bytes.

    Ids 0, 1, 2 are ``<unk>``, ``<s>``, ``</s>`` as in the published models.
    """
    if len(lines) > MAX_LINES:
        lines = random.Random(0).sample(lines, MAX_LINES)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=count,
        hard_vocab_limit=False,
        required_chars=REQUIRED_CHARACTERS,
        character_coverage=1.0,
        num_threads=1,  # more threads sum in another order and may choose other pieces
        minloglevel=2,
    )
    return model.getvalue()


def piece_names(model: bytes) -> list[str]:
    """Return the pieces of a model in id order."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [str(processor.id_to_piece(index)) for index in range(processor.get_piece_size())]


def filler_names(count: int) -> list[str]:
    """Return names of vocabulary entries that no text produces; they give a vocabulary its published size."""
    return [f"▁\ue000{index}" for index in range(count)]  # a private-use character


def with_fillers(model: bytes, size: int) -> bytes:
    """Enlarge a model to ``size`` pieces with fillers."""
    proto = ModelProto.FromString(model)
    for name in filler_names(size - len(proto.pieces)):
        proto.pieces.add(piece=name, score=-100.0, type=ModelProto.SentencePiece.UNUSED)
    return bytes(proto.SerializeToString())
