"""The users' old names: mapped with a note, or refused where they contradict something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtft.errors import ConfigError
from mtft.legacy import OLD_NAMES
from mtft.paths import look_up
from mtft.settings import load_document, resolve

DATA: dict[str, Any] = {"data": {"train": "rows.jsonl"}}
GIVEN = DATA | {"model": "opus_mt_en_fr"}

SIMPLE = [
    ("grad_accum", 4, "train.gradient_accumulation", 4),
    ("gradient_accumulation", 4, "train.gradient_accumulation", 4),
    ("max_source_len", 64, "train.max_source_length", 64),
    ("max_target_len", 64, "train.max_target_length", 64),
    ("max_source_length", 64, "train.max_source_length", 64),
    ("max_target_length", 64, "train.max_target_length", 64),
    ("bf16", True, "train.precision", "bf16"),
    ("use_bfloat16", True, "train.precision", "bf16"),
    ("fp16", True, "train.precision", "fp16"),
    ("use_fp16", True, "train.precision", "fp16"),
    ("bf16", False, "train.precision", "fp32"),
    ("use_qlora", True, "method", "qlora"),
    ("use_qlora", False, "method", "lora"),
    ("no_qlora", True, "method", "lora"),
    ("no_qlora", False, "method", "qlora"),
    ("lora_r", 8, "lora.r", 8),
    ("lora_alpha", 16, "lora.alpha", 16),
    ("lora_dropout", 0.1, "lora.dropout", 0.1),
    ("device_map", "balanced", "train.device_map", "balanced"),
    ("output_directory", "/results", "storage.root", "/results"),
    ("model_name", "/models/mine", "model.path", "/models/mine"),
]


@pytest.mark.parametrize(("old", "value", "path", "read"), SIMPLE)
def test_an_old_name_is_mapped_with_a_note(old: str, value: object, path: str, read: object) -> None:
    resolved = resolve(GIVEN | {old: value})
    assert look_up(resolved.config.model_dump(), path) == read
    assert len(resolved.notes) == 1
    assert f"{old} is an old name, read as {path}" in resolved.notes[0]


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"which": "opus_mt_fr_en"}, "opus_mt_fr_en"),
        ({"model_name": "opus_mt_fr_en"}, "opus_mt_fr_en"),
        ({"model_name": "facebook/m2m100_418M"}, "m2m100_418m"),
        ({"model_name": "facebook/mbart-large-50-many-to-many-mmt", "which": "mbart50_mmt_en"}, "mbart50_mmt_en"),
    ],
)
def test_the_models_old_names(document: dict[str, Any], key: str) -> None:
    resolved = resolve({"data_path": "rows.jsonl"} | document)
    assert resolved.config.model.key == key
    assert resolved.config.data.train == "rows.jsonl"


def test_every_old_name_is_tried_here() -> None:
    assert {old for old, *_ in SIMPLE} | {"which", "data_path"} == set(OLD_NAMES)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"bf16": True, "fp16": True}, "fp16: contradicts bf16"),
        ({"bf16": True, "use_bfloat16": False}, "contradicts another switch"),
        ({"use_qlora": True, "no_qlora": True}, "no_qlora: contradicts use_qlora"),
        ({"use_qlora": True, "method": "full"}, "use_qlora: contradicts method"),
        ({"grad_accum": 2, "gradient_accumulation": 4}, "gradient_accumulation: contradicts grad_accum"),
        ({"lora_r": 8, "lora": {"r": 16}}, "lora_r: contradicts lora.r"),
        ({"which": "opus_mt_fr_en"}, "which: contradicts model.key"),
        ({"model_name": "facebook/m2m100_418M"}, "model_name: contradicts model.key"),
        ({"bf16": "yes"}, "bf16: is a switch"),
    ],
)
def test_contradictions_are_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(GIVEN | document)


def test_a_base_of_two_models_needs_the_key() -> None:
    with pytest.raises(ConfigError, match=r"base of several models.*mbart50_mmt_fr \| mbart50_mmt_en"):
        resolve(DATA | {"model_name": "facebook/mbart-large-50-many-to-many-mmt"})


def test_saying_the_same_twice_is_no_contradiction() -> None:
    assert resolve(GIVEN | {"lora_r": 8, "lora": {"r": 8}, "bf16": True, "fp16": False}).config.lora.r == 8


def test_the_origin_is_the_line_of_the_old_name(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("which: opus_mt_en_fr\ndata_path: rows.jsonl\nlora_r: 8\n", encoding="utf-8")
    resolved = resolve(load_document(path))
    assert resolved.origins["lora.r"] == f"{path}:3"
    assert resolved.origins["model.key"] == f"{path}:1"
    assert resolved.notes[-1].startswith(f"{path}:3: lora_r is an old name")


def test_a_bad_value_is_reported_at_the_line_of_the_old_name(tmp_path: Path) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("which: opus_mt_en_fr\ndata_path: rows.jsonl\nlora_r: 0\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{path}:3: lora.r: is too small; got 0"):
        resolve(load_document(path))


def test_old_names_inside_a_models_own_part() -> None:
    document = DATA | {"lora_r": 4, "models": {"opus_mt_en_fr": {"lora_r": 8}, "m2m100_418m": {}}}
    assert resolve(document, model="opus_mt_en_fr").config.lora.r == 8
    assert resolve(document, model="m2m100_418m").config.lora.r == 4
