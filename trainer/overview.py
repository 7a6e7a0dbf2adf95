"""``outputs/report.html``: the newest job of every model beside what is current, on one page; torch-free.

Every job writes it again when it ends, so after a batch it shows the whole batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from mtft import exit_codes, files, runs, store
from mtft.errors import InputError
from mtft.models import MODELS
from mtft.runs import Job, RunPaths
from trainer import report, report_leakage, report_scores

T = TypeVar("T")

PAGE = "report.html"
_TONES = ("bad", "fair", "good")
_FAILED = ("bad", "✕", "Failed")
_DAMAGED = ("bad", "✕", "Damaged")
_REMOVED = ("fair", "–", "Removed")
_AT_WORK = ("fair", "…", "Not finished")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What the page says of one model.

    Attributes:
        model: its key.
        job: its newest job; None where no record of one can be read.
        run_id: of that job.
        current: run-id of what the model's users get, or None.
        finished: ``finished.json`` of the job's run; None while there is none.
        batch: name of the job's batch, or None.
        pages: whether the job's run and the current one have a page to point to.
        damage: which of its records cannot be read, and why.
        run_damaged: whether that of the job's run is one of them.
    """

    model: str
    job: Job | None
    run_id: str | None
    current: str | None
    finished: dict[str, Any] | None
    batch: str | None
    pages: tuple[bool, bool]
    damage: tuple[str, ...] = ()
    run_damaged: bool = False

    @property
    def verdict(self) -> tuple[str, str, str]:
        """Tone, sign and words of how the job stands."""
        if self.finished is not None:
            return report.verdict_of(self.finished)
        if self.job is None or self.run_damaged:
            return _DAMAGED
        if self.job.refused:
            return _FAILED
        if self.job.finished:
            return _REMOVED
        code = self.job.attempts[-1].exit_code if self.job.attempts else None
        return _AT_WORK if code in (None, exit_codes.RETRY) else _FAILED

    @property
    def reasons(self) -> list[str]:
        """Why."""
        if self.finished is not None:
            return [*self.damage, *map(str, (self.finished.get("gate") or {}).get("reasons", []))]
        said = self.job and (self.job.refused or (self.job.attempts[-1].reason if self.job.attempts else None))
        return [*self.damage, *([said] if said else [])]

    @property
    def warning(self) -> str | None:
        """Why its scores say too much; None where they do not."""
        return report_leakage.warning(self.finished or {})

    @property
    def ended(self) -> str:
        """When the job ended, or began where it has not."""
        if self.job is None:
            return ""
        told = (self.finished or {}).get("finished_at")
        last = self.job.attempts[-1] if self.job.attempts else None
        return report.time_text(told or (last and (last.ended or last.started)) or self.job.first_started)

    @property
    def directions(self) -> list[report_scores.DirectionScores]:
        """The scores of its test and guard sets."""
        return report_scores.directions(self.finished or {})


def write(root: Path) -> None:
    """Write the page from what lies below a storage root.

    Jobs that end at the same time each look again after writing, so the page that stays is complete.
    """
    written = None
    while written != (found := read(root)):
        files.write_text(root / "outputs" / PAGE, render(found))
        written = found


def read(root: Path) -> list[Entry]:
    """Return the newest job of every model that has one, in the order of the registry."""
    return [entry for model in MODELS if (entry := _entry(root, model))]


def render(entries: list[Entry]) -> str:
    """Return the page as text."""
    counts = Counter(entry.verdict for entry in entries)
    worst = min((entry.verdict for entry in entries), key=lambda it: _TONES.index(it[0]), default=_AT_WORK)
    batches = list(dict.fromkeys(entry.batch for entry in entries if entry.batch))
    return report.page(
        "overview.html.j2",
        at=report.time_text(runs.now()),
        entries=entries,
        counts=counts.most_common(),
        tone=worst[0],
        batches=batches,
    )


def _entry(root: Path, model: str) -> Entry | None:
    jobs, damage = _jobs(root, model)
    current = _or_none(lambda: store.current_id(runs.model_folder(root, model)))
    has_page = bool(current) and RunPaths.at(root, model, str(current)).report.exists()
    none = Entry(
        model=model,
        job=None,
        run_id=None,
        current=current,
        finished=None,
        batch=None,
        pages=(False, has_page),
        damage=tuple(damage),
    )
    if not jobs:
        return none if damage else None
    job = max(jobs, key=lambda job: (job.first_started, job.name))
    paths = RunPaths.at(root, model, job.run_id)
    begun = replace(none, job=job, run_id=job.run_id, batch=_batch(paths), pages=(paths.report.exists(), has_page))
    try:
        finished = store.read_finished(paths) if paths.finished.exists() else None
        entry = replace(begun, finished=finished)
        render([entry])
        return entry
    except Exception as error:  # whatever somebody wrote into it costs the page this row alone
        why = str(error) if isinstance(error, InputError | OSError) else f"{paths.finished}: {_unreadable(error)}"
        return replace(begun, damage=(why, *damage), run_damaged=True)


def _jobs(root: Path, model: str) -> tuple[list[Job], list[str]]:
    """Return the jobs of a model, and what is wrong with each record that cannot be read."""
    jobs, damage = [], []
    for path in sorted(runs.jobs_folder(root, model).glob("*.json")):
        try:
            if job := runs.read_job(root, model, path.stem):
                jobs.append(job)
        except (InputError, OSError) as error:
            damage.append(str(error))
    return jobs, damage


def _unreadable(error: Exception) -> str:
    return f"the record cannot be read ({type(error).__name__}: {error})"


def _batch(paths: RunPaths) -> str | None:
    try:
        batch = files.read_json(paths.provenance)["request"]["pod"]["batch"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(batch) if batch else None


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except (InputError, OSError):
        return None
