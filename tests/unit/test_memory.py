"""The estimate of GPU memory: it grows with what it should, and says when a job cannot fit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from launcher import cli
from mtft.memory import Memory, refusal, training_memory
from mtft.models import GIB, MODELS
from mtft.settings import resolve

GIVEN: dict[str, Any] = {"model": "m2m100_418m", "data": {"train": "rows.jsonl"}}


def memory(*sets: str, model: str = "m2m100_418m") -> Memory:
    resolved = resolve(GIVEN, model=model, sets=sets)
    return training_memory(resolved.card, resolved.config)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "more",
    [
        ["lora.r=64"],
        ["train.micro_batch_tokens=8192"],
        ["method=full"],
        ["train.precision=fp32"],
        ["cluster.gpus_per_node=2"],
        ["train.max_source_length=4096"],
    ],
)
def test_more_needs_more(model: str, more: list[str]) -> None:
    assert memory(*more, model=model).total > memory(model=model).total


@pytest.mark.parametrize(
    "less", [["method=qlora"], ["train.gradient_checkpointing=true"], ["train.micro_batch_tokens=1024"]]
)
def test_what_saves_memory_saves_it(less: list[str]) -> None:
    assert memory(*less).total < memory().total


def test_items_known_without_a_model() -> None:
    card = MODELS["m2m100_418m"]
    full = memory("method=full")
    assert full.trained == pytest.approx(12 * card.parameters / GIB)
    assert memory("train.precision=fp32").weights == pytest.approx(4 * card.parameters / GIB)
    assert memory().trained == pytest.approx(16 * card.lora_parameters(32) / GIB)
    assert full.total == pytest.approx(sum(full.as_dict().values()))


class TestRefusal:
    def refused(self, *sets: str) -> str | None:
        resolved = resolve(GIVEN, sets=sets)
        return refusal(resolved.card, resolved.config)

    def test_says_what_is_needed_and_what_helps(self) -> None:
        text = self.refused("cluster.gpu_memory_gib=8", "method=full")
        assert text is not None
        assert "m2m100_418m with method full needs about 17" in text
        assert "cluster.gpu_memory_gib is 8" in text
        assert "train.gradient_checkpointing" in text

    @pytest.mark.parametrize(
        "sets", [["cluster.gpu_memory_gib=80"], [], ["cluster.gpu_memory_gib=1", "cluster.gpus_per_node=0"]]
    )
    def test_nothing_to_refuse(self, sets: list[str]) -> None:
        assert self.refused(*sets) is None


def test_validate_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["validate", "--model", "m2m100_418m", "--data", "rows.jsonl"]
    assert cli.main(given) == 0
    assert "memory: about 13" in capsys.readouterr().out.splitlines()[-1]
    assert cli.main([*given, "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)["memory_gib"]
    assert shown["total"] == pytest.approx(memory().total, abs=0.01)
    assert cli.main([*given, "--set", "cluster.gpu_memory_gib=8"]) == 0
    assert "but cluster.gpu_memory_gib is 8" in capsys.readouterr().out.splitlines()[-1]
