"""What `make chaos` counts as lost or wrong is seen: each kind planted once."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import pytest

from chaos import faults, pods, publishing, saves
from chaos.tally import Order, Tally, table
from mtft import journal, store
from tests.unit.runs_on_disk import MODEL, run_id


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A store that a publisher and a reader were in, with nothing wrong."""
    publishing.new_store(tmp_path)
    (tmp_path / "told-0").write_text(f"1 {run_id(0)}\n")
    (tmp_path / "unreadable").write_text("")
    assert [*publishing.lost(tmp_path), *publishing.wrong(tmp_path)] == []
    return tmp_path


def test_an_acknowledged_promotion_that_is_gone_is_lost(used: Path) -> None:
    (used / "told-1").write_text(f"2 {run_id(2)}\n")
    assert list(publishing.lost(used)) == [f"promotion 2 of {run_id(2)} was acknowledged and is not in the history"]


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lambda folder: (folder / ".current.x.tmp").touch(), "left behind"),
        (lambda folder: (folder.parents[1] / "unreadable").write_text("nothing is current\n"), "nothing is current"),
        (lambda folder: _promote_over(folder, run_id(0)), "history ends with"),
    ],
)
def test_a_store_in_disorder_is_wrong(used: Path, plant: object, words: str) -> None:
    plant(store.outputs(used, MODEL))  # type: ignore[operator]
    assert any(words in what for what in publishing.wrong(used))


def test_a_promotion_over_another_run_than_the_one_before_is_a_slip(used: Path) -> None:
    _promote_over(store.outputs(used, MODEL), run_id(0))
    assert list(publishing.slips(used)) == []
    _promote_over(store.outputs(used, MODEL), run_id(3))
    assert len(list(publishing.slips(used))) == 1


def _promote_over(folder: Path, previous: str) -> None:
    """Enter a promotion that the pointer does not follow."""
    entry = json.loads((folder / journal.FOLDER / "000001.json").read_text())
    (folder / journal.FOLDER / "000002.json").write_text(json.dumps({**entry, "run": run_id(2), "previous": previous}))


def test_a_kill_strikes_at_the_operation_it_is_aimed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in faults.OPERATIONS:
        monkeypatch.setattr(os, name, getattr(os, name))
    seen: list[tuple[int, bool]] = []
    faults.wrap(["/aimed"], lambda number, before: seen.append((number, before)))
    (tmp_path / "other").mkdir()
    (tmp_path / "aimed").mkdir()
    with (tmp_path / "aimed" / "file").open("w") as file:
        os.fsync(file.fileno())
    assert seen == [(1, True), (1, False), (2, True), (2, False)]


def test_ranks_that_hang_are_killed_and_their_run_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saves, "_HANGS_SECONDS", 0.2)
    monkeypatch.setattr(saves._Saves, "__init__", lambda _self: None)
    monkeypatch.setattr(saves._Saves, "_rank", lambda _self, *_: time.sleep(30))
    hanging = saves._Saves()  # type: ignore[call-arg]
    hanging.tally, hanging.plan, hanging.folder = Tally("kills in saves", 7), random.Random(7), tmp_path
    hanging.ranks, hanging.seconds, hanging.operations = 2, 20.0, 30
    begun = time.monotonic()
    hanging.disturb(2)
    assert (hanging.tally.tries, hanging.tally.survived, hanging.tally.lost) == (2, 0, 2)
    assert time.monotonic() - begun < 20


def test_a_job_that_ends_in_the_pause_is_neither_tried_nor_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first job ends before its pods are deleted, the second one's end is waited for, with no new attempt."""
    ends = iter([[None, "Succeeded", "Succeeded"], [None, None, "Succeeded", "Succeeded"]])

    class Ending(pods._Job):
        def __init__(self, place: pods._Place) -> None:
            self.place, self.name, self.states = place, "job", iter(next(ends))

        def state(self) -> str | None:
            return next(self.states)

    monkeypatch.setattr(pods, "_Job", Ending)
    monkeypatch.setattr(pods, "_PAUSE_S", 0.0)
    monkeypatch.setattr(pods, "read_job", lambda *_: None)
    monkeypatch.setattr(pods._Job, "lines", lambda _self: [])
    monkeypatch.setattr(pods._Place, "__init__", lambda _self: None)
    monkeypatch.setattr(pods._Place, "_judge", lambda *_: None)
    place, tally = pods._Place(), Tally("pods deleted", 7)  # type: ignore[call-arg]
    place.plan, place.volume = random.Random(7), Path()
    place.disturb(tally, 1, lambda *_: True)
    assert (next(ends, None), tally.tries, tally.recoveries) == (None, 1, [])


def test_the_table_ends_with_the_sum_and_says_what_was_not_run(tmp_path: Path) -> None:
    good = Tally("kills", 7, tries=200, recoveries=[1.0, 2.0, 9.0])
    bad = Tally("pods", 7, tries=20, lost=1, wrong=2)
    missing = Tally("clock", 7, missing="no libfaketime")
    *_, last = text = table([good, bad, missing]).splitlines()
    assert last == "217 survived, 1 lost, 2 wrong"
    assert "clock: not run: no libfaketime" in text and "2.0" in text[1] and "9.0" in text[1]
    order = Order(kills=10, seed=1, folder=tmp_path)
    assert [order.share(20), order.share(100), order.share(3)] == [1, 5, 0]
    assert order.plan("x").random() == Order(kills=99, seed=1, folder=tmp_path).plan("x").random()
