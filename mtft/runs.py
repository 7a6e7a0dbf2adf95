"""Where everything of a run lies, and how a job gets its run.

``outputs/<model>/jobs/<job>.json`` names the run of a job. It is claimed once; every restart reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtft import files
from mtft.errors import InputError

RETRIED_FILE = "retried"
"""Beside a job's configuration: written by each retry and resume, so that attempts before it no longer count."""
JOB_UID_FILE = "job-uid"
"""Beside a job's configuration: UID of the PyTorchJob, written by the launcher that made it."""
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class RunPaths:
    """Every path of one run; its folder is ``<root>/outputs/<model>/runs/<run_id>`` unless somebody moved it.

    Attributes:
        folder: the run directory itself.
    """

    folder: Path

    @classmethod
    def of(cls, folder: Path) -> RunPaths:
        """Return the paths of the run whose folder this is."""
        return cls(folder.absolute())

    @classmethod
    def at(cls, root: Path, model: str, run_id: str) -> RunPaths:
        """Return the paths of a run below a storage root."""
        return cls(model_folder(root, model) / "runs" / run_id)

    @property
    def run_id(self) -> str:
        """The run-id, which is the folder's name."""
        return self.folder.name

    @property
    def model(self) -> str:
        """Key of the model, of a run in its place."""
        return self.folder.parents[1].name

    @property
    def root(self) -> Path:
        """The storage root, of a run in its place."""
        return self.folder.parents[3]

    def deliverable(self, method: str) -> Path:
        """Return what a run makes: ``lora/``, or ``model/`` of method full."""
        return self.folder / "model" if method == "full" else self.lora

    @property
    def checkpoints(self) -> Path:
        """``checkpoints/``, one ``step-<n>`` each."""
        return self.folder / "checkpoints"

    @property
    def lora(self) -> Path:
        """``lora/``, the deliverable."""
        return self.folder / "lora"

    @property
    def eval(self) -> Path:
        """``eval/``, one file of scored sentences per direction."""
        return self.folder / "eval"

    @property
    def logs(self) -> Path:
        """``logs/``: TensorBoard and the reason files of every attempt."""
        return self.folder / "logs"

    @property
    def metrics(self) -> Path:
        """``metrics.jsonl``: every logged step and evaluation."""
        return self.folder / "metrics.jsonl"

    @property
    def config(self) -> Path:
        """``config.yaml``: the effective configuration as it was claimed, placed as the last start was."""
        return self.folder / "config.yaml"

    @property
    def provenance(self) -> Path:
        """``provenance.json``: what went into the run."""
        return self.folder / "provenance.json"

    @property
    def prepared(self) -> Path:
        """``prepared.json``: which tokenised data below ``cache/`` the run uses."""
        return self.folder / "prepared.json"

    @property
    def finished(self) -> Path:
        """``finished.json``: written last and only on success."""
        return self.folder / "finished.json"

    @property
    def rejected(self) -> Path:
        """``rejected.jsonl``: dropped rows with their reasons."""
        return self.folder / "rejected.jsonl"

    @property
    def report(self) -> Path:
        """``report.html``: the self-contained page."""
        return self.folder / "report.html"

    @property
    def console(self) -> Path:
        """``console_output.txt``: what a person saw."""
        return self.folder / "console_output.txt"

    def attempt(self, number: int) -> Path:
        """Return the folder of the reason files of one attempt, counted from 1."""
        return self.logs / f"attempt-{number}"


@dataclass(frozen=True)
class Attempt:
    """One start of a job.

    Attributes:
        started: when it began.
        ended: None while it runs, or until the next start finds that it was killed without a word.
        exit_code: None when it was killed.
        reason: why it ended.
        retried: when the job was last retried: the budget it counts towards.
    """

    started: str
    ended: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    retried: str | None = None


@dataclass(frozen=True)
class Job:
    """The record of a job: which run is its own, and what happened so far. Times are UTC.

    ``refused`` says why a start was refused, when none has begun since.
    """

    name: str
    model: str
    run_id: str
    config_hash: str
    first_started: str
    attempts: tuple[Attempt, ...] = ()
    finished: bool = False
    refused: str | None = None

    def with_attempt(self, attempt: Attempt) -> Job:
        """Return the record with one more attempt."""
        return replace(self, attempts=(*self.attempts, attempt), refused=None)

    def with_last_attempt(self, **changes: Any) -> Job:
        """Return the record with its newest attempt changed."""
        return replace(self, attempts=(*self.attempts[:-1], replace(self.attempts[-1], **changes)))


def model_folder(root: Path, model: str) -> Path:
    """Return the folder below which everything of one model is written."""
    return root / "outputs" / model


def jobs_folder(root: Path, model: str) -> Path:
    """Return the folder of a model's job records and job configurations."""
    return model_folder(root, model) / "jobs"


def job_file(root: Path, model: str, name: str) -> Path:
    """Return the path of the record of one job."""
    return jobs_folder(root, model) / f"{name}.json"


def early_starts_file(root: Path, model: str, name: str, *, locked_out: bool) -> Path:
    """Return the path of the starts of one job that came to no attempt; no ``.json``, as each of those is a job."""
    return jobs_folder(root, model) / f".{name}.{'locked-out' if locked_out else 'early'}"


def now() -> str:
    """Return the time as it is written in records: UTC, to the second."""
    return datetime.now(UTC).strftime(TIME_FORMAT)


def parse_time(text: str) -> datetime:
    """Read a time written by :func:`now`."""
    return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)


def new_run_id(short_hash: str) -> str:
    """Return a run-id: UTC time and the first 8 digits of a hash, for example 20300102T030405Z-0a1b2c3d."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{short_hash[:8]}"


def check_run_id(text: object) -> str:
    """Return a run-id that is one plain file name.

    Raises:
        InputError: it is not, so a path made with it could lead anywhere.
    """
    if not isinstance(text, str) or not RUN_ID.fullmatch(text):
        raise InputError(
            f"{text!r} is not a run-id; allowed: letters, digits, '.', '_' and '-', as below runs/, "
            "for example 20300102T030405Z-0a1b2c3d"
        )
    return text


def attempt_of(values: dict[str, Any]) -> Attempt:
    """Return an attempt as a record has it.

    Raises:
        ValueError: it is damaged; TypeError likewise.
    """
    attempt = Attempt(**values)
    texts = (attempt.reason, attempt.retried)
    if not all(isinstance(each, str | None) for each in texts) or not isinstance(attempt.exit_code, int | None):
        raise TypeError(f"no attempt: {attempt}")
    "".join(each or "" for each in texts).encode()  # JSON can name half a character, which no record takes
    parse_time(attempt.started)
    if attempt.ended is not None:
        parse_time(attempt.ended)
    return attempt


def read_job(root: Path, model: str, name: str) -> Job | None:
    """Return the record of a job, or None when nobody claimed it yet.

    Raises:
        InputError: it cannot be understood, is of another job, or names a run outside the store.
    """
    path = job_file(root, model, name)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        attempts = tuple(map(attempt_of, values.pop("attempts")))
        job = Job(**values, attempts=attempts)
        check_run_id(job.run_id)
        parse_time(job.first_started)
        if (job.model, job.name) != (model, name):
            raise ValueError(f"it is one of job {job.name!r} of model {job.model!r}")
        return job
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InputError) as error:
        raise InputError(f"{path}: not a job record of this version ({error}); move it away to start anew") from None


def claim(root: Path, job: Job) -> Job:
    """Make ``job`` the record of its name, or return the record that was there first.

    The record is written beside and linked to its name: linking fails where the name exists, on NFS too.
    """
    path = job_file(root, job.model, job.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.claim")
    try:
        files.write_json(beside, asdict(job))
        if not files.link_new(beside, path):
            return _present(root, job)
        return job
    finally:
        beside.unlink(missing_ok=True)


def write_job(root: Path, job: Job) -> None:
    """Replace the record of a job; only the supervisor of node 0, which holds the job's lock, does so."""
    files.write_json(job_file(root, job.model, job.name), asdict(job))


def runs_at_work(root: Path, model: str) -> set[str]:
    """Return the run-ids of jobs that run now, or whose last start was killed without a word.

    And of jobs that never started one: they took over a finished run, or are about to start theirs.
    """
    names = [path.stem for path in jobs_folder(root, model).glob("*.json")]
    jobs = [job for name in names if (job := read_job(root, model, name))]
    return {job.run_id for job in jobs if not job.attempts or job.attempts[-1].ended is None}


@contextlib.contextmanager
def job_lock(root: Path, model: str, name: str) -> Iterator[bool]:
    """Hold a job for this process; give False when another process holds it.

    The lock ends with the process, however it ends. A volume without locks gives True.
    """
    import fcntl

    path = jobs_folder(root, model) / f".{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            yield False
            return
        except OSError:
            yield True
            return
        yield True


def _present(root: Path, job: Job) -> Job:
    found = read_job(root, job.model, job.name)
    if found is None:
        raise InputError(f"{job_file(root, job.model, job.name)}: claimed by another process, then removed; run again")
    return found
