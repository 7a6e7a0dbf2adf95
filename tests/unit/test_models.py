"""The registry: what the cards say agrees with itself and with the published models."""

from __future__ import annotations

import pytest

from mtft import models
from mtft.errors import InputError
from mtft.models import MODELS, ModelCard, card
from mtft.reference import document_schema
from mtft.settings import resolve


@pytest.mark.parametrize(
    ("key", "family", "directions", "batch_size", "learning_rate"),
    [
        ("m2m100_418m", "m2m100", (("en", "fr"), ("fr", "en")), 12, 2e-4),
        ("mbart50_mmt_fr", "mbart50", (("en", "fr"),), 8, 1.5e-4),
        ("mbart50_mmt_en", "mbart50", (("fr", "en"),), 8, 1.5e-4),
        ("opus_mt_en_fr", "marian", (("en", "fr"),), 16, 3e-4),
        ("opus_mt_fr_en", "marian", (("fr", "en"),), 16, 3e-4),
    ],
)
def test_seed_recipes(
    key: str, family: str, directions: tuple[tuple[str, str], ...], batch_size: int, learning_rate: float
) -> None:
    found = card(key)
    assert (found.family, found.directions) == (family, directions)
    assert (found.batch_size, found.learning_rate) == (batch_size, learning_rate)
    assert found.revision is None


@pytest.mark.parametrize(
    ("key", "parameters", "lora_parameters"),
    [
        ("m2m100_418m", 484e6, 17.3e6),
        ("mbart50_mmt_fr", 611e6, 17.3e6),
        ("opus_mt_en_fr", 231e6, 8.65e6),
    ],
)
def test_sizes_computed_from_the_geometry_match_the_published_ones(
    key: str, parameters: float, lora_parameters: float
) -> None:
    found = card(key)
    assert found.parameters == pytest.approx(parameters, rel=0.005)
    assert found.lora_parameters(32) == pytest.approx(lora_parameters, rel=0.005)


def test_language_tokens_are_known_where_the_first_token_is_forced() -> None:
    for found in MODELS.values():
        languages = {language for pair in found.directions for language in pair}
        assert found.forces_bos == (found.family != "marian")
        assert set(found.language_codes) == (languages if found.forces_bos else set())


def test_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(InputError, match="did you mean opus_mt_en_fr"):
        card("opus-mt-en-fr")


def test_a_sixth_model_is_one_more_card(monkeypatch: pytest.MonkeyPatch) -> None:
    sixth = ModelCard(
        key="m2m100_1_2b",
        base="facebook/m2m100_1.2B",
        family="m2m100",
        directions=(models.EN_FR, models.FR_EN),
        language_codes=models.M2M100_CODES,
        forces_bos=True,
        batch_size=6,
        learning_rate=1e-4,
        vocabulary_size=128_112,
        d_model=1024,
        d_ff=8192,
        encoder_layers=24,
        decoder_layers=24,
    )
    monkeypatch.setitem(MODELS, sixth.key, sixth)

    resolved = resolve({"model": "m2m100_1_2b", "data": {"train": "rows.jsonl"}})

    assert resolved.card is sixth
    assert (resolved.config.train.batch_size, resolved.config.train.learning_rate) == (6, 1e-4)
    assert sixth.parameters == pytest.approx(1.24e9, rel=0.01)
    assert "m2m100_1_2b" in document_schema()["properties"]["models"]["propertyNames"]["enum"]
