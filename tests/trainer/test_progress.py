"""What is written down of a run, and what a restart keeps of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from trainer.batching import Budget
from trainer.loop import StepResult
from trainer.progress import Reporter
from trainer.report_files import read_lines
from trainer.state import State


@pytest.fixture
def reporter(tmp_path: Path) -> Reporter:
    return Reporter(tmp_path / "metrics.jsonl", tensorboard=None, every=2, device=torch.device("cpu"))


def run(reporter: Reporter, steps: range) -> None:
    state = State(total_steps=10, steps_per_epoch=5, budget=Budget(bins_per_step=1, bin_tokens=64), step=steps.start)
    for _ in steps:
        state.advance(rows=4)
        reporter.step(state, step_result())


def step_result(grad_norm: float = 1.0) -> StepResult:
    return StepResult(
        loss=2.0,
        nll=1.5,
        grad_norm=grad_norm,
        learning_rate=1e-3,
        rows=4,
        target_tokens=50,
        real_tokens=90,
        padded_tokens=100,
        seconds=0.5,
        stop=False,
        save=False,
    )


def read(reporter: Reporter) -> list[dict[str, object]]:
    return [json.loads(line) for line in reporter.metrics.read_text(encoding="utf-8").splitlines()]


def test_a_line_speaks_for_all_steps_since_the_last(reporter: Reporter, capsys: pytest.CaptureFixture[str]) -> None:
    run(reporter, range(4))
    lines = read(reporter)
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[0]["tokens_per_second"] == 100.0
    assert lines[0]["real_token_share"] == 0.9
    assert lines[0]["eta_s"] == 4.0
    assert [json.loads(line)["step"] for line in capsys.readouterr().out.splitlines()] == [2, 4]


def test_overflow_is_written_as_null(reporter: Reporter) -> None:
    state = State(total_steps=1, steps_per_epoch=1, budget=Budget(bins_per_step=1, bin_tokens=64), step=1)
    reporter.step(state, step_result(grad_norm=float("inf")))
    assert read(reporter)[0]["grad_norm"] is None


CUT = b'{"type": "train", "step": 4, '  # killed in the middle of a write


# Cut between two characters and inside one; a line that is no object.
@pytest.mark.parametrize("left", [CUT + b'"lo', CUT + '"text": "é'.encode()[:-1], b"[4]\n"])
def test_a_restart_drops_what_is_done_again(reporter: Reporter, left: bytes) -> None:
    run(reporter, range(8))
    with reporter.metrics.open("ab") as out:
        out.write(left)
    reporter.resume_at(4, evaluated=True)
    run(reporter, range(4, 8))
    assert [line["step"] for line in read(reporter)] == [2, 4, 6, 8]


def test_a_text_with_another_kind_of_line_end_is_one_line_to_the_end_of_a_run(reporter: Reporter) -> None:
    text = "row 7: a\u2028b\x85c"
    reporter.event(3, "skipped", text)
    assert [line["text"] for line in read_lines(reporter.metrics)] == [text]


def test_an_unreadable_character_does_not_cost_a_trained_model(reporter: Reporter) -> None:
    reporter.metrics.write_bytes(b'{"type": "skipped", "text": "\xc3"}\n')
    assert [line["type"] for line in read_lines(reporter.metrics)] == ["skipped"]


def test_a_fresh_start_keeps_only_the_score_of_the_base(reporter: Reporter) -> None:
    scores = {"directions": {}, "nll": 3.0}
    reporter.evaluation(0, "base_test", scores)
    reporter.evaluation(0, "dev", scores)
    run(reporter, range(2))
    reporter.resume_at(0, evaluated=False)
    assert [line["split"] for line in read(reporter)] == ["base_test"]


def test_tensorboard_holds_a_repeated_step_once(tmp_path: Path) -> None:
    first, again = (
        Reporter(tmp_path / "m.jsonl", tensorboard=tmp_path / "logs", every=1, device=torch.device("cpu"))
        for _ in range(2)
    )
    with first:
        run(first, range(4))
    with again:
        again.resume_at(2, evaluated=True)
        run(again, range(2, 4))
    events = EventAccumulator(str(tmp_path / "logs")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]


def test_other_ranks_stay_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet = Reporter(tmp_path / "m.jsonl", tensorboard=tmp_path, every=1, device=torch.device("cpu"), quiet=True)
    run(quiet, range(2))
    quiet.say("hello")
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())
