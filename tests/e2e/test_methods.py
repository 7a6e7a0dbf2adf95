"""Full fine-tuning and QLoRA through the launcher, greedy search, early stopping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.e2e.conftest import TRAINED, Launcher


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
    assert done.returncode in TRAINED, done.stdout + done.stderr
    (run,) = launcher.runs(model)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    dev = [line["nll"] for line in lines if line.get("split") == "dev"]
    assert dev[-1] < dev[0]
    assert (run / deliverable / "generation_config.json").is_file()
    translated = launcher("translate", "--model", model, "--source-lang", "en", text="The cod stock has recovered.\n")
    assert translated.returncode == 0, translated.stderr
    assert translated.stdout.count("\n") == 1


def test_the_best_weights_are_published_not_the_last(
    launcher: Launcher, standins: Callable[[str], Path], training_file: Path
) -> None:
    """A rate far too high, after a few good steps of warm-up."""
    ruin = ("train.learning_rate=1.0", "train.scheduler=constant", "train.warmup_ratio=0.9", "train.max_grad_norm=0")
    stopping = ("eval.early_stopping={metric: nll, patience: 2, threshold: 0}", "eval.every=0.1", "checkpoint.keep=1")
    sets = [part for setting in (*ruin, *stopping) for part in ("--set", setting)]
    done = launcher(*launcher.local("opus_mt_en_fr", standins("marian"), training_file, "--max-steps", "30", *sets))
    assert done.returncode in TRAINED, done.stdout + done.stderr
    (run,) = launcher.runs("opus_mt_en_fr")
    state = json.loads((run / "trainer_state.json").read_text())
    assert state["stopped_early"] and 0 < state["best"]["step"] < state["step"]
    kept = load_file(run / "checkpoints" / f"step-{state['best']['step']}" / "weights.safetensors")
    published = load_file(run / "lora" / "adapter_model.safetensors")
    assert {name.replace(".default", "") for name in kept} == published.keys()
    assert all(torch.equal(weight, published[name.replace(".default", "")]) for name, weight in kept.items())
    last = load_file(run / "checkpoints" / f"step-{state['step']}" / "weights.safetensors")
    assert any(not torch.equal(weight, last[name]) for name, weight in kept.items())
