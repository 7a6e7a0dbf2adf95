"""From a verdict to the store: what a job publishes, what a restart mends, and when there is nothing to retrain."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import remote_runs
from mtft import files, journal, keeper, promotion, store
from mtft.config import Config
from mtft.errors import InputError
from mtft.promotion import changing
from mtft.runs import RunPaths
from tests.unit.runs_on_disk import MODEL, current, make_run, run_id
from tests.unit.test_store_faults import dying, in_child, steps_of
from trainer import publishing
from trainer.unchanged import same_run


def ending(root: Path, number: int, verdict: str, published: int | None) -> tuple[RunPaths, dict[str, Any]]:
    """Return a run that has everything but ``finished.json``, and what that will hold."""
    paths = make_run(root, number, None)
    gate = {"verdict": verdict, "reasons": ["r"], "published": None if published is None else run_id(published)}
    return paths, {"status": "finished", "deliverable": "lora", "gate": gate}


def verdict_of(paths: RunPaths) -> str:
    return str(files.read_json(paths.finished)["gate"]["verdict"])


@pytest.mark.parametrize(("verdict", "promoted"), [("promoted", True), ("better", False), ("regressed", False)])
def test_a_run_becomes_current_when_its_verdict_says_so(tmp_path: Path, verdict: str, promoted: bool) -> None:
    paths, finished = ending(tmp_path, 1, verdict, None)
    files.write_json(paths.provenance, {"job": "night-x"})
    assert publishing.finish(paths, finished)
    assert (current(tmp_path) == run_id(1)) is promoted
    if promoted:
        [entry] = journal.read(store.outputs(tmp_path, MODEL))
        assert (entry.who, entry.reason, entry.forced) == ("job night-x", "r", False)


def test_reasons_without_end_are_cut_to_what_history_takes(tmp_path: Path) -> None:
    paths, finished = ending(tmp_path, 1, "promoted", None)
    reasons = [f"guard set {number}: chrf +1.00" for number in range(100)]
    assert publishing.finish(paths, {**finished, "gate": {**finished["gate"], "reasons": reasons}})
    [entry] = journal.read(store.outputs(tmp_path, MODEL))
    assert entry.reason == "; ".join(reasons)[:500] and current(tmp_path) == run_id(1)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Give a store that was copied without its links: run 2 was promoted last, and nothing is current."""
    for number in (1, 2):
        publishing.finish(*ending(tmp_path, number, "promoted", number - 1 or None))
    folder = store.outputs(tmp_path, MODEL)
    (folder / "current").unlink()
    return folder


def test_nothing_is_published_over_a_run_whose_pointer_was_lost(tmp_path: Path, copied: Path) -> None:
    paths, finished = ending(tmp_path, 3, "promoted", None)
    assert not publishing.finish(paths, finished), "to be judged again"
    files.write_json(paths.finished, finished)  # as a job that was killed before the pointer was lost
    said: list[str] = []
    publishing.settle(paths, None, said.append)
    assert current(tmp_path) is None and f"run {run_id(2)} was published before" in said[-1]
    better, finished = ending(tmp_path, 4, "better", None)
    files.write_json(better.finished, finished)
    with changing(tmp_path, MODEL) as held:
        with pytest.raises(InputError, match=rf"with the base alone, not with {run_id(2)}, which was promoted last"):
            held.promote(run_id(4), who="anna")
        assert list(held.prune(1)) == [run_id(3)], "but for the last one and the one before it"
        with pytest.raises(InputError, match=rf"although run {run_id(2)} was promoted last: .*--run {run_id(2)}`"):
            held.rollback(who="anna")
        held.promote(run_id(2), who="anna")
    assert current(tmp_path) == run_id(2) and store.lost(copied) is None


def test_a_lost_pointer_is_told_wherever_the_run_is_looked_for(tmp_path: Path, copied: Path) -> None:
    newest = make_run(tmp_path, 3, "regressed")
    said = store.unpromoted(newest)
    assert f"although run {run_id(2)} was promoted last" in said and f"this is run {run_id(3)}, the newest" in said
    assert remote_runs.unpromoted(newest.folder) == said
    assert keeper.history(str(tmp_path), MODEL)["lost"] == run_id(2)
    (copied / "promotions" / "000002.json").write_text("{")
    assert store.lost(copied) == remote_runs.promoted_last(copied) == run_id(1)
    shutil.rmtree(copied / "promotions")
    said = store.unpromoted(newest)
    assert said.startswith("nothing is promoted, so this is") and remote_runs.unpromoted(newest.folder) == said


def test_a_run_that_does_not_answer_is_not_taken_for_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [make_run(tmp_path, number, "better").folder for number in (1, 2)]
    outputs = made[0].parents[1]
    assert remote_runs.newest_of(outputs) == run_id(2) == store.finished_ids(outputs)[-1]
    read = Path.read_text

    def fails(path: Path, *args: Any, **options: Any) -> str:
        if path.parent in made[1:]:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", fails)
    journal = outputs / "promotions" / "000001.json"
    journal.parent.mkdir()
    journal.write_text(json.dumps({"run": run_id(1)}))
    made.append(journal.parent)
    for newest in (remote_runs.newest_of, store.finished_ids, remote_runs.promoted_last):
        with pytest.raises(OSError, match="Input/output error"):
            newest(outputs)
    (made[1] / "finished.json").unlink()
    assert remote_runs.newest_of(outputs) == run_id(1)


def test_a_run_judged_against_another_published_one_is_judged_again(tmp_path: Path) -> None:
    paths, finished = ending(tmp_path, 2, "promoted", None)
    publishing.finish(*ending(tmp_path, 1, "promoted", None))
    assert not publishing.finish(paths, finished)
    assert not paths.finished.exists() and current(tmp_path) == run_id(1)


def test_a_restart_promotes_what_was_decided_unless_another_came_first(tmp_path: Path) -> None:
    said: list[str] = []
    killed, finished = ending(tmp_path, 1, "promoted", None)
    files.write_json(killed.finished, finished)  # killed here
    late, finished = ending(tmp_path, 2, "promoted", None)
    files.write_json(late.finished, finished)  # and another one here
    publishing.settle(killed, None, said.append)
    assert current(tmp_path) == run_id(1) and "is promoted" in said[-1]
    publishing.settle(late, None, said.append)
    assert current(tmp_path) == run_id(1) and "is not promoted" in said[-1]
    assert (verdict_of(killed), verdict_of(late)) == ("promoted", "not better")
    # What a person rolled back stays so, however often the job starts again.
    with changing(tmp_path, MODEL) as held:
        held.promote(run_id(2), who="anna", force=True)
    publishing.settle(killed, None, said.append)
    assert current(tmp_path) == run_id(2) and len(said) == 2


def test_a_job_killed_at_any_step_of_its_promotion_is_promoted_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the same order of steps, sooner

    def fresh(name: str) -> tuple[Path, RunPaths, dict[str, Any]]:
        root = tmp_path / name
        publishing.finish(*ending(root, 1, "promoted", None))
        return root, *ending(root, 2, "promoted", 1)

    _, ready, ends = fresh("count")
    steps = steps_of(lambda: publishing.finish(ready, ends))
    mended = 0
    for nth in range(1, steps + 1):
        root, paths, finished = fresh(str(nth))

        def die(nth: int = nth, paths: RunPaths = paths, finished: dict[str, Any] = finished) -> None:
            dying(nth, "after")
            publishing.finish(paths, finished)

        assert os.waitpid(in_child(die), 0)[1] == signal.SIGKILL
        assert current(root) in (run_id(1), run_id(2))
        if not paths.finished.exists():
            assert current(root) == run_id(1)
            continue  # not finished: the next start judges again
        mended += current(root) == run_id(1)
        publishing.settle(paths, None, lambda _: None)
        assert verdict_of(paths) == "promoted", "killed after the pointer moved, it is not held against itself"
        history = journal.read(store.outputs(root, MODEL))
        assert [each.run for each in history] == [run_id(1), run_id(2)] and current(root) == run_id(2)
    assert mended >= 3


def test_old_runs_are_removed_at_the_end_of_a_job(tmp_path: Path) -> None:
    said: list[str] = []
    for number in (1, 2, 3):
        make_run(tmp_path, number, "not better")
    publishing.settle(RunPaths.at(tmp_path, MODEL, run_id(3)), 2, said.append)
    assert said == [f"run {run_id(1)} is removed: storage.keep_runs is 2"]
    assert store.finished_ids(store.outputs(tmp_path, MODEL)) == [run_id(2), run_id(3)]


def test_a_job_never_removes_its_own_run(tmp_path: Path) -> None:
    paths = make_run(tmp_path, 1, "not better", finished_at="2030-01-02T03:00:00Z")
    for number in (2, 3):  # finished between its end and its turn in the store
        make_run(tmp_path, number, "not better", finished_at=f"2030-01-02T0{2 + number}:00:00Z")
    publishing.settle(paths, 1, lambda _: None)
    assert verdict_of(paths) == "not better"
    assert store.finished_ids(store.outputs(tmp_path, MODEL)) == [run_id(1), run_id(3)]


def test_a_run_that_is_still_to_be_promoted_outlives_the_pruning_of_other_jobs(tmp_path: Path) -> None:
    waiting, finished = ending(tmp_path, 1, "promoted", None)
    files.write_json(waiting.finished, finished)  # stopped here, while another process had the store
    said: list[str] = []
    publishing.settle(make_run(tmp_path, 2, "not better"), 1, said.append)
    assert said == [] and waiting.finished.exists()
    publishing.settle(waiting, 1, said.append)
    assert current(tmp_path) == run_id(1) and "is promoted" in said[-1]


def test_a_run_that_was_promoted_or_cannot_be_is_removed_like_any_other(tmp_path: Path) -> None:
    for number, published in ((1, None), (2, 1), (3, 2)):
        publishing.finish(*ending(tmp_path, number, "promoted", published))
    damaged, finished = ending(tmp_path, 4, "promoted", 3)
    files.write_json(damaged.finished, finished)
    (damaged.lora / "adapter_model.safetensors").unlink()
    said: list[str] = []
    publishing.settle(make_run(tmp_path, 5, "not better"), 1, said.append)
    assert said == [f"run {run_id(number)} is removed: storage.keep_runs is 1" for number in (1, 4)]


def test_a_run_with_nothing_to_promote_never_fails_over_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    make_run(tmp_path, 1, "not better")
    paths = make_run(tmp_path, 2, "not better")
    busy = store.outputs(tmp_path, MODEL) / ".store.lease"
    busy.write_text(json.dumps({"owner": "far:1:x", "expires": 9e9}))
    monkeypatch.setattr(promotion, "_PATIENCE_SECONDS", 0)
    publishing.settle(paths, 1, said.append)
    assert "could not be removed" in said[0] and "held by far:1:x" in said[0]
    busy.unlink()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as where nothing may be deleted
    publishing.settle(paths, 1, said.append)
    assert "is removed" in said[1] and ".gone, which is left of it" in said[2]


def test_a_verdict_that_is_taken_back_is_told_with_the_way_to_overrule_it(tmp_path: Path) -> None:
    publishing.finish(*ending(tmp_path, 1, "promoted", None))
    late, finished = ending(tmp_path, 2, "promoted", None)
    files.write_json(late.finished, finished)
    late.report.write_text("Better: promoted")
    publishing.settle(late, None, lambda _: None)
    page = late.report.read_text()
    assert "Better: promoted" not in page and "Not better" in page
    assert f"mtft-launch promote {MODEL} --run {run_id(2)} --force" in page


def test_a_damaged_end_is_told_in_words(tmp_path: Path) -> None:
    paths = make_run(tmp_path, 1)
    paths.finished.write_text('{"deliver')
    with pytest.raises(InputError, match=r"finished\.json: cannot be understood"):
        publishing.settle(paths, 1, lambda _: None)


MADE_OF: dict[str, Any] = {
    "data": {"train": "d", "dev": None, "test": None},
    "guard_sets": {"general": "g"},
    "base": {"checkpoint": "hub/base", "revision": "c0ffee", "sha256": None},
    "config_hash": "c",
    "code_sha256": "s",
}


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"data": {"train": "other", "dev": None, "test": None}}, False),
        ({"data": {"train": None, "dev": None, "test": None}}, False),
        ({"guard_sets": {"general": "other"}}, False),
        ({"guard_sets": {"general": None}}, False),
        ({"base": {"checkpoint": "hub/base", "revision": "other", "sha256": None}}, False),
        ({"base": {"checkpoint": "hub/base", "revision": None, "sha256": None}}, False),
        ({"config_hash": "other"}, False),
        ({"code_sha256": "other"}, False),
    ],
)
def test_only_the_same_data_base_configuration_and_code_are_nothing_to_retrain(
    tmp_path: Path, changed: dict[str, Any], same: bool
) -> None:
    config = Config.model_validate({"model": MODEL, "data": {"train": "x.jsonl"}})
    fetched = {"base": {"checkpoint": "hub/base", "revision": "c0ffee", "sha256": "of the fetched files"}}
    paths = make_run(tmp_path, 1)
    paths.provenance.write_text(json.dumps({**MADE_OF, **fetched}))
    mixed = make_run(tmp_path, 3, finished_at="2030-01-02T09:00:00Z")
    mixed.provenance.write_text(json.dumps({**MADE_OF, **fetched, "earlier_code": ["other"]}))
    make_run(tmp_path, 2, None).provenance.write_text(json.dumps(MADE_OF))  # not finished
    found = same_run(tmp_path, MODEL, config, {**MADE_OF, **changed})
    assert found == (run_id(1) if same else None)


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_damaged_run_is_trained_again(tmp_path: Path, damage: str) -> None:
    config = Config.model_validate({"model": MODEL, "data": {"train": "x.jsonl"}})
    paths = make_run(tmp_path, 1)
    paths.provenance.write_text(json.dumps(MADE_OF))
    files.write_json(paths.finished, files.read_json(paths.finished) | {store.FILES: files.listing(paths.lora)})
    assert same_run(tmp_path, MODEL, config, MADE_OF) == run_id(1)
    weights = paths.lora / "adapter_model.safetensors"
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(b"Weights")
    assert same_run(tmp_path, MODEL, config, MADE_OF) is None


def test_a_volume_that_fails_for_a_moment_lets_no_unchanged_work_train_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config.model_validate({"model": MODEL, "data": {"train": "x.jsonl"}})
    paths = make_run(tmp_path, 1)
    paths.provenance.write_text(json.dumps(MADE_OF))
    make_run(tmp_path, 2).provenance.write_text("[]")
    number = errno.EIO

    def failing(path: Path, *options: Any, read: Callable[..., str] = Path.read_text, **more: Any) -> str:
        if path == paths.provenance:
            raise OSError(number, os.strerror(number), str(path))
        return read(path, *options, **more)

    monkeypatch.setattr(Path, "read_text", failing)
    with pytest.raises(OSError, match="Input/output error"):
        same_run(tmp_path, MODEL, config, MADE_OF)
    number = errno.EACCES
    assert same_run(tmp_path, MODEL, config, MADE_OF) is None
    monkeypatch.undo()
    assert same_run(tmp_path, MODEL, config, MADE_OF) == run_id(1)
