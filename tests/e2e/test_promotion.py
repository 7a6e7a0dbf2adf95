"""Two jobs of one model: each better than what was published, the last one rolled back, and that stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.corpus import Pair
from tests.e2e.conftest import QUICK, Launcher

MODEL = "opus_mt_en_fr"
# What a model learns by heart it translates better with every step.
BY_HEART = (
    *("data.dev=dev.jsonl", "data.test=test.jsonl", "eval.max_test_rows=24", "eval.beams=1"),
    *("train.label_smoothing=0", "train.learning_rate=8e-3", "method=full", "gate.max_p=1", "gate.min_sentences=1"),
    "gate.max_leaked=1",
    "storage.keep_runs=1",
)


def test_a_better_run_is_promoted_and_a_rollback_stands(
    launcher: Launcher, standins: Callable[[str], Path], parallel_text: list[Pair]
) -> None:
    short = sorted(parallel_text, key=lambda pair: len(pair.source_en) + len(pair.target_fr))[:24]
    rows = [{"source": pair.source_en, "target": pair.target_fr, "source_lang": "en"} for pair in short]
    for name in ("train", "dev", "test"):
        (launcher.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = launcher.folder / "train.jsonl"
    sets = [part for setting in QUICK + BY_HEART for part in ("--set", setting)]

    def train(steps: int, processes: int) -> str:
        given = ["--model", MODEL, "--backend", "local", "--model-path", str(standins("marian")), "--data", str(data)]
        done = launcher(*given, *sets, "--max-steps", str(steps), "--processes", str(processes), "--output", ".")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def history() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(launcher("history", MODEL, "--output", ".", "-o", "json").stdout)
        return told

    assert "against the published run" not in train(40, 1)
    assert "against the published run" in train(80, 2)
    first, second = (run.name for run in launcher.runs(MODEL))
    told = history()
    assert [(each["run"], each["previous"]) for each in told["promotions"]] == [(first, None), (second, first)]
    assert told["current"] == second and (launcher.folder / "outputs" / MODEL / "current").resolve().name == second
    finished = json.loads((launcher.runs(MODEL)[1] / "finished.json").read_text())
    assert (finished["gate"]["verdict"], finished["published"]["run_id"]) == ("promoted", first)
    assert launcher("rollback", MODEL, "--output", ".", "--reason", "drops accents").returncode == 0
    assert "finished already" in train(80, 2)
    assert history()["current"] == first and launcher("translate", "--model", MODEL, text="Cod.\n").returncode == 0
