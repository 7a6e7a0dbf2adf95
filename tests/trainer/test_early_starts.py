"""Starts of a job that come to no attempt count towards its restart budget and its deadline as well."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from mtft import files, runs
from mtft.errors import Retry
from mtft.naming import config_hash
from mtft.runs import TIME_FORMAT, Attempt
from tests.trainer.early import document, early, keep, kept, readable, unreadable, write_claimed
from tests.trainer.supervising import MODEL, Bench, Start, until
from trainer import attempts, early_starts, supervisor
from trainer.outcome import Outcome


@pytest.mark.parametrize("retried", [None, "2029-01-02T03:04:05Z"])
def test_starts_that_cannot_read_the_inputs_spend_the_budget(
    bench: Bench, start: Start, retried: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if retried:
        (bench.root / "retried").write_text(retried)
    monkeypatch.setenv("MTFT_NAMESPACE", "team")
    test = unreadable(bench, max_restarts=1)
    for _ in range(2):
        code, output = start()
        assert code == 143 and "Input/output error" in output
    for _ in range(2):
        code, output = start()
        assert code == 1 and "restart budget spent: 2 attempts, cluster.max_restarts is 1; last: " in output
        assert "Input/output error" in output
        assert "`mtft-launch retry job -n team` goes on with a fresh budget" in output
    readable(test)
    assert start()[0] == 1, "only a retry begins anew"
    (bench.root / "retried").write_text("2030-01-02T03:04:05Z")
    code, output = start()
    assert code == 0, output


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
    job = runs.Job("job", MODEL, "r1", config_hash(document(bench), MODEL), runs.now())
    write_claimed(bench, job)  # claimed, then killed before its first attempt
    for _ in range(2):
        code, output = start()
        assert code == 1 and "restart budget spent: 1 attempts" in output
    assert [each["exit_code"] for each in bench.record["attempts"]] == [143]
    assert "restart budget spent" in bench.record["refused"]


class KilledError(BaseException):
    """Nothing of this process runs after a kill."""


def killed(*_: object) -> None:
    raise KilledError


@pytest.mark.parametrize("retried", [None, "2030-01-02T03:04:05Z"])
def test_a_start_that_is_killed_while_it_reads_the_inputs_counts(
    bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch, retried: str | None
) -> None:
    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 0})
    if retried:
        (bench.root / "retried").write_text(retried)
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
    job = runs.Job("job", MODEL, "r1", config_hash(document(bench), MODEL), runs.now())
    before = tuple(Attempt(**each) for each in kept(bench))
    write_claimed(bench, attempts.fold(job, before).with_attempt(ran))
    files.write_json(runs.RunPaths.at(bench.root, MODEL, "r1").provenance, {})
    start()
    assert len(bench.record["attempts"]) == 3


def test_a_start_that_is_killed_once_it_stands_in_the_record_counts_once(
    bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = (datetime.now(UTC) - timedelta(minutes=1)).strftime(TIME_FORMAT)
    with monkeypatch.context() as faulty:
        faulty.setattr(early_starts, "now", lambda: began)
        faulty.setattr(early_starts.EarlyStarts, "forget", killed)
        with pytest.raises(KilledError):
            start()
    assert len(kept(bench)) == 1 == len(bench.record["attempts"])
    assert start()[0] == 0
    assert [each["exit_code"] for each in bench.record["attempts"]] == [None, 0]


def test_an_attempt_stands_in_the_record_alone(bench: Bench, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.configure(cluster={"processes_per_node": 1, "max_restarts": 0})
    with monkeypatch.context() as faulty:
        faulty.setattr(supervisor.Supervisor, "_work", lambda *_: Outcome(143, "stopped"))
        assert start()[0] == 143
    assert start()[0] == 1
    runs.job_file(bench.root, MODEL, "job").unlink()
    code, output = start()
    assert code == 0, output


def test_a_killed_attempt_is_ended_though_other_starts_followed(bench: Bench, start: Start) -> None:
    job = runs.Job("job", MODEL, "r1", config_hash(document(bench), MODEL), runs.now())
    write_claimed(bench, job.with_attempt(Attempt("2030-01-02T03:04:05Z")))
    followed = Attempt("2030-01-02T04:04:05Z", ended="2030-01-02T04:04:06Z", exit_code=143, reason="x")
    keep(bench, asdict(followed))
    code, output = start()
    assert code == 0, output
    first, second, _ = bench.record["attempts"]
    assert (first["ended"], first["reason"], second) == (first["started"], attempts.KILLED, asdict(followed))


def test_where_a_person_starts_every_attempt_nothing_is_counted(bench: Bench, start: Start, attended: Start) -> None:
    test = unreadable(bench, max_restarts=0)
    for _ in range(3):
        code, output = attended()
        assert code == 143 and "Input/output error" in output
    readable(test)
    code, output = start()
    assert code == 0, output
    assert [each["exit_code"] for each in bench.record["attempts"]] == [0]


def test_a_clock_that_was_set_back_gives_no_time(bench: Bench, start: Start) -> None:
    unreadable(bench, deadline_minutes=5)
    began = datetime.now(UTC) - timedelta(days=1)
    ends = (began + timedelta(minutes=6), began - timedelta(days=1))
    early(bench).parent.mkdir(parents=True)
    keep(bench, *(asdict(Attempt(began.strftime(TIME_FORMAT), ended=end.strftime(TIME_FORMAT))) for end in ends))
    code, output = start()
    assert code == 1 and "deadline passed" in output


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
    write_claimed(bench, replace(job, attempts=(Attempt(began.strftime(TIME_FORMAT)),)))
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


def test_a_permanent_end_before_the_claim_leaves_nothing(bench: Bench, start: Start) -> None:
    (bench.root / "rows.jsonl").unlink()
    assert start()[0] == 2 and not early(bench).exists()
