"""The registry of base models: data only, one entry per key.

A further model of a known family is one more entry in ``MODELS``; nothing else changes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mtft.errors import InputError

Family = Literal["m2m100", "mbart50", "marian"]
Direction = tuple[str, str]

EN_FR: Direction = ("en", "fr")
FR_EN: Direction = ("fr", "en")

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
M2M100_CODES = {"en": "en", "fr": "fr"}
MBART50_CODES = {"en": "en_XX", "fr": "fr_XX"}

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What is known of a base model before it is loaded.

    Attributes:
        key: the name users write.
        base: repository of the base checkpoint on the Hugging Face hub.
        family: which architecture and tokenizer rules apply.
        directions: (source, target) language pairs the model is trained for.
        language_codes: our language -> the tokenizer's code; empty where the model has no language tokens.
        forces_bos: generation must begin with the target language's token.
        batch_size: sentences per process and micro-step of the seed recipe.
        learning_rate: peak learning rate of the seed recipe.
        vocabulary_size: rows of the embedding matrix.
        d_model: width of the residual stream.
        d_ff: width of the feed-forward layers.
        encoder_layers: number of encoder layers.
        decoder_layers: number of decoder layers.
        learned_positions: rows of each learned position table; 0 where positions are computed.
        lora_targets: names of the linear layers LoRA wraps.
        revision: commit of the base on the hub; None until it has been pinned.
    """

    key: str
    base: str
    family: Family
    directions: tuple[Direction, ...]
    batch_size: int
    learning_rate: float
    vocabulary_size: int
    d_model: int
    d_ff: int
    encoder_layers: int
    decoder_layers: int
    learned_positions: int = 0
    language_codes: Mapping[str, str] = field(default_factory=dict)
    forces_bos: bool = False
    lora_targets: tuple[str, ...] = LORA_TARGETS
    revision: str | None = None

    @property
    def parameters(self) -> int:
        """Number of parameters, computed from the geometry with tied embeddings; layer norms and biases included."""
        d = self.d_model
        attention = 4 * d * (d + 1)
        feed_forward = 2 * d * self.d_ff + d + self.d_ff
        norm = 2 * d
        encoder_layer = attention + feed_forward + 2 * norm
        decoder_layer = 2 * attention + feed_forward + 3 * norm
        embeddings = (self.vocabulary_size + 2 * self.learned_positions) * d
        return embeddings + self.encoder_layers * encoder_layer + self.decoder_layers * decoder_layer

    def lora_parameters(self, rank: int) -> int:
        """Trainable parameters of LoRA at this rank on the default targets: rank x (inputs + outputs) per layer."""
        attention = 4 * rank * 2 * self.d_model
        feed_forward = 2 * rank * (self.d_model + self.d_ff)
        return self.encoder_layers * (attention + feed_forward) + self.decoder_layers * (2 * attention + feed_forward)


_CARDS = (
    ModelCard(
        key="m2m100_418m",
        base="facebook/m2m100_418M",
        family="m2m100",
        directions=(EN_FR, FR_EN),
        language_codes=M2M100_CODES,
        forces_bos=True,
        batch_size=12,
        learning_rate=2e-4,
        vocabulary_size=128_112,
        d_model=1024,
        d_ff=4096,
        encoder_layers=12,
        decoder_layers=12,
    ),
    ModelCard(
        key="mbart50_mmt_fr",
        base="facebook/mbart-large-50-many-to-many-mmt",
        family="mbart50",
        directions=(EN_FR,),
        language_codes=MBART50_CODES,
        forces_bos=True,
        batch_size=8,
        learning_rate=1.5e-4,
        vocabulary_size=250_054,
        d_model=1024,
        d_ff=4096,
        encoder_layers=12,
        decoder_layers=12,
        learned_positions=1026,
    ),
    ModelCard(
        key="mbart50_mmt_en",
        base="facebook/mbart-large-50-many-to-many-mmt",
        family="mbart50",
        directions=(FR_EN,),
        language_codes=MBART50_CODES,
        forces_bos=True,
        batch_size=8,
        learning_rate=1.5e-4,
        vocabulary_size=250_054,
        d_model=1024,
        d_ff=4096,
        encoder_layers=12,
        decoder_layers=12,
        learned_positions=1026,
    ),
    ModelCard(
        key="opus_mt_en_fr",
        base="Helsinki-NLP/opus-mt-tc-big-en-fr",
        family="marian",
        directions=(EN_FR,),
        batch_size=16,
        learning_rate=3e-4,
        vocabulary_size=53_017,
        d_model=1024,
        d_ff=4096,
        encoder_layers=6,
        decoder_layers=6,
    ),
    ModelCard(
        key="opus_mt_fr_en",
        base="Helsinki-NLP/opus-mt-tc-big-fr-en",
        family="marian",
        directions=(FR_EN,),
        batch_size=16,
        learning_rate=3e-4,
        vocabulary_size=53_017,
        d_model=1024,
        d_ff=4096,
        encoder_layers=6,
        decoder_layers=6,
    ),
)

MODELS: dict[str, ModelCard] = {card.key: card for card in _CARDS}


def card(key: str) -> ModelCard:
    """Return the card of a model key.

    Raises:
        InputError: no model has this key; the message names the nearest one.
    """
    if key not in MODELS:
        raise InputError(f"there is no model {key!r}; {suggest_key(key)}known models: {', '.join(MODELS)}")
    return MODELS[key]


def suggest_key(key: str) -> str:
    """Return "did you mean X? " for a key that is nearly right or only begun, else an empty text."""
    plain = key.lower().replace("-", "_")
    begun = [known for known in MODELS if plain and known.startswith(plain)]
    near = begun or difflib.get_close_matches(plain, MODELS, n=1)
    return f"did you mean {' or '.join(near)}? " if near else ""
