"""Claiming a run, its record, the restart budget, and what identifies a run's ingredients."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import pytest

from mtft import provenance, runs
from mtft.cluster_config import ClusterConfig
from mtft.errors import InputError
from mtft.runs import TIME_FORMAT, Attempt, Job, RunPaths
from trainer import attempts, limits

JOB = Job(
    name="job", model="opus_mt_en_fr", run_id="20300102T030405Z-00000000", config_hash="c", first_started=runs.now()
)


def test_paths_are_found_again_from_the_folder(tmp_path: Path) -> None:
    paths = RunPaths.at(tmp_path, "m2m100_418m", "20300102T030405Z-0a1b2c3d")
    assert RunPaths.of(paths.folder) == paths
    assert paths.finished == tmp_path / "outputs/m2m100_418m/runs/20300102T030405Z-0a1b2c3d/finished.json"


def test_of_many_claims_exactly_one_wins_and_all_see_it(tmp_path: Path) -> None:
    claims = [replace(JOB, run_id=f"20300102T030405Z-{number:08x}") for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        seen = list(pool.map(lambda job: runs.claim(tmp_path, job), claims))
    assert len({job.run_id for job in seen}) == 1
    assert runs.read_job(tmp_path, JOB.model, JOB.name) == seen[0]
    assert [path.name for path in runs.jobs_folder(tmp_path, JOB.model).iterdir()] == ["job.json"]


def test_a_volume_without_hard_links_is_claimed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert runs.claim(tmp_path, JOB) == JOB
    assert runs.claim(tmp_path, replace(JOB, run_id="20300102T030405Z-11111111")) == JOB


def test_a_repeated_link_request_answered_with_exists_is_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert runs.claim(tmp_path, JOB) == JOB
    assert runs.read_job(tmp_path, JOB.model, JOB.name) == JOB


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"attempts": [{"begun": 1}]}', "[" * 100_000])
def test_a_record_that_is_none_is_reported_with_its_path(tmp_path: Path, text: str) -> None:
    path = runs.job_file(tmp_path, JOB.model, JOB.name)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(InputError, match=r"job\.json: not a job record"):
        runs.read_job(tmp_path, JOB.model, JOB.name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("run_id", name) for name in ("../../../../elsewhere", "/etc", "..", "a/b", "a\0b", "a\n", "", 7, None)),
        *(("model", name) for name in ("../..", "m2m100_418m", None)),
        *(("name", name) for name in ("../../job", "another", None)),
        *(("attempts", [{"started": "2030-01-02T03:04:05Z"} | odd]) for odd in ({"reason": 5}, {"ended": "then"})),
    ],
)
def test_a_record_that_is_damaged_or_leads_out_of_the_store_is_refused(
    tmp_path: Path, field: str, value: object
) -> None:
    path = runs.job_file(tmp_path, JOB.model, JOB.name)
    runs.write_job(tmp_path, JOB)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(InputError, match=r"job\.json: not a job record"):
        runs.read_job(tmp_path, JOB.model, JOB.name)


def test_attempts_are_counted_and_closed(tmp_path: Path) -> None:
    job = attempts.close(attempts.begin(JOB, None, runs.now()), 1, 143, "stopped by SIGTERM")
    runs.write_job(tmp_path, job)
    assert runs.read_job(tmp_path, JOB.model, JOB.name) == job
    assert (job.attempts[0].exit_code, job.finished) == (143, False)
    assert attempts.close(attempts.begin(job, None, runs.now()), 1, 0, "finished").finished


@pytest.mark.parametrize(("made", "restarts", "may"), [(0, 0, True), (1, 0, False), (3, 3, True), (4, 3, False)])
def test_budget(made: int, restarts: int, may: bool) -> None:
    job = replace(JOB, attempts=(Attempt(started=runs.now()),) * made)
    assert (limits.spent_budget(job.attempts, ClusterConfig(max_restarts=restarts), None) is None) == may
    assert limits.spent_budget(job.attempts, ClusterConfig(max_restarts=0), "2030-01-02T03:04:05Z") is None


@pytest.mark.parametrize(
    ("reason", "may"),
    [
        ("preparing the data: killed by SIGKILL", True),
        ("rank 1: killed by SIGKILL", True),
        ("rank 1: killed by the kernel, out of host memory; raise cluster.memory_gib", True),
        (None, True),  # with the supervisor, as where a container is killed as a whole
        ("stopped by SIGTERM", False),
    ],
)
def test_which_ends_may_be_want_of_memory(reason: str | None, may: bool) -> None:
    job = attempts.begin(JOB, None, runs.now())
    job = attempts.settle(job, None) if reason is None else attempts.close(job, 1, 143, reason)
    assert limits.may_lack_memory(job.attempts) == may
    assert ("cluster.memory_gib" in limits.why_ended(job.attempts)) == may
    assert not limits.may_lack_memory(JOB.attempts)


def at(minute: int) -> str:
    return (datetime(2030, 1, 2, tzinfo=UTC) + timedelta(minutes=minute)).strftime(TIME_FORMAT)


def test_the_deadline_counts_the_time_the_attempts_ran() -> None:
    ran = (Attempt(started=at(0), ended=at(5)), Attempt(started=at(600), ended=at(604), retried="once"))
    killed = replace(JOB, attempts=(*ran, Attempt(started=at(900))))
    cluster = ClusterConfig(deadline_minutes=9)
    for sign, left in ((at(903), 60), (at(905), -60), (at(0), 240), (None, 240)):
        seen = runs.parse_time(sign) if sign else None
        assert limits.seconds_left(killed.attempts, cluster, None, seen) == left
        settled = attempts.settle(killed, seen)
        # Once the next start has settled it, no later sign of life changes what it ran.
        assert limits.seconds_left(settled.attempts, cluster, None, runs.parse_time(at(99_999))) == left
        assert settled.attempts[-1].reason == "killed without a word"
    assert attempts.settle(settled, None) is settled
    assert limits.seconds_left(killed.attempts, cluster, "once", None) == 300
    assert limits.seconds_left(killed.attempts, ClusterConfig(deadline_minutes=None), None, None) is None


def test_a_base_folder_is_its_visible_files(tmp_path: Path) -> None:
    def identity() -> str | None:
        return provenance.base_identity("hub/name", str(tmp_path), "ignored")["sha256"]

    (tmp_path / "config.json").write_text("{}")
    first = identity()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "lock").write_text("x")
    assert identity() == first
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    assert identity() != first
    assert provenance.base_identity("hub/name", None, "abc") == {
        "checkpoint": "hub/name",
        "revision": "abc",
        "sha256": None,
    }
    with pytest.raises(InputError, match="not a folder"):
        provenance.base_identity("hub/name", str(tmp_path / "gone"), None)


def test_hashed_texts_are_kept_apart() -> None:
    assert provenance.text_hash("ab", "c") != provenance.text_hash("a", "bc")


def test_data_elsewhere_has_no_identity_and_a_given_one_is_kept(tmp_path: Path) -> None:
    assert provenance.data_identity("s3://bucket/train.jsonl") is None
    assert provenance.data_identity("s3://bucket/train.jsonl", "0" * 64) == "0" * 64
    with pytest.raises(InputError, match="no such file"):
        provenance.data_identity(str(tmp_path / "gone.jsonl"))
