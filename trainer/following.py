"""What another node than node 0 waits for: an attempt that it can join, and how that ends."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mtft import exit_codes, files
from mtft.errors import MtftError
from mtft.runs import Job, RunPaths, now, read_job
from trainer import attempts
from trainer.launching import joined_mark, prepared_mark, tell_lost
from trainer.limits import Limits
from trainer.outcome import Outcome, finished_already
from trainer.processes import Stop
from trainer.reasons import signal_name

_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Following:
    """Another node, which learns of node 0 from the record of the job alone.

    Attributes:
        node: its number, above 0.
        root: storage root.
        model: key of the model.
        job: name of the job.
        limits: of the job.
        stop: ends the waiting.
    """

    node: int
    root: Path
    model: str
    job: str
    limits: Limits
    stop: Stop

    def join(self) -> tuple[RunPaths, int] | Outcome:
        """Wait until node 0 has prepared an attempt; return its run and number, or how this start ends without one."""
        while not self.stop.signals:
            job = self._job()
            if job is not None and self._paths(job).finished.exists():
                return finished_already(job, self._paths(job))
            if job is not None and (refusal := self._past_deadline(job)):
                return Outcome(exit_codes.FAILED, refusal, self._paths(job))
            if job is not None and job.attempts and job.attempts[-1].ended is None:
                paths, number = self._paths(job), len(job.attempts)
                joined = joined_mark(paths, number, self.node)
                if joined.exists():
                    # It is over, though a killed node 0 could not say so; one that is not does not know of it.
                    tell_lost(paths, number, self.node)
                elif prepared_mark(paths, number).exists():
                    files.write_text(joined, f"{now()}\n")
                    return paths, number
            self.stop.wait(_POLL_SECONDS)
        return Outcome(exit_codes.RETRY, f"stopped by {signal_name(self.stop.signals[0])} while waiting for node 0")

    def await_end(self, paths: RunPaths, number: int) -> Outcome | None:
        """Wait, once the ranks here are done, for node 0 to judge and publish, or to try again.

        None: it has published the run, or a stop signal came.
        """
        while not self.stop.signals and not paths.finished.exists():
            job = self._job()
            if job is None or attempts.is_over(job, number):
                if paths.finished.exists():
                    break
                return Outcome(exit_codes.RETRY, "node 0 was lost before it had published the run", paths)
            if refusal := self._past_deadline(job):
                return Outcome(exit_codes.FAILED, refusal, paths)
            self.stop.wait(_POLL_SECONDS)
        return None

    def lost(self, _: RunPaths, number: int) -> str | None:
        """Say that node 0's attempt is over, which a node 0 that vanished says with its next one; None: it is not."""
        with contextlib.suppress(OSError, MtftError):
            job = self._job()
            if job is None or attempts.is_over(job, number):
                return "node 0 was lost"
        return None

    def _job(self) -> Job | None:
        return read_job(self.root, self.model, self.job)

    def _paths(self, job: Job) -> RunPaths:
        return RunPaths.at(self.root, job.model, job.run_id)

    def _past_deadline(self, job: Job) -> str | None:
        return self.limits.past_deadline(job.attempts, attempts.last_sign_of_life(self._paths(job)))
