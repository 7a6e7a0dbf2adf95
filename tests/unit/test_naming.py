"""Canonical text, configuration hash and job names."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtft.models import MODELS
from mtft.naming import LONGEST_NAME, canonical, config_differences, config_hash, document_text, job_name

DOCUMENT: dict[str, Any] = {"model": "opus_mt_en_fr", "data": {"train": "rows.jsonl"}, "train": {"epochs": 2}}

finite = st.floats(allow_nan=False, allow_infinity=False)
documents = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    ),
)


class TestCanonical:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (5.0, "5"),
            (5, "5"),
            (1e-05, "0.00001"),
            (0.000001, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-4, "0.00015"),
            (1.25e-9, "1.25e-9"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (123.25, "123.25"),
            (-0.5, "-0.5"),
            (0, "0"),
            (True, "true"),
            (None, "null"),
            ("a<b>&é\u2028", '"a<b>&é\\u2028"'),
            ('"\\\n\x01', '"\\"\\\\\\n\\u0001"'),
            ([], "[]"),
            ({"b": 1, "a": {}}, '{"a":{},"b":1}'),
        ],
    )
    def test_the_rules(self, value: object, text: str) -> None:
        assert canonical({"x": value}) == f'{{"x":{text}}}'

    @settings(deadline=None)
    @given(documents)
    def test_it_is_json_of_the_same_values(self, document: dict[str, Any]) -> None:
        kept = {name: value for name, value in document.items() if name not in ("cluster", "storage", "chart")}
        assert json.loads(canonical(document), parse_int=float) == kept

    @settings(deadline=None)
    @given(documents)
    def test_the_order_of_keys_does_not_matter(self, document: dict[str, Any]) -> None:
        assert canonical(dict(reversed(document.items()))) == canonical(document)

    @settings(deadline=None)
    @given(st.integers(-(2**53), 2**53))
    def test_a_whole_number_reads_the_same_as_int_and_float(self, number: int) -> None:
        assert canonical({"x": number}) == canonical({"x": float(number)}).replace("-0}", "0}")

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, object()])
    def test_what_is_not_json_is_refused(self, value: object) -> None:
        with pytest.raises(ValueError, match="no place in JSON"):
            canonical({"x": value})


class TestConfigHash:
    @pytest.mark.parametrize(
        "change",
        [{"cluster": {"namespace": "team"}}, {"storage": {"root": "/elsewhere"}}, {"chart": {"schedule": "@daily"}}],
    )
    def test_placement_is_left_out(self, change: dict[str, Any]) -> None:
        assert config_hash(DOCUMENT | change, "opus_mt_en_fr") == config_hash(DOCUMENT, "opus_mt_en_fr")

    @pytest.mark.parametrize(
        "change",
        [
            {"data": {"train": "rows.jsonl", "sha256": "0" * 64}},
            {"train": {"epochs": 3}},
            {"model": {"key": "opus_mt_en_fr", "path": "/models/mine"}},
            {"method": "full"},
        ],
    )
    def test_everything_else_is_in(self, change: dict[str, Any]) -> None:
        assert config_hash(DOCUMENT | change, "opus_mt_en_fr") != config_hash(DOCUMENT, "opus_mt_en_fr")

    def test_model_and_nonce_are_in(self) -> None:
        hashes = {
            config_hash(DOCUMENT, "opus_mt_en_fr"),
            config_hash(DOCUMENT, "opus_mt_fr_en"),
            config_hash(DOCUMENT, "opus_mt_en_fr", nonce="1"),
        }
        assert len(hashes) == 3
        assert all(re.fullmatch("[0-9a-f]{10}", one) for one in hashes)

    def test_a_job_of_a_batch_has_the_hash_of_the_same_job_alone(self) -> None:
        shared = {"data": {"train": "rows.jsonl"}, "train": {"epochs": 1, "seed": 3}}
        batch = shared | {"models": {"opus_mt_en_fr": {"enabled": True, "train": {"epochs": 2}}, "m2m100_418m": None}}
        alone = {"model": "opus_mt_en_fr", "data": {"train": "rows.jsonl"}, "train": {"epochs": 2, "seed": 3}}
        assert config_hash(batch, "opus_mt_en_fr") == config_hash(alone, "opus_mt_en_fr")

    def test_other_models_of_the_batch_do_not_matter(self) -> None:
        one: dict[str, Any] = {"models": {"opus_mt_en_fr": {}, "m2m100_418m": {}}}
        other = {"models": {"opus_mt_en_fr": {}, "m2m100_418m": {"train": {"epochs": 9}}}}
        assert config_hash(one, "opus_mt_en_fr") == config_hash(other, "opus_mt_en_fr")

    def test_a_part_left_empty_says_nothing(self) -> None:
        batch: dict[str, Any] = {"data": {"train": "a"}, "train": {"epochs": 2}, "models": {"opus_mt_en_fr": {}}}
        empty = {**batch, "eval": None, "models": {"opus_mt_en_fr": {"train": None, "lora": None}, "m2m100_418m": None}}
        assert config_hash(empty, "opus_mt_en_fr") == config_hash(batch, "opus_mt_en_fr")
        kept = {"models": {"m2m100_418m": {}, "opus_mt_en_fr": {"lora": None, "train": None}}}
        assert json.loads(document_text(empty)) == {**batch, **kept}

    def test_hashing_changes_nothing(self) -> None:
        batch = {"train": {"epochs": 1}, "models": {"opus_mt_en_fr": {"train": {"epochs": 2}}}}
        config_hash(batch, "opus_mt_en_fr")
        assert batch == {"train": {"epochs": 1}, "models": {"opus_mt_en_fr": {"train": {"epochs": 2}}}}


class TestDifferences:
    def test_they_name_what_makes_another_hash_with_both_values(self) -> None:
        before = DOCUMENT | {"train": {"epochs": 2, "seed": 1, "max_steps": None}, "cluster": {"namespace": "a"}}
        batch = {
            **DOCUMENT,
            "model": None,
            "cluster": {"namespace": "b"},
            "train": {"epochs": 2.0, "seed": 1},
            "models": {"opus_mt_en_fr": {"train": {"seed": True}, "method": "full"}, "m2m100_418m": {"method": "lora"}},
        }
        assert config_differences(before, batch, "opus_mt_en_fr") == [
            'method was not given, is "full"',
            "train.max_steps was null, is not given",
            "train.seed was 1, is true",
        ]

    def test_of_many_and_long_ones_the_start_is_told(self) -> None:
        before = DOCUMENT | {"train": {f"n{number}": 0 for number in range(7)}}
        after = DOCUMENT | {"data": {"train": "x" * 100}}
        told = config_differences(before, after, "opus_mt_en_fr")
        assert told[0] == f'data.train was "rows.jsonl", is "{"x" * 70}…'
        assert (len(told), told[-1]) == (6, "and 4 more")


class TestJobName:
    @pytest.mark.parametrize(
        ("prefix", "model", "name"),
        [
            ("weekly", "opus_mt_en_fr", "weekly-opus-mt-en-fr-0123456789"),
            ("", "m2m100_418m", "m2m100-418m-0123456789"),
        ],
    )
    def test_plain_names(self, prefix: str, model: str, name: str) -> None:
        assert job_name(prefix, model, "0123456789") == name

    @settings(deadline=None)
    @given(st.text() | st.from_regex(r"[a-z][-a-z0-9]{20,60}", fullmatch=True), st.sampled_from(sorted(MODELS)))
    def test_always_a_label_of_at_most_50_characters(self, prefix: str, model: str) -> None:
        name = job_name(prefix, model, "0123456789")
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= LONGEST_NAME
        assert name.endswith(f"{model.replace('_', '-')}-0123456789")

    @settings(deadline=None)
    @given(st.sets(st.text(alphabet="aB-_9", min_size=1, max_size=60), min_size=2, max_size=5))
    def test_different_prefixes_give_different_names(self, prefixes: set[str]) -> None:
        assert len({job_name(prefix, "mbart50_mmt_fr", "0123456789") for prefix in prefixes}) == len(prefixes)
