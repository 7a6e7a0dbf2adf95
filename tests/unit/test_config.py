"""The schema: bounds, strictness, and a description for every field."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mtft.config import Config, TrainConfig
from mtft.fields import fields, suggest

GIVEN: dict[str, Any] = {"model": "opus_mt_en_fr", "data": {"train": "rows.jsonl"}}


def test_every_field_is_described() -> None:
    assert len(fields()) > 70
    for field in fields().values():
        assert field.description.endswith("."), field.path
        assert "None" not in field.allowed, field.path


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("train", "epochs", True),
        ("train", "epochs", "1"),
        ("train", "epochs", 0),
        ("train", "learning_rate", float("nan")),
        ("train", "max_steps", 0),
        ("train", "max_steps", 1.5),
        ("train", "label_smoothing", 1),
        ("train", "gradient_checkpointing", "yes"),
        ("train", "precision", "int8"),
        ("data", "sha256", "abc"),
        ("data", "train", []),
        ("data", "dev_fraction", 0),
        ("lora", "r", 0),
        ("eval", "every", 0),
        ("checkpoint", "keep", 0),
        ("gate", "max_p", 0.0001),
        ("cluster", "nodes", 1025),
        ("cluster", "gpus_per_node", 65),
        ("cluster", "processes_per_node", 65),
        ("cluster", "namespace", "Not_A_Label"),
        ("cluster", "secrets", {"HF_TOKEN": {"name": "hub"}}),
        ("cluster", "tolerations", [{"operater": "Exists"}]),
    ],
)
def test_refused(part: str, name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(GIVEN | {part: {**GIVEN.get(part, {}), name: value}})


@pytest.mark.parametrize(("written", "read"), [(1e3, 1000), (5.0, 5), (7, 7), (None, None)])
def test_whole_numbers_may_be_written_as_floats(written: float | None, read: int | None) -> None:
    assert TrainConfig(max_steps=written).max_steps == read  # type: ignore[arg-type]


@pytest.mark.parametrize("sizes", [{"batch_size": 8, "tokens_per_batch": 4096}, {"batch_size": None}])
def test_exactly_one_batch_size(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"train\.batch_size"):
        TrainConfig(**sizes)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("learning_rate", "train.learning_rate"),
        ("train.epoch", "train.epochs"),
        ("trian", "train"),
        ("train.grad_accum", "train.gradient_accumulation"),
        ("metric", "eval.early_stopping.metric or gate.metric"),
    ],
)
def test_did_you_mean(written: str, meant: str) -> None:
    assert suggest(written) == f"did you mean {meant}?"


def test_no_suggestion_where_nothing_is_near() -> None:
    assert suggest("zzzzz") is None
