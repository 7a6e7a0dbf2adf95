"""The file of a job's early starts: whose they are, and what it holds when it is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mtft import files, runs
from mtft.naming import config_hash
from tests.trainer.early import document, early, keep, kept, unreadable, write_claimed
from tests.trainer.supervising import MODEL, Bench, Start
from trainer import overview


@pytest.mark.parametrize("claimed", [False, True])
def test_starts_of_another_configuration_under_the_same_name_count_nothing(
    bench: Bench, start: Start, claimed: bool
) -> None:
    unreadable(bench, max_restarts=0)
    assert [start()[0] for _ in range(2)] == [143, 1]
    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 0})
    if claimed:
        write_claimed(bench, runs.Job("job", MODEL, "r1", config_hash(document(bench), MODEL), runs.now()))
    code, output = start()
    assert code == 0, output
    assert [each["exit_code"] for each in bench.record["attempts"]] == [0]


def test_a_larger_budget_of_the_same_configuration_counts_them(bench: Bench, start: Start) -> None:
    unreadable(bench, max_restarts=0)
    assert [start()[0] for _ in range(2)] == [143, 1]
    unreadable(bench, max_restarts=1)
    assert start()[0] == 143 and len(kept(bench)) == 2


def test_a_volume_that_takes_no_record_is_told_and_the_job_goes_on(
    bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.configure(cluster={"processes_per_node": 1})

    def full(path: Path, value: object, write: Callable[[Path, object], None] = files.write_json) -> None:
        if path.name.endswith(".early"):
            raise OSError(28, "No space left on device", str(path))
        write(path, value)

    monkeypatch.setattr(files, "write_json", full)
    code, output = start()
    assert code == 0 and "No space left on device; this start is not counted" in output


@pytest.mark.parametrize("text", ["", "{", "7", "[]", "[null]", "{}", '{"config_hash": 3}', "[" * 100_000])
def test_a_damaged_file_counts_nothing(bench: Bench, start: Start, text: str) -> None:
    unreadable(bench, max_restarts=0)
    early(bench).parent.mkdir(parents=True)
    early(bench).write_text(text)
    assert start()[0] == 143 and len(kept(bench)) == 1


@pytest.mark.parametrize("starts", [None, 7, {"started": 3}, [{"begun": "x"}], [None]])
def test_a_damaged_list_counts_nothing(bench: Bench, start: Start, starts: object) -> None:
    unreadable(bench, max_restarts=0)
    files.write_json(early(bench), {"config_hash": config_hash(document(bench), MODEL), "starts": starts})
    assert start()[0] == 143 and len(kept(bench)) == 1


@pytest.mark.parametrize(
    "damage",
    [
        *({"started": value} for value in (3, None, "", "yesterday")),
        *({"ended": value} for value in (3, "", "yesterday")),
        *({"reason": value} for value in (5, 0, ["x"])),
        *({"retried": value} for value in (5, ["x"])),
        *({"exit_code": value} for value in ("x", [1], 1.5)),
        {"begun": "x"},
    ],
)
def test_a_damaged_start_counts_nothing(bench: Bench, start: Start, damage: dict[str, object]) -> None:
    unreadable(bench, max_restarts=0)
    keep(bench, {"started": runs.now(), "ended": runs.now(), "exit_code": 143, "reason": "x", **damage})
    assert start()[0] == 143 and len(kept(bench)) == 1


def test_a_start_whose_reason_is_half_a_character_counts_nothing(bench: Bench, start: Start) -> None:
    unreadable(bench, max_restarts=0)
    text = json.dumps({"config_hash": config_hash(document(bench), MODEL), "starts": [{"started": runs.now()}]})
    early(bench).parent.mkdir(parents=True, exist_ok=True)
    early(bench).write_text(text.replace("}]", r', "reason": "\ud800"}]'))
    assert start()[0] == 143 and len(kept(bench)) == 1


def test_who_lists_the_jobs_sees_none_of_them(bench: Bench, start: Start) -> None:
    unreadable(bench)
    assert start()[0] == 143 and early(bench).exists()
    assert overview.read(bench.root) == [] and runs.runs_at_work(bench.root, MODEL) == set()
