"""Signals that ask a rank to stop, wherever they come, and when a run saves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from demo.corpus import Pair
from mtft.errors import Retry
from tests.trainer.helpers import KEYS, Setup, build
from tests.trainer.trainings import STEPS, kinds, lines, stopped_after, training
from trainer.saving import SaveTimer, StopTime
from trainer.training import Training


@pytest.fixture
def fresh(standins: Callable[[str], Path], short_text: list[Pair]) -> Callable[[], Setup]:
    return lambda: build(KEYS["mbart50"], standins("mbart50"), short_text)


def stopping(what: Callable[..., Any], call: int, number: int) -> Callable[..., Any]:
    """Return a function that is asked to stop when it is called for the nth time, before its work."""
    calls = [0]

    def asked(*given: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            signal.raise_signal(number)
        return what(*given, **options)

    return asked


def logged(folder: Path) -> list[tuple[Any, ...]]:
    return [(each["type"], each["step"], each.get("loss"), each.get("nll")) for each in lines(folder) if "nll" in each]


def newest(run: Training) -> str:
    latest = run.checkpoints.latest()
    assert latest
    return latest.name


class TestStops:
    """Where every step is scored and saved, the second score is that of step 1, after that of the untouched base."""

    def continued(self, fresh: Callable[[], Setup], folder: Path, every_step: bool = True) -> None:
        for name in ("unbroken", "stopped"):
            training(fresh(), folder / name, every_step=every_step).run()
        assert logged(folder / "stopped") == logged(folder / "unbroken")

    def test_between_steps_finishes_and_saves_the_step(self, fresh: Callable[[], Setup], tmp_path: Path) -> None:
        """The step that is under way when the signal comes is the last one."""
        run = training(fresh(), tmp_path / "stopped")
        run.loop.step = stopping(run.loop.step, 3, signal.SIGTERM)  # type: ignore[method-assign]
        with pytest.raises(Retry, match="saved step 3 of 6"):
            run.run()
        assert newest(run) == "step-3"
        self.continued(fresh, tmp_path, every_step=False)

    def test_while_a_step_waits_for_slower_ranks_is_heard_in_that_step(
        self, fresh: Callable[[], Setup], tmp_path: Path
    ) -> None:
        """When a rank updates its weights, all have met."""
        run = training(fresh(), tmp_path / "stopped")
        run.loop._update = stopping(run.loop._update, 3, signal.SIGTERM)  # type: ignore[method-assign]
        with pytest.raises(Retry, match="saved step 3 of 6"):
            run.run()
        self.continued(fresh, tmp_path, every_step=False)

    def test_during_an_evaluation_ends_it(self, fresh: Callable[[], Setup], tmp_path: Path) -> None:
        """Of the three signals SIGINT is the one that does not end this process where nothing heeds it."""
        run = training(fresh(), tmp_path / "stopped", every_step=True)
        run.dev_scores = stopping(run.dev_scores, 4, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            run.run()
        assert newest(run) == "step-3" and kinds(tmp_path / "stopped")[-1] == "checkpoint"
        self.continued(fresh, tmp_path)

    def test_during_a_save_leaves_before_the_evaluation(self, fresh: Callable[[], Setup], tmp_path: Path) -> None:
        run = training(fresh(), tmp_path / "stopped", every_step=True)
        run.timer.time = stopping(run.timer.time, 3, signal.SIGUSR1)  # type: ignore[method-assign]
        with pytest.raises(Retry, match="saved step 2 of 6"):
            run.run()
        assert newest(run) == "step-2"
        self.continued(fresh, tmp_path)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    def test_handlers_are_put_back(self, fresh: Callable[[], Setup], tmp_path: Path, number: int) -> None:
        before = signal.getsignal(number)
        training(fresh(), tmp_path).run()
        assert signal.getsignal(number) is before


def test_a_damaged_checkpoint_is_named_when_it_is_passed_over(
    fresh: Callable[[], Setup], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training(fresh(), tmp_path)
    stopped_after(run, 5)
    (run.checkpoints.folder / "step-4" / "optimizer.safetensors").write_bytes(b"")
    training(fresh(), tmp_path).run()
    assert "passed over, as damaged: step-4 in" in capsys.readouterr().out


def test_an_evaluation_costs_one_save(fresh: Callable[[], Setup], tmp_path: Path) -> None:
    training(fresh(), tmp_path, every_step=True).run()
    saved = [each["step"] for each in lines(tmp_path) if each["type"] == "checkpoint"]
    assert saved == list(range(STEPS + 1))


class TestSaveTimer:
    def test_is_due_by_the_clock_and_never_takes_more_than_its_share(self) -> None:
        now = [0.0]

        def save() -> None:
            now[0] += 20.0

        timer = SaveTimer(10, clock=lambda: now[0])
        now[0] = 599
        assert not timer.due()
        now[0] = 600
        assert timer.due()
        assert timer.time(save) == 20.0
        now[0] += 979  # 20 s are 2 % of 1,000 s
        assert not timer.due()
        now[0] += 1
        assert timer.due()

    def test_without_minutes_none_is_due(self) -> None:
        assert not SaveTimer(None, clock=iter([0.0, 1e9]).__next__).due()


def test_a_step_and_save_longer_than_promised_are_told_once() -> None:
    held = StopTime(90)
    assert held.step(60) is None and held.save(30) is None and held.step(50) is None
    told = held.save(31)
    assert told is not None and "took up to 60 s and a checkpoint 31 s" in told and "longest_step_seconds" in told
    assert held.step(500) is None


@pytest.mark.parametrize("slow", ["step", "save", ""])
def test_a_run_holds_its_steps_and_saves_against_the_promise(
    slow: str, fresh: Callable[[], Setup], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = training(fresh(), tmp_path)
    step, time = run.loop.step, run.timer.time
    if slow == "step":
        run.loop.step = lambda *given, **options: replace(step(*given, **options), seconds=300)  # type: ignore[method-assign]
    elif slow == "save":
        run.timer.time = lambda save: time(save) + 300  # type: ignore[method-assign]
    run.run()
    assert capsys.readouterr().out.count("cluster.longest_step_seconds") == bool(slow)


def test_steps_are_logged_before_each_evaluation_which_may_be_the_last(
    fresh: Callable[[], Setup], tmp_path: Path
) -> None:
    training(fresh(), tmp_path, every_step=True, log_every=4).run()
    told = [(each["type"], each["step"]) for each in lines(tmp_path) if each["type"] in ("train", "eval")]
    assert told == [("eval", 0), *[(kind, step + 1) for step in range(STEPS) for kind in ("train", "eval")]]
