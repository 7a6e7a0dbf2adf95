"""Promotion, rollback, history and retention, and who may be in the way of them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mtft import files, journal, lease, promotion, runs, store
from mtft.errors import InputError, Retry
from mtft.promotion import changing
from mtft.runs import Attempt, Job, RunPaths
from tests.unit.runs_on_disk import MODEL, current, make_run, run_id


def promote(root: Path, number: int, *, force: bool = False) -> None:
    with changing(root, MODEL) as held:
        held.promote(run_id(number), who="anna", force=force)


def rollback(root: Path, away_from: int | None = None) -> str:
    with changing(root, MODEL) as held:
        return held.rollback(who="anna", away_from=None if away_from is None else run_id(away_from)).run


def history(root: Path) -> list[journal.Promotion]:
    return journal.read(store.outputs(root, MODEL))


def test_the_current_run_is_what_users_get_and_history_tells_how(tmp_path: Path) -> None:
    made = [make_run(tmp_path, number) for number in (1, 2, 3)]
    assert store.current(tmp_path, MODEL) is None
    assert store.find(tmp_path, MODEL) == made[2], "nothing promoted: the newest finished one"
    promote(tmp_path, 1)
    promote(tmp_path, 2)
    assert store.find(tmp_path, MODEL) == made[1]
    assert (store.outputs(tmp_path, MODEL) / "current").readlink() == Path("runs") / run_id(2)
    assert store.find(tmp_path, MODEL, run_id(3)) == made[2]
    told = [(each.number, each.action, each.previous, each.run, each.who) for each in history(tmp_path)]
    assert told == [(1, "promote", None, run_id(1), "anna"), (2, "promote", run_id(1), run_id(2), "anna")]
    promote(tmp_path, 2)
    assert len(history(tmp_path)) == 2, "what is current already is not promoted again"


def test_rollback_goes_one_further_back_each_time_and_passes_over_what_is_gone(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        make_run(tmp_path, number)
        promote(tmp_path, number)
    (store.run_at(store.outputs(tmp_path, MODEL), run_id(3)).lora / "adapter_model.safetensors").unlink()
    assert rollback(tmp_path) == run_id(2)
    make_run(tmp_path, 5)
    promote(tmp_path, 5)
    assert [rollback(tmp_path), rollback(tmp_path)] == [run_id(2), run_id(1)]
    with pytest.raises(InputError, match="no earlier run"):
        rollback(tmp_path)
    assert current(tmp_path) == run_id(1)


def test_a_rollback_never_stays_where_it_is(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, number)
        promote(tmp_path, number)
    promote(tmp_path, 2)  # current, and so it was before 3, which is gone
    shutil.rmtree(store.outputs(tmp_path, MODEL) / "runs" / run_id(3))
    assert rollback(tmp_path) == run_id(1)


def test_a_rollback_asked_for_twice_is_done_once(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, number)
        promote(tmp_path, number)
    assert [rollback(tmp_path, away_from=3), rollback(tmp_path, away_from=3)] == [run_id(2), run_id(2)]
    with pytest.raises(InputError, match=f"{run_id(2)} is current by now"):
        rollback(tmp_path, away_from=1)


def test_a_rollback_from_a_damaged_run_that_nothing_points_at_is_done_once(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        made = make_run(tmp_path, number)
        promote(tmp_path, number)
    (store.outputs(tmp_path, MODEL) / "current").unlink()
    (made.lora / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=f"nothing is current by now, not {run_id(1)}"):
        rollback(tmp_path, away_from=1)
    assert [rollback(tmp_path, away_from=3), rollback(tmp_path, away_from=3)] == [run_id(2), run_id(2)]
    assert [(each.previous, each.run) for each in history(tmp_path)[3:]] == [(run_id(3), run_id(2))]
    assert rollback(tmp_path, away_from=2) == run_id(1)


@pytest.mark.parametrize("verdict", ["not better", "regressed"])
def test_a_verdict_against_it_is_overruled_by_force_alone_and_that_is_kept(tmp_path: Path, verdict: str) -> None:
    make_run(tmp_path, 1, verdict)
    with pytest.raises(InputError, match=rf"is {verdict}: en-fr: chrf .*--force"):
        promote(tmp_path, 1)
    assert current(tmp_path) is None
    promote(tmp_path, 1, force=True)
    [entry] = history(tmp_path)
    assert (entry.forced, entry.verdict, current(tmp_path)) == (True, verdict, run_id(1))


def test_a_verdict_counts_against_the_run_it_was_given_against(tmp_path: Path) -> None:
    for number, rival in ((1, None), (2, run_id(1)), (3, run_id(1))):
        gate = {"verdict": "better", "reasons": ["en-fr: chrf +1.00"], "published": rival}
        make_run(tmp_path, number, gate=gate)
    promote(tmp_path, 1)
    promote(tmp_path, 2)
    with pytest.raises(InputError, match=f"{run_id(3)} was compared with {run_id(1)}, not with {run_id(2)}.*--force"):
        promote(tmp_path, 3)
    with pytest.raises(InputError, match=f"{run_id(1)} was compared with the base alone"):
        promote(tmp_path, 1)
    assert rollback(tmp_path) == run_id(1)
    promote(tmp_path, 3)
    promote(tmp_path, 2, force=True)
    assert [each.forced for each in history(tmp_path)] == [False, False, False, False, True]


SIZES = {"adapter_model.safetensors": 7, "adapter_config.json": 2}


@pytest.mark.parametrize("earlier", [False, True], ids=["of now", "of an earlier version"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "gone", "a link", "changed"])
def test_a_deliverable_that_is_not_what_was_written_is_damaged(tmp_path: Path, damage: str, earlier: bool) -> None:
    paths = make_run(tmp_path, 1)
    (paths.lora / "adapter_config.json").write_text("{}")
    listed = {"deliverable_bytes": SIZES} if earlier else {store.FILES: files.listing(paths.lora)}
    files.write_json(paths.finished, files.read_json(paths.finished) | listed)
    folder = store.outputs(tmp_path, MODEL)
    assert store.is_complete(folder, run_id(1), hashed=True)
    if damage == "a link":
        paths.lora.rename(tmp_path / "elsewhere")
        paths.lora.symlink_to(tmp_path / "elsewhere")
    elif damage == "gone":
        (paths.lora / "adapter_config.json").unlink()
    else:
        content = {"cut": b"weight", "emptied": b"", "changed": b"Weights"}[damage]
        (paths.lora / "adapter_model.safetensors").write_bytes(content)
    assert store.is_complete(folder, run_id(1)) is (damage == "changed"), "read by those alone who publish or load it"
    if earlier and damage == "changed":
        return
    with pytest.raises(InputError, match="the run is damaged"):
        promote(tmp_path, 1)
    assert current(tmp_path) is None


@pytest.mark.parametrize("listed", [[], {"../x": {"size": 1}}, {"x\0": {"size": 1}}, {"x": {}}, {"x": 7}])
def test_a_list_of_files_that_is_none_is_told(tmp_path: Path, listed: object) -> None:
    make_run(tmp_path, 1, deliverable_files=listed)
    with pytest.raises(InputError, match=r"finished\.json: cannot be understood"):
        promote(tmp_path, 1)


def test_a_rollback_passes_over_changed_bytes_and_what_it_goes_to_is_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        paths = make_run(tmp_path, number)
        files.write_json(paths.finished, files.read_json(paths.finished) | {store.FILES: files.listing(paths.lora)})
        promote(tmp_path, number)
    (RunPaths.at(tmp_path, MODEL, run_id(2)).lora / "adapter_model.safetensors").write_bytes(b"Weights")
    with changing(tmp_path, MODEL) as held:
        assert list(held.prune(1)) == [run_id(2)]
    assert rollback(tmp_path) == run_id(1)


def test_a_pointer_moved_by_hand_is_found_and_can_be_rolled_back(tmp_path: Path) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
    promote(tmp_path, 1)
    link = store.outputs(tmp_path, MODEL) / "current"
    link.unlink()
    link.symlink_to(f"runs/{run_id(2)}")
    assert rollback(tmp_path) == run_id(1)
    assert [each.action for each in history(tmp_path)] == ["promote", "found", "rollback"]


def test_incomplete_runs_are_never_current(tmp_path: Path) -> None:
    make_run(tmp_path, 1, None)
    paths = make_run(tmp_path, 2)
    (paths.lora / "adapter_model.safetensors").unlink()
    elsewhere = make_run(tmp_path / "elsewhere", 3).folder
    (paths.folder.parent / run_id(3)).symlink_to(elsewhere)
    for number, why in ((1, "no finished.json"), (2, "no safetensors"), (3, "no such run"), (4, "no such run")):
        with pytest.raises(InputError, match=why):
            promote(tmp_path, number, force=True)
    assert current(tmp_path) is None and history(tmp_path) == []


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/../../b", "/etc", "a\0b", "a\n", "a\nb", ".hidden", "a b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    make_run(tmp_path, 1)
    folder = store.outputs(tmp_path, MODEL)
    with changing(tmp_path, MODEL) as held, pytest.raises(InputError, match="is not a run-id"):
        held.promote(name, who="anna", force=True)
    with pytest.raises(InputError, match="is not a run-id"):
        store.find(tmp_path, MODEL, name)
    # What others wrote into the store is believed no more than what is typed.
    promote(tmp_path, 1)
    entry = json.loads((folder / journal.FOLDER / "000001.json").read_text())
    (folder / journal.FOLDER / "000002.json").write_text(json.dumps({**entry, "run": name}))
    (folder / journal.FOLDER / "000003.json").write_text(json.dumps({**entry, "previous": name}))
    (folder / journal.FOLDER / ".pending.json").write_text(json.dumps({**entry, "run": name}))
    assert [each.number for each in history(tmp_path)] == [1]
    (folder / "current.json").write_text(json.dumps({"run": f"runs/{name}"}))
    with pytest.raises(InputError, match="out of the store"):
        store.find(tmp_path, MODEL)


@pytest.mark.parametrize("target", ["/etc", "../../other/runs/x", "runs/../../x", "runs", "jobs/x"])
def test_a_link_out_of_the_store_is_not_followed(tmp_path: Path, target: str) -> None:
    make_run(tmp_path, 1)
    (store.outputs(tmp_path, MODEL) / "current").symlink_to(target)
    with pytest.raises(InputError, match="out of the store"):
        store.current(tmp_path, MODEL)
    with pytest.raises(InputError, match="out of the store"):
        promote(tmp_path, 1)


@pytest.mark.parametrize("linked", ["lora", "lora/adapter_model.safetensors", "lora/adapter_config.json"])
def test_weights_that_lie_elsewhere_are_never_current(tmp_path: Path, linked: str) -> None:
    paths = make_run(tmp_path, 1)
    (paths.lora / "adapter_config.json").write_text("{}")
    outside, inside = tmp_path / "outside", paths.folder / linked
    inside.rename(outside)
    inside.symlink_to(outside)
    for look in (lambda: promote(tmp_path, 1, force=True), lambda: store.find(tmp_path, MODEL)):
        with pytest.raises(InputError, match=f"{linked}: is a link|'lora' holds no safetensors"):
            look()
    assert current(tmp_path) is None


def test_a_journal_that_lies_elsewhere_is_neither_read_nor_written(tmp_path: Path) -> None:
    make_run(tmp_path, 1)
    promote(tmp_path, 1)
    outside, inside = tmp_path / "outside", store.outputs(tmp_path, MODEL) / journal.FOLDER
    inside.rename(outside)
    inside.symlink_to(outside)
    (outside / ".somebody.tmp").touch()
    before = sorted(outside.iterdir())
    make_run(tmp_path, 2)
    for look in (lambda: promote(tmp_path, 2), lambda: rollback(tmp_path), lambda: history(tmp_path)):
        with pytest.raises(InputError, match=f"{journal.FOLDER}: is a link"):
            look()
    assert current(tmp_path) == run_id(1) and sorted(outside.iterdir()) == before


@pytest.mark.parametrize("text", ["a\nb", "a\x1b[2J", "a" * 501])
def test_a_journal_holds_plain_lines(tmp_path: Path, text: str) -> None:
    make_run(tmp_path, 1)
    with changing(tmp_path, MODEL) as held, pytest.raises(InputError, match=r"reason: .* is not one line"):
        held.promote(run_id(1), who="anna", reason=text)
    assert current(tmp_path) is None


def test_a_current_run_that_is_gone_is_told_with_the_way_back(tmp_path: Path) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
        promote(tmp_path, number)
    store.run_at(store.outputs(tmp_path, MODEL), run_id(2)).finished.unlink()
    with pytest.raises(InputError, match=f"cannot be used: .*mtft-launch rollback {MODEL}"):
        store.find(tmp_path, MODEL)
    assert rollback(tmp_path) == run_id(1)


def test_old_runs_go_but_never_one_that_somebody_may_want(tmp_path: Path) -> None:
    paths = {number: make_run(tmp_path, number, None if number == 3 else "better") for number in range(10)}
    for number in (1, 2, 0):
        promote(tmp_path, number)
    rollback(tmp_path)  # 2 is current, 1 is where another rollback goes, 0 is neither
    at_work = Job("job", MODEL, run_id(4), "c", runs.now(), (Attempt(started=runs.now()),))
    runs.claim(tmp_path, at_work)
    left = {number: path.folder for number, path in paths.items()}
    with store.using(paths[5]):
        with changing(tmp_path, MODEL) as held:
            assert list(held.prune(2)) == [run_id(0), run_id(6), run_id(7)]
        assert [number for number, folder in left.items() if folder.exists()] == [1, 2, 3, 4, 5, 8, 9]
    with changing(tmp_path, MODEL) as held:
        assert list(held.prune(2)) == [run_id(5)]
    assert not list((store.outputs(tmp_path, MODEL) / "runs").glob(".*"))
    assert rollback(tmp_path) == run_id(1)


def test_the_newest_is_what_finished_last_not_what_started_last(tmp_path: Path) -> None:
    make_run(tmp_path, 1, "better", finished_at="2030-01-02T09:00:00Z")
    for number in (2, 3):
        make_run(tmp_path, number, "better", finished_at=f"2030-01-02T0{number}:00:00Z")
    folder = store.outputs(tmp_path, MODEL)
    assert store.newest(folder) == run_id(1)
    with changing(tmp_path, MODEL) as held:
        assert list(held.prune(2)) == [run_id(2)]
    assert store.finished_ids(folder) == [run_id(3), run_id(1)]


def test_a_run_that_another_job_took_over_stays(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, number, "better")
    runs.claim(tmp_path, Job("night-x", MODEL, run_id(1), "c", runs.now(), finished=True))
    with changing(tmp_path, MODEL) as held:
        assert list(held.prune(1)) == [run_id(2)]


def test_runs_are_deleted_when_others_have_the_store_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        make_run(tmp_path, number, "better")
    held_meanwhile: list[bool] = []
    delete = shutil.rmtree

    def watched(path: Path, *, ignore_errors: bool) -> None:
        held_meanwhile.append(lease.is_live(store.outputs(tmp_path, MODEL) / ".store.lease"))
        delete(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", watched)
    with changing(tmp_path, MODEL) as held:
        [aside] = held.prune(1).values()
        assert aside.exists() and not store.is_complete(held.folder, run_id(1))
    assert held_meanwhile == [False] and not aside.exists()


def test_a_holder_that_overslept_its_lease_changes_nothing(tmp_path: Path) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
    promote(tmp_path, 1)
    with changing(tmp_path, MODEL) as sleeper:
        sleeper.held.path.write_text('{"owner": "elsewhere:1:x", "expires": 1}')  # as one whose clock jumped sees it
        promote(tmp_path, 2)
        with pytest.raises(Retry, match="taken over"):
            sleeper.promote(run_id(1), who="sleeper")
    assert current(tmp_path) == run_id(2)
    promote(tmp_path, 1)
    assert [each.run for each in history(tmp_path)] == [run_id(1), run_id(2), run_id(1)]


def test_a_holder_that_overslept_its_lease_removes_nothing(tmp_path: Path) -> None:
    for number in (1, 2):
        make_run(tmp_path, number, "better")
    with changing(tmp_path, MODEL) as sleeper:
        sleeper.held.path.write_text('{"owner": "elsewhere:1:x", "expires": 1}')
        with pytest.raises(Retry, match="taken over"):
            sleeper.prune(1)
    assert store.finished_ids(store.outputs(tmp_path, MODEL)) == [run_id(1), run_id(2)]


def test_what_killed_waiters_left_is_swept_and_what_others_write_now_is_not(tmp_path: Path) -> None:
    make_run(tmp_path, 1)
    longest_wait_s = 2 * lease.LEASE_SECONDS
    now_s, left = time.time(), {}
    for age in (0, longest_wait_s - 10, longest_wait_s + 10):
        left[age] = store.outputs(tmp_path, MODEL) / f"..store.lease.{age}.tmp"
        left[age].touch()
        os.utime(left[age], (now_s - age,) * 2)
    promote(tmp_path, 1)
    assert [age for age, path in left.items() if path.exists()] == [0, longest_wait_s - 10]


def test_a_holder_whose_unfinished_files_were_swept_is_told_to_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
    lease_file = store.outputs(tmp_path, MODEL) / ".store.lease"

    def overtaken(source: Path, target: Path, replace: Callable[[Path, Path], None] = os.replace) -> None:
        if target.name == ".pending.json" and current(tmp_path) is None:
            monkeypatch.setattr(os, "replace", replace)
            lease_file.write_text('{"owner": "elsewhere:1:x", "expires": 1}')  # as one whose clock jumped sees it
            promote(tmp_path, 2)
        replace(source, target)

    monkeypatch.setattr(os, "replace", overtaken)
    with pytest.raises(Retry, match="another process changed the store at the same time; run again"):
        promote(tmp_path, 1)
    assert current(tmp_path) == run_id(2) and len(history(tmp_path)) == 1


def test_a_store_that_another_keeps_is_waited_for_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, 1)
    path = store.outputs(tmp_path, MODEL) / ".store.lease"
    path.write_text(json.dumps({"owner": "far:1:x", "expires": 9e9}))
    monkeypatch.setattr(promotion, "_PATIENCE_SECONDS", 0.2)
    with pytest.raises(Retry, match="held by far:1:x"):
        promote(tmp_path, 1)
    path.write_text(json.dumps({"owner": f"{lease.machine()}:{dead_process()}:x", "expires": 9e9}))
    promote(tmp_path, 1)
    assert current(tmp_path) == run_id(1) and not path.exists()


def dead_process() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child
