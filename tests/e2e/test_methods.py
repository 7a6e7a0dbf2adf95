"""Full fine-tuning and QLoRA through the launcher, greedy search, early stopping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Launcher


@pytest.mark.parametrize(
    ("model", "method", "deliverable"),
    [("m2m100_418m", "qlora", "lora"), ("mbart50_mmt_fr", "full", "model")],
)
def test_trains_scores_and_translates(
    launcher: Launcher,
    standins: Callable[[str], Path],
    training_file: Path,
    model: str,
    method: str,
    deliverable: str,
) -> None:
    settings = ("--method", method, "--max-steps", "6", "--set", "eval.beams=1", "--set", "train.learning_rate=0.01")
    stopping = ("--set", "eval.early_stopping={metric: nll, patience: 3}", "--set", "eval.every=0.1")
    done = launcher(*launcher.local(model, standins(model), training_file, *settings, *stopping))
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = launcher.runs(model)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    dev = [line["nll"] for line in lines if line.get("split") == "dev"]
    assert dev[-1] < dev[0]
    assert "the best dev score was at step" in done.stdout
    assert (run / deliverable / "generation_config.json").is_file()
    translated = launcher("translate", "--model", model, "--source-lang", "en", text="The cod stock has recovered.\n")
    assert translated.returncode == 0, translated.stderr
    assert translated.stdout.count("\n") == 1
