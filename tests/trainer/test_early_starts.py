"""Starts of a job that come to no attempt count towards its restart budget and its deadline as well."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from mtft import files, runs
from mtft.errors import Retry
from mtft.naming import config_hash
from mtft.runs import TIME_FORMAT, Attempt
from mtft.settings import load_document
from tests.trainer import workers
from tests.trainer.supervising import MODEL, WORKERS, Bench, until
from trainer import attempts, overview, supervisor
from trainer.outcome import Outcome

Start = Callable[[], tuple[int, str]]


@pytest.fixture
def start(bench: Bench, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Start:
    """Start the job as a cluster does, in this process: without the break, and without ranks, as they are not met."""

    def work(_: supervisor.Supervisor, paths: runs.RunPaths, __: int) -> Outcome:
        workers.leave(paths)
        return Outcome(0, "finished", paths)

    monkeypatch.setattr(supervisor, "_BREAK_SECONDS", 0)
    monkeypatch.setattr(supervisor, "adopt_orphans", lambda: None)
    monkeypatch.setattr(supervisor.Supervisor, "_work", work)
    modules = {"preparation_module": WORKERS, "worker_module": WORKERS}
    config = bench.root / "job.yaml"
    request = supervisor.Request(config=config, model=MODEL, job="job", root=None, attended=False, **modules)

    def start() -> tuple[int, str]:
        code = supervisor.supervise(request)
        return code, capfdbinary.readouterr().out.decode()

    return start


def unreadable(bench: Bench, **cluster: int) -> Path:
    """Give the job a test set that the volume does not read: its error may pass, so another start may succeed."""
    test = bench.root / "test.jsonl"
    test.unlink(missing_ok=True)
    test.symlink_to("/proc/self/mem")
    train = str(bench.root / "rows.jsonl")
    bench.configure(data={"train": train, "test": str(test)}, cluster={"processes_per_node": 1, **cluster})
    return test


def readable(test: Path) -> None:
    test.unlink()
    test.write_text('{"source": "Hake.", "target": "Merluche.", "source_lang": "en"}\n')


def early(bench: Bench, *, locked_out: bool = False) -> Path:
    return runs.early_starts_file(bench.root, MODEL, "job", locked_out=locked_out)


def kept(bench: Bench) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = files.read_json(early(bench))["starts"]
    return found


def keep(bench: Bench, *starts: object) -> None:
    """Let these be the early starts of the job's configuration."""
    files.write_json(early(bench), {"config_hash": config_hash(_document(bench), MODEL), "starts": starts})


def test_starts_that_cannot_read_the_inputs_spend_the_budget(bench: Bench, start: Start) -> None:
    test = unreadable(bench, max_restarts=1)
    for _ in range(2):
        code, output = start()
        assert code == 143 and "Input/output error" in output
    for _ in range(2):
        code, output = start()
        assert code == 1 and "restart budget spent: 2 attempts, cluster.max_restarts is 1; last: " in output
        assert "Input/output error" in output and "`mtft-launch retry job` goes on with a fresh budget" in output
    readable(test)
    assert start()[0] == 1, "only a retry begins anew"
    (bench.root / "retried").write_text("2030-01-02T03:04:05Z")
    code, output = start()
    assert code == 0, output


@pytest.mark.parametrize("claimed", [False, True])
def test_starts_of_another_configuration_under_the_same_name_count_nothing(
    bench: Bench, start: Start, claimed: bool
) -> None:
    unreadable(bench, max_restarts=0)
    assert [start()[0] for _ in range(2)] == [143, 1]
    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 0})
    if claimed:
        runs.write_job(bench.root, runs.Job("job", MODEL, "r1", config_hash(_document(bench), MODEL), runs.now()))
    code, output = start()
    assert code == 0, output
    assert [each["exit_code"] for each in bench.record["attempts"]] == [0]


def test_a_larger_budget_of_the_same_configuration_counts_them(bench: Bench, start: Start) -> None:
    unreadable(bench, max_restarts=0)
    assert [start()[0] for _ in range(2)] == [143, 1]
    unreadable(bench, max_restarts=1)
    assert start()[0] == 143 and len(kept(bench)) == 2


def test_starts_before_the_claim_become_part_of_the_record(bench: Bench, start: Start) -> None:
    test = unreadable(bench, max_restarts=1)
    assert start()[0] == 143 and early(bench).exists()
    readable(test)
    code, output = start()
    assert code == 0 and "attempt 2" in output
    assert [each["exit_code"] for each in bench.record["attempts"]] == [143, 0]
    assert "Input/output error" in bench.record["attempts"][0]["reason"] and not early(bench).exists()


def test_a_claimed_job_counts_them_and_is_refused_on_its_record(bench: Bench, start: Start) -> None:
    test = unreadable(bench, max_restarts=0)
    assert start()[0] == 143
    readable(test)
    job = runs.Job("job", MODEL, "r1", config_hash(_document(bench), MODEL), runs.now())
    runs.write_job(bench.root, job)  # claimed, then killed before its first attempt
    for _ in range(2):
        code, output = start()
        assert code == 1 and "restart budget spent: 1 attempts" in output
    assert [each["exit_code"] for each in bench.record["attempts"]] == [143]
    assert "restart budget spent" in bench.record["refused"]


def test_a_start_that_is_killed_while_it_reads_the_inputs_counts(
    bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 0})

    class KilledError(BaseException):
        """Nothing of this process runs after a kill."""

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as faulty:
        faulty.setattr(supervisor.Supervisor, "_claim", killed)
        with pytest.raises(KilledError):
            start()
    code, output = start()
    assert code == 1 and "last: killed without a word" in output and "larger cluster.memory_gib" in output


def test_a_kill_between_the_record_and_what_led_to_it_counts_nothing_twice(
    bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = unreadable(bench, max_restarts=2)
    assert start()[0] == 143
    readable(test)
    ran = Attempt(runs.now(), ended=runs.now(), exit_code=143, reason="x")
    job = runs.Job("job", MODEL, "r1", config_hash(_document(bench), MODEL), runs.now())
    before = tuple(Attempt(**each) for each in kept(bench))
    runs.write_job(bench.root, attempts.fold(job, before).with_attempt(ran))
    files.write_json(runs.RunPaths.at(bench.root, MODEL, "r1").provenance, {})
    start()
    assert len(bench.record["attempts"]) == 3


def test_the_deadline_counts_the_time_they_took(bench: Bench, start: Start) -> None:
    unreadable(bench, max_restarts=9, deadline_minutes=5)
    assert start()[0] == 143
    [taken] = kept(bench)
    began = datetime.now(UTC) - timedelta(days=1)

    def lasted(minutes: int) -> None:
        times = {"started": began, "ended": began + timedelta(minutes=minutes)}
        entry = {**taken, **{name: at.strftime(TIME_FORMAT) for name, at in times.items()}}
        keep(bench, entry)

    lasted(6)
    code, output = start()
    assert code == 1 and "deadline passed: cluster.deadline_minutes is 5" in output
    lasted(4)
    assert start()[0] == 143


class Clock(datetime):
    """The time of day, which somebody may set."""

    ahead = timedelta(0)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Clock:
        return cls.fromtimestamp(datetime.now(tz).timestamp() + cls.ahead.total_seconds(), tz)


@pytest.mark.parametrize("place", ["_claim", "_work"])
def test_a_clock_that_jumps_within_a_start_takes_nothing_of_the_deadline(
    bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(runs, "datetime", Clock)

    def jump(*_: object) -> None:
        monkeypatch.setattr(Clock, "ahead", timedelta(days=3))
        raise Retry("stopped")

    with monkeypatch.context() as faulty:
        faulty.setattr(supervisor.Supervisor, place, jump)
        assert start()[0] == 143
    monkeypatch.setattr(Clock, "ahead", timedelta(0))
    code, output = start()
    assert code == 0, output
    assert [each["exit_code"] for each in bench.record["attempts"]] == [143, 0]


def test_a_killed_attempt_whose_clock_was_ahead_counts_up_to_now_at_most(
    bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.configure(cluster={"processes_per_node": 1, "deadline_minutes": 30})
    with monkeypatch.context() as faulty:
        faulty.setattr(supervisor.Supervisor, "_work", lambda *_: Outcome(143, "stopped"))
        assert start()[0] == 143
    job = runs.read_job(bench.root, MODEL, "job")
    assert job is not None
    began = datetime.now(UTC) - timedelta(minutes=5)
    runs.write_job(bench.root, replace(job, attempts=(Attempt(began.strftime(TIME_FORMAT)),)))
    ahead = (began + timedelta(days=3)).timestamp()
    os.utime(runs.RunPaths.of(bench.folder).console, (ahead, ahead))
    code, output = start()
    assert code == 0, output
    assert bench.record["attempts"][0]["reason"] == attempts.KILLED


def test_starts_that_find_another_process_at_work_end_alone(bench: Bench, start: Start) -> None:
    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 1})
    with bench.started({"preparation": "wait"}) as other:
        until(other, "ready")
        before = bench.record
        for _ in range(2):
            code, output = start()
            assert code == 143 and "running already in another process" in output
        code, output = start()
        assert code == 1 and "restart budget spent: 2 attempts" in output and "which goes on" in output
        assert bench.record == before
        other.send_signal(signal.SIGINT)
        assert other.wait(timeout=60) == 143, "it was at work all the time"
    # The other one is gone: what waited for it spends nothing of the job's own budget.
    code, output = start()
    assert code == 0, output
    assert len(bench.record["attempts"]) == 2 and not early(bench, locked_out=True).exists()


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
    files.write_json(early(bench), {"config_hash": config_hash(_document(bench), MODEL), "starts": starts})
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
    text = json.dumps({"config_hash": config_hash(_document(bench), MODEL), "starts": [{"started": runs.now()}]})
    early(bench).parent.mkdir(parents=True, exist_ok=True)
    early(bench).write_text(text.replace("}]", r', "reason": "\ud800"}]'))
    assert start()[0] == 143 and len(kept(bench)) == 1


def test_who_lists_the_jobs_sees_none_of_them(bench: Bench, start: Start) -> None:
    unreadable(bench)
    assert start()[0] == 143 and early(bench).exists()
    assert overview.read(bench.root) == [] and runs.runs_at_work(bench.root, MODEL) == set()


def test_a_permanent_end_before_the_claim_leaves_nothing(bench: Bench, start: Start) -> None:
    (bench.root / "rows.jsonl").unlink()
    assert start()[0] == 2 and not early(bench).exists()


def _document(bench: Bench) -> dict[str, object]:
    document: dict[str, object] = load_document(bench.root / "job.yaml")
    return document
