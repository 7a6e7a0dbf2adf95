"""A job whose starts come to no attempt, and the file in which they are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtft import files, runs
from mtft.naming import config_hash
from mtft.settings import load_document
from tests.trainer.supervising import MODEL, Bench


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
    files.write_json(early(bench), {"config_hash": config_hash(document(bench), MODEL), "starts": starts})


def document(bench: Bench) -> dict[str, object]:
    document: dict[str, object] = load_document(bench.root / "job.yaml")
    return document


def write_claimed(bench: Bench, job: runs.Job) -> None:
    """Write a job's record, and what is written of its run before there is one."""
    files.write_text(runs.RunPaths.at(bench.root, job.model, job.run_id).config, "{}\n")
    runs.write_job(bench.root, job)
