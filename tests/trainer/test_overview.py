"""The page of all models: what it says of each, and that jobs that end together leave a complete one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mtft import files, promotion, runs
from mtft.runs import Attempt, Job, RunPaths
from tests.trainer.test_report import ATTACK, Page, finished, leaked, over_published
from trainer import overview, publishing


def leave_job(root: Path, model: str, name: str, started: str, **changes: Any) -> RunPaths:
    """Write a job record; with ``result`` a finished run, with ``batch`` what its pod knew."""
    result, batch = changes.pop("result", None), changes.pop("batch", None)
    paths = RunPaths.at(root, model, f"{started.replace('-', '').replace(':', '')}-0a1b2c3d")
    attempt = Attempt(started=started, ended=started, **changes)
    runs.jobs_folder(root, model).mkdir(parents=True, exist_ok=True)
    runs.write_job(root, Job(name, model, paths.run_id, "0" * 10, started, (attempt,), result is not None))
    (paths.folder / "lora").mkdir(parents=True)
    files.write_json(paths.provenance, {"request": {"pod": {"batch": batch}}})
    if result is not None:
        (paths.folder / "lora" / "adapter_model.safetensors").write_bytes(b"x")
        files.write_text(paths.report, "page")
        files.write_json(paths.finished, {**result, "deliverable": "lora", "run_id": paths.run_id})
    return paths


def page_of(root: Path) -> Page:
    overview.write(root)
    return Page((root / "outputs" / "report.html").read_text(encoding="utf-8"))


def test_every_model_with_its_newest_job_and_what_is_current(tmp_path: Path) -> None:
    old = leave_job(tmp_path, "opus_mt_en_fr", "a", "2030-01-01T00:00:00Z", result=finished("en-fr"))
    with promotion.changing(tmp_path, "opus_mt_en_fr") as store:
        store.promote(old.run_id, who="me", reason="", force=True)
    worse = finished("en-fr", verdict="regressed")
    new = leave_job(tmp_path, "opus_mt_en_fr", "b", "2030-01-02T00:00:00Z", result=worse, batch="nightly")
    leave_job(tmp_path, "m2m100_418m", "c", "2030-01-02T00:00:01Z", exit_code=2, reason=f"bad data: {ATTACK}")
    leave_job(tmp_path, "opus_mt_fr_en", "d", "2030-01-02T00:00:02Z", exit_code=143, reason="stopped by SIGTERM")
    runs.job_file(tmp_path, "opus_mt_fr_en", "e").write_text("{")

    page = page_of(tmp_path)
    text = page.text()
    assert "nightly" in text and "1 ▼ Worse" in text and "1 ✕ Failed" in text and "1 … Not finished" in text
    assert "45.00 → 58.25" in text and "+13.25" in text
    assert f"bad data: {ATTACK}" in text and "stopped by SIGTERM" in text
    assert f"Users of the model get {old.run_id}" in text
    linked = {attributes["href"] for tag, attributes in page.tags if tag == "a"}
    assert linked == {f"opus_mt_en_fr/runs/{each.run_id}/report.html" for each in (old, new)}
    assert all((tmp_path / "outputs" / str(link)).is_file() for link in linked)


def test_a_finished_run_that_was_removed_since_has_not_failed(tmp_path: Path) -> None:
    paths = leave_job(
        tmp_path, "opus_mt_en_fr", "a", "2030-01-01T00:00:00Z", result=finished("en-fr"), exit_code=0, reason="finished"
    )
    shutil.rmtree(paths.folder)
    text = page_of(tmp_path).text()
    assert "Removed" in text and "Failed" not in text


def test_a_loss_against_the_published_run_is_marked_beside_the_gain_over_the_base(tmp_path: Path) -> None:
    worse = over_published(finished("en-fr", verdict="regressed"), 60.0, 0.0002, 0.0)
    leave_job(tmp_path, "opus_mt_en_fr", "a", "2030-01-01T00:00:00Z", result=worse)
    page = page_of(tmp_path)
    assert page.text().count("45.00 → 58.25 +13.25 −1.75 against published") == 2, "of test and of the guard set"
    assert [its["class"] for tag, its in page.tags if tag == "small" and "class" in its] == ["bad", "same"] * 2


@pytest.mark.parametrize("pairs", [23, 0])
def test_a_model_scored_on_test_rows_that_training_shows_is_marked(tmp_path: Path, pairs: int) -> None:
    result = finished("en-fr", verdict="promoted") | {"leakage": leaked(pairs)}
    leave_job(tmp_path, "opus_mt_en_fr", "a", "2030-01-01T00:00:00Z", result=result)
    text = page_of(tmp_path).text()
    assert ("promoted ⚠ test rows in training" in text) == (pairs > 0)
    assert (f"{pairs} of 24 test rows are training rows too" in text) == (pairs > 0)


@pytest.mark.parametrize(
    "odd",
    [
        {"scores": None},
        {"scores": {"base": {"en-fr": {"chrf": "x"}}, "tuned": {"en-fr": {"chrf": 1.0}}}},
        {"scores": {"base": {"en-fr": {}}, "tuned": {"en-fr": {"n": "x"}}}},
        {"finished_at": 5},
        {"leakage": 5},
        {"gate": 5},
        {"deliverable": "other"},
    ],
)
def test_a_run_whose_record_is_odd_costs_its_own_row_alone(tmp_path: Path, odd: dict[str, Any]) -> None:
    leave_job(tmp_path, "m2m100_418m", "a", "2030-01-01T00:00:00Z", result=finished("en-fr", verdict="promoted"))
    damaged = leave_job(tmp_path, "opus_mt_en_fr", "b", "2030-01-02T00:00:00Z", result=finished("en-fr"))
    files.write_json(damaged.finished, files.read_json(damaged.finished) | odd)
    text = page_of(tmp_path).text()
    assert "45.00 → 58.25" in text and "1 ✕ Damaged" in text
    assert "opus_mt_en_fr: damaged" in text and str(damaged.folder) in text and f"run {damaged.run_id}" in text


@pytest.mark.parametrize("odd", [{"first_started": 7}, {"attempts": [{"started": 7}]}, {"attempts": 7}, {"run_id": 7}])
@pytest.mark.parametrize("others", [0, 1])
def test_a_job_whose_record_is_odd_is_told_beside_the_others(tmp_path: Path, odd: dict[str, Any], others: int) -> None:
    leave_job(tmp_path, "opus_mt_en_fr", "b", "2030-01-02T00:00:00Z", result=finished("en-fr"))
    record = runs.job_file(tmp_path, "opus_mt_en_fr", "b")
    files.write_json(record, files.read_json(record) | odd)
    if others:
        leave_job(tmp_path, "opus_mt_en_fr", "a", "2030-01-01T00:00:00Z", exit_code=3, reason="diverged")
    text = page_of(tmp_path).text()
    assert str(record) in text and ("1 ✕ Failed" if others else "1 ✕ Damaged") in text
    assert ("diverged" in text and "Job a, run" in text) == bool(others)


def test_a_job_that_ends_while_the_page_is_written_is_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_job(tmp_path, "opus_mt_en_fr", "a", "2030-01-01T00:00:00Z", result=finished("en-fr"))
    write_text = files.write_text

    def slow(path: Path, text: str) -> None:
        if path.name == "report.html" and not runs.jobs_folder(tmp_path, "m2m100_418m").exists():
            leave_job(tmp_path, "m2m100_418m", "b", "2030-01-01T00:00:01Z", exit_code=3, reason="diverged")
        write_text(path, text)

    monkeypatch.setattr(files, "write_text", slow)
    assert "diverged" in page_of(tmp_path).text()


def test_a_page_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "report.html").mkdir(parents=True)
    said: list[str] = []
    publishing.write_overview(tmp_path, said.append)
    assert len(said) == 1 and "could not be written" in said[0]


def test_nothing_trained_yet(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    assert "No model has a job yet" in page_of(tmp_path).text()
    assert json.dumps(overview.read(tmp_path)) == "[]"
