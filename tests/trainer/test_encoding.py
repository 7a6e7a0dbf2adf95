"""Sentences to ids: language tokens per row, EOS on every row, and the way back."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from transformers import AutoTokenizer

from demo.corpus import Pair
from mtft import models
from mtft.errors import InputError, Retry
from tests.trainer.helpers import FAMILIES, KEYS, build, make_encoder, segments_of
from trainer.collate import Batch, collate
from trainer.families import language_id, load_tokenizer
from trainer.generation import new_token_limit
from trainer.loop import forward
from trainer.loss import IGNORED

Standins = Callable[[str], Path]
TWO_WAY = "m2m100_418m"


def sides(pairs: list[Pair], direction: tuple[str, str]) -> tuple[list[str], list[str]]:
    texts = {"en": [pair.source_en for pair in pairs], "fr": [pair.target_fr for pair in pairs]}
    return texts[direction[0]], texts[direction[1]]


class TestLabels:
    @pytest.mark.parametrize("key", models.MODELS)
    def test_open_with_the_target_language_and_close_with_eos(
        self, key: str, standins: Standins, short_text: list[Pair]
    ) -> None:
        card = models.card(key)
        encoder = make_encoder(card, standins(key))
        for direction in card.directions:
            encoded = encoder.encode(*sides(short_text, direction), *direction)
            source_token, target_token = (language_id(card, encoder.tokenizer, language) for language in direction)
            assert (target_token is None) == (card.family == "marian")
            assert {ids[0] for ids in encoded.target_ids} == {target_token} or target_token is None
            assert {ids[0] for ids in encoded.source_ids} == {source_token} or source_token is None
            assert {ids[-1] for ids in encoded.source_ids + encoded.target_ids} == {encoder.tokenizer.eos_token_id}
            assert (encoded.truncated, encoded.unknown) == (0, 0)

    def test_decoder_input_is_the_labels_behind_the_start_token(
        self, family: str, standins: Standins, short_text: list[Pair]
    ) -> None:
        """``</s> [lang] X`` for M2M100 and mBART-50, ``<pad> X`` for Marian; EOS is supervised in every row."""
        setup = build(KEYS[family], standins(family), short_text)
        tokenizer = setup.encoder.tokenizer
        batch = setup.rows.batch(np.arange(len(setup.rows)))
        starts = set(tokenizer.convert_ids_to_tokens(batch.decoder_input_ids[:, 0].tolist()))
        assert starts == {"<pad>" if family == "marian" else "</s>"}
        for labels, inputs in zip(batch.labels, batch.decoder_input_ids, strict=True):
            real = labels[labels != IGNORED]
            assert real[-1] == tokenizer.eos_token_id
            assert torch.equal(inputs[1 : len(real)], real[:-1])
            assert (inputs[len(real) + 1 :] == tokenizer.pad_token_id).all()

    def test_a_cut_row_still_ends_with_eos_and_is_counted(self, family: str, standins: Standins) -> None:
        card = models.card(KEYS[family])
        encoder = make_encoder(card, standins(family), length=12)
        long = "The captain counted the cod. " * 9
        encoded = encoder.encode([long, "Cod."], ["Une morue.", long], "en", "fr")
        assert encoded.truncated == 2
        for ids in (encoded.source_ids[0], encoded.target_ids[1]):
            assert len(ids) == 12
            assert ids[-1] == encoder.tokenizer.eos_token_id
        whole = make_encoder(card, standins(family)).encode([long], [long], "en", "fr")
        assert encoded.target_ids[1][:11] == whole.target_ids[0][:11]

    def test_directions_may_change_from_row_to_row(self, standins: Standins, short_text: list[Pair]) -> None:
        """The tokenizer keeps its direction as state; rows in turn must come out as rows in bulk."""
        card = models.card(TWO_WAY)
        mixed = make_encoder(card, standins(TWO_WAY))
        bulk = {
            direction: make_encoder(card, standins(TWO_WAY)).encode(*sides(short_text, direction), *direction)
            for direction in card.directions
        }
        for index, pair in enumerate(short_text):
            for direction in card.directions:
                (source,), (target,) = sides([pair], direction)
                one = mixed.encode([source], [target], *direction)
                assert one.source_ids[0] == bulk[direction].source_ids[index]
                assert one.target_ids[0] == bulk[direction].target_ids[index]

    @pytest.mark.parametrize("key", ["m2m100_418m", "mbart50_mmt_en"])
    def test_a_label_in_the_wrong_language_is_refused(
        self, key: str, standins: Standins, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What would happen if the direction were not set: mBART-50 labels the target with the source's token."""
        encoder = make_encoder(models.card(key), standins(key))
        encoder.tokenizer.src_lang, encoder.tokenizer.tgt_lang = (
            models.card(key).language_codes["fr"],
            None if key == "mbart50_mmt_en" else "fr",
        )
        monkeypatch.setattr("trainer.encoding.point", lambda *_: None)
        with pytest.raises(InputError, match=r"label rows that do not read \[en\] X </s>"):
            encoder.encode(["Deux morues."], ["Two cod."], "fr", "en")


class TestPadding:
    def test_does_not_change_the_logits(self, family: str, standins: Standins, short_text: list[Pair]) -> None:
        """M2M100 counts positions over real tokens, Marian over all: padding stands on the right for both."""
        setup = build(KEYS[family], standins(family), short_text)
        setup.model.eval()
        together = setup.rows.batch(np.arange(8))
        assert (together.attention_mask == 0).any()
        with torch.no_grad():
            padded = forward(setup.model, together)
            for row in range(8):
                alone = forward(setup.model, setup.rows.batch(np.array([row])))[0]
                torch.testing.assert_close(padded[row, : len(alone)], alone, rtol=1e-4, atol=1e-5)

    def test_mask_and_ids_agree(self) -> None:
        batch: Batch = collate([[5, 1, 2], [5, 2]], [[7, 2], [7, 2]], pad_id=1, start_id=2)
        assert batch.input_ids.tolist() == [[5, 1, 2], [5, 2, 1]]
        assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]


class TestDecoding:
    def test_is_the_inverse_on_ragged_rows(self, family: str, standins: Standins, short_text: list[Pair]) -> None:
        card = models.card(KEYS[family])
        encoder = make_encoder(card, standins(family))
        pad = encoder.tokenizer.pad_token_id
        segments, references = segments_of(card, short_text)
        for direction in card.directions:
            chosen = [index for index, segment in enumerate(segments) if segment.direction == direction]
            targets = [references[index] for index in chosen]
            ids = encoder.encode([segments[index].source for index in chosen], targets, *direction).target_ids
            longest = max(map(len, ids))
            decoded = encoder.decode([row + [pad] * (longest - len(row)) for row in ids])
            # SentencePiece's NFKC makes a plain space of the narrow no-break one.
            assert [" ".join(text.split()) for text in decoded] == [" ".join(text.split()) for text in targets]

    def test_a_reference_of_400_tokens_comes_back_whole(
        self, family: str, standins: Standins, short_text: list[Pair]
    ) -> None:
        card = models.card(KEYS[family])
        encoder = make_encoder(card, standins(family))
        count = 400 // len(encoder.encode(*sides(short_text[:1], ("en", "fr")), "en", "fr").target_ids[0])
        source, target = (" ".join(side) for side in sides((short_text * 2)[: count + 4], ("en", "fr")))
        encoded = encoder.encode([source], [target], "en", "fr")
        assert encoded.truncated == 0
        assert 350 < len(encoded.target_ids[0]) <= 512
        assert new_token_limit(len(encoded.source_ids[0]), 1024) > len(encoded.target_ids[0])
        assert " ".join(encoder.decode(encoded.target_ids)[0].split()) == " ".join(target.split())


class TestTokenizer:
    def test_saved_and_reloaded_gives_identical_ids(
        self, family: str, standins: Standins, parallel_text: list[Pair], tmp_path: Path
    ) -> None:
        card = models.card(KEYS[family])
        encoder = make_encoder(card, standins(family))
        encoder.tokenizer.save_pretrained(tmp_path)
        shutil.copy(standins(family) / "config.json", tmp_path)
        again = make_encoder(card, tmp_path)
        texts = sides(parallel_text[:200], card.directions[0])
        assert again.encode(*texts, *card.directions[0]) == encoder.encode(*texts, *card.directions[0])
        assert again.fingerprint == encoder.fingerprint

    def test_fingerprint_tells_tokenizers_and_lengths_apart(self, standins: Standins) -> None:
        prints = {make_encoder(models.card(KEYS[f]), standins(f)).fingerprint for f in FAMILIES}
        prints.add(make_encoder(models.card(KEYS["marian"]), standins("marian"), length=100).fingerprint)
        assert len(prints) == 4

    def test_fingerprint_sees_a_piece_model_that_changed_behind_the_same_vocabulary(
        self, standins: Standins, tmp_path: Path
    ) -> None:
        folder = tmp_path / "changed"
        shutil.copytree(standins("marian"), folder)
        model = ModelProto()
        model.ParseFromString((folder / "source.spm").read_bytes())
        rarest = next(piece for piece in reversed(model.pieces) if len(piece.piece) > 2)
        rarest.score -= 5
        (folder / "source.spm").write_bytes(model.SerializeToString())
        card = models.card(KEYS["marian"])
        assert make_encoder(card, folder).fingerprint != make_encoder(card, standins("marian")).fingerprint

    def test_unknown_pieces_are_counted(self, family: str, standins: Standins) -> None:
        encoder = make_encoder(models.card(KEYS[family]), standins(family))
        encoded = encoder.encode(["日 本 cod"], ["Une morue."], "en", "fr")
        assert 2 <= encoded.unknown < encoded.pieces

    @pytest.mark.parametrize("other", FAMILIES)
    def test_of_another_family_is_refused(self, family: str, other: str, standins: Standins) -> None:
        if other == family:
            assert load_tokenizer(models.card(KEYS[family]), standins(other))
        else:
            with pytest.raises(InputError, match=f"model {KEYS[family]} needs"):
                load_tokenizer(models.card(KEYS[family]), standins(other))

    def test_missing_is_one_clear_error(self, standins: Standins, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"holds no config\.json: it is no checkpoint folder"):
            load_tokenizer(models.card("opus_mt_en_fr"), tmp_path)
        shutil.copytree(standins("marian"), tmp_path, dirs_exist_ok=True)
        (tmp_path / "vocab.json").write_text("[")
        with pytest.raises(InputError, match="no tokenizer could be loaded from"):
            load_tokenizer(models.card("opus_mt_en_fr"), tmp_path)

    def test_a_volume_that_fails_for_a_moment_is_read_once_more(
        self, standins: Standins, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Errors of parsers in C++ have no number, and a folder that fails is taken for a repository's name."""
        folder, failures = str(standins("marian")), ["basic_filebuf::underflow error reading the file"]

        def failing(source: str, load: Callable[..., Any] = AutoTokenizer.from_pretrained, **options: Any) -> Any:
            if failures:
                raise RuntimeError(failures.pop())
            return load(source, **options)

        monkeypatch.setattr(AutoTokenizer, "from_pretrained", failing)
        assert load_tokenizer(models.card("opus_mt_en_fr"), folder) and not failures
        failures += ["source.spm: Stale file handle"] * 2
        with pytest.raises(Retry, match="Stale file handle"):
            load_tokenizer(models.card("opus_mt_en_fr"), folder)

    @pytest.mark.parametrize(
        ("family", "missing"),
        [
            ("m2m100", "vocab.json, sentencepiece.bpe.model"),
            ("mbart50", "sentencepiece.bpe.model or tokenizer.json"),
            ("marian", "source.spm, target.spm, vocab.json"),
        ],
    )
    def test_missing_files_are_named(self, family: str, missing: str, standins: Standins, tmp_path: Path) -> None:
        for name in ("config.json", "tokenizer_config.json"):
            shutil.copy(standins(family) / name, tmp_path)
        with pytest.raises(InputError, match=f"no whole tokenizer: {re.escape(missing)} is missing"):
            load_tokenizer(models.card(KEYS[family]), tmp_path)

    def test_without_the_language_token_is_refused(self, standins: Standins, monkeypatch: pytest.MonkeyPatch) -> None:
        card = models.card(TWO_WAY)
        tokenizer = load_tokenizer(card, standins(TWO_WAY))
        monkeypatch.setitem(card.language_codes, "fr", "xx")
        with pytest.raises(InputError, match="no token '__xx__' for language 'fr'"):
            language_id(card, tokenizer, "fr")


SPECIAL = "see <s>old</s> new <pad> x fr_XX __fr__ <mask> y"


@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_looks_like_a_special_token_stays_text(family: str, standins: Standins) -> None:
    encoder = make_encoder(models.card(KEYS[family]), standins(family))
    tokenizer = encoder.tokenizer
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for direction in encoder.card.directions:
        encoded = encoder.encode([SPECIAL], [SPECIAL], *direction)
        for (ids,) in (encoded.source_ids, encoded.target_ids):
            assert not special.intersection(ids[1:-1])
            assert ids[-1] == tokenizer.eos_token_id
        (text,) = encoder.decode(encoded.target_ids)
        # The stand-ins have no piece for angle brackets.
        letters = [word.replace(" ", "") for word in (text, re.sub("[<>]", "", SPECIAL))]
        assert letters[0] == letters[1]


def test_a_marian_source_keeps_what_looks_like_a_language_code(standins: Standins) -> None:
    encoder = make_encoder(models.card(KEYS["marian"]), standins("marian"))
    (direction,) = encoder.card.directions
    (ids,), _ = encoder.encode_sources([">>fra<< The cod"], *direction)
    assert "fra" in "".join(encoder.tokenizer.convert_ids_to_tokens(ids))
