"""Translating: the right language, the order, the cache, and lengths that follow the source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from demo.corpus import Pair
from mtft import models
from tests.trainer.helpers import ALONE, KEYS, Practised, Setup, build, make_encoder, segments_of
from trainer.families import language_id
from trainer.generation import Decoding, Segment, generation_settings, new_token_limit, translate

Standins = Callable[[str], Path]
Practise = Callable[[str], Practised]


def decoding(beams: int = 2, batch_tokens: int = 1000) -> Decoding:
    return Decoding(beams=beams, batch_tokens=batch_tokens, dtype=torch.float32)


def practised_setup(practised: Practise, family: str) -> Setup:
    done = practised(family)
    return build(KEYS[family], done.folder, list(done.pairs))


def texts(setup: Setup, segments: list[Segment], how: Decoding) -> list[str]:
    return [found.text for found in translate(setup.model, setup.encoder, segments, how, ALONE)]


class TestTranslate:
    def test_gives_what_was_learned_in_order_and_in_the_right_language(self, family: str, practised: Practise) -> None:
        """Two-way M2M100 is asked for both directions at once."""
        setup = practised_setup(practised, family)
        segments, references = segments_of(setup.card, practised(family).pairs)
        assert len({segment.direction for segment in segments}) == len(setup.card.directions)
        found = translate(setup.model, setup.encoder, segments, decoding(), ALONE)
        same = [
            " ".join(hypothesis.text.split()) == " ".join(reference.split())
            for hypothesis, reference in zip(found, references, strict=True)
        ]
        assert sum(same) >= 10
        assert not any(hypothesis.truncated for hypothesis in found)

    def test_does_not_depend_on_who_shares_a_batch(self, family: str, practised: Practise) -> None:
        setup = practised_setup(practised, family)
        segments, _ = segments_of(setup.card, practised(family).pairs)
        together = texts(setup, segments, decoding())
        assert texts(setup, segments, decoding(batch_tokens=16)) == together
        assert texts(setup, segments[::-1], decoding()) == together[::-1]

    def test_begins_with_the_target_languages_token(
        self, family: str, practised: Practise, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        setup = practised_setup(practised, family)
        generate, outputs = setup.base.generate, []

        def spy(**arguments: Any) -> Any:
            outputs.append(generate(**arguments))
            return outputs[-1]

        monkeypatch.setattr(setup.base, "generate", spy)
        for direction in setup.card.directions:
            texts(setup, [Segment("Malpeque.", direction)], decoding())
            expected = language_id(setup.card, setup.encoder.tokenizer, direction[1])
            first = outputs[-1][0, 1].item()
            assert (first == expected) if expected is not None else (first != setup.base.config.pad_token_id)
        assert outputs

    def test_blank_sources_stay_blank(self, practised: Practise) -> None:
        setup = practised_setup(practised, "mbart50")
        segments, _ = segments_of(setup.card, practised("mbart50").pairs[:2])
        mixed = [Segment(" ", ("en", "fr")), segments[0], Segment("", ("en", "fr")), segments[1]]
        found = translate(setup.model, setup.encoder, mixed, decoding(), ALONE)
        assert [bool(hypothesis.text) for hypothesis in found] == [False, True, False, True]
        assert translate(setup.model, setup.encoder, [], decoding(), ALONE) == []

    def test_leaves_the_model_in_the_mode_it_found(self, practised: Practise) -> None:
        setup = practised_setup(practised, "marian")
        for training in (True, False):
            setup.model.train(training)
            first = texts(setup, [Segment("The cod.", ("en", "fr"))], decoding())
            assert setup.base.training == training
            assert texts(setup, [Segment("The cod.", ("en", "fr"))], decoding()) == first

    def test_reads_each_earlier_token_once(self, family: str, practised: Practise) -> None:
        """Training switches the cache off in the configuration; decoding must not become quadratic by that."""
        setup = practised_setup(practised, family)
        assert setup.base.config.use_cache is False
        lengths: list[int] = []

        def watch(_module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            lengths.append((named["input_ids"] if "input_ids" in named else arguments[0]).shape[1])

        decoder: Any = setup.base.get_decoder()
        decoder.register_forward_pre_hook(watch, with_kwargs=True)
        segments, _ = segments_of(setup.card, practised(family).pairs[:4])
        texts(setup, segments, decoding())
        assert len(lengths) > 8
        assert set(lengths) == {1}


class TestLength:
    def test_limit_follows_the_source_within_the_positions(self) -> None:
        assert [new_token_limit(length, 1024) for length in (1, 10, 400, 512, 900)] == [21, 35, 620, 788, 1022]

    @pytest.mark.parametrize("family", ["m2m100", "mbart50"])
    def test_no_cut_at_the_cards_max_length_and_a_cut_is_reported(
        self, family: str, standins: Standins, short_text: list[Pair]
    ) -> None:
        """Both cards say max_length 200; mBART's would also force an EOS there and hide the cut."""
        setup = build(KEYS[family], standins(family), short_text[:1])
        sentence = "The captain counted the cod in the bay. " * 9
        (ids,), _ = setup.encoder.encode_sources([sentence], "en", "fr")
        limit = new_token_limit(len(ids), 1024)
        assert limit > 200
        setup.base.generation_config.suppress_tokens = [setup.base.config.eos_token_id]  # this model never ends
        generate, outputs = setup.base.generate, []
        setup.base.generate = lambda **arguments: outputs.append(generate(**arguments)) or outputs[-1]  # type: ignore
        (found,) = translate(setup.model, setup.encoder, [Segment(sentence, ("en", "fr"))], decoding(1), ALONE)
        assert found.truncated
        assert outputs[0].shape[1] == 1 + limit


class TestSettings:
    @pytest.mark.parametrize("key", models.MODELS)
    def test_first_token_is_forced_where_the_direction_is_known(self, key: str, standins: Standins) -> None:
        card = models.card(key)
        encoder = make_encoder(card, standins(key))

        class Model:
            generation_config = GenerationConfig.from_pretrained(standins(key))

        for direction in card.directions:
            settings = generation_settings(Model, card, encoder.tokenizer, direction, 5)
            assert settings.forced_bos_token_id == language_id(card, encoder.tokenizer, direction[1])
            assert (settings.num_beams, settings.do_sample) == (5, False)
        assert generation_settings(Model, card, encoder.tokenizer, None, 1).forced_bos_token_id is None
        assert Model.generation_config.forced_bos_token_id is None  # the checkpoint's own are left alone
