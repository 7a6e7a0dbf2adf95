"""Starts of a job that have not begun an attempt, kept beside its record so that they count as well.

A start is written down before anything that can fail, and becomes part of the job's record with the next attempt. One
that finds the job running in another process is kept apart: the record and what leads to it are the other's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from mtft import exit_codes, files
from mtft.errors import may_pass
from mtft.runs import Attempt, attempt_of, early_starts_file, now
from trainer.attempts import KILLED, after
from trainer.outcome import Outcome


class EarlyStarts:
    """The starts before this one, and this one until it begins an attempt.

    Args:
        root: storage root.
        model: key of the model.
        job: name of the job.
        config_hash: of its configuration; starts of another one under the same name count nothing.
        retried: the budget this start counts towards.
        say: told that the volume takes no record.
        locked_out: another process has the job.

    Attributes:
        before: ended starts that came to no attempt.
        started: when this start began.
    """

    def __init__(
        self,
        root: Path,
        model: str,
        job: str,
        config_hash: str,
        *,
        retried: str | None,
        say: Callable[[str], object],
        locked_out: bool,
    ) -> None:
        self._path = early_starts_file(root, model, job, locked_out=locked_out)
        self._retried, self._config_hash, self._say = retried, config_hash, say
        self._noted = False
        self.started, self._began = now(), time.monotonic()
        self.before = _read(self._path, config_hash)
        if not locked_out:  # who has the job is held up by nobody any more
            _remove(early_starts_file(root, model, job, locked_out=True))

    def note(self) -> None:
        """Write this start down."""
        self._noted = self._write(Attempt(started=self.started, retried=self._retried))

    def seconds(self) -> float:
        """Return how long this start has run."""
        return time.monotonic() - self._began

    def end(self, outcome: Outcome) -> None:
        """Write down how this start ended without an attempt, where the same may be tried again."""
        if not self._noted:
            return
        if outcome.exit_code == exit_codes.RETRY:
            ended, code = after(self.started, self.seconds()), outcome.exit_code
            self._write(Attempt(self.started, ended, exit_code=code, reason=outcome.text, retried=self._retried))
        elif outcome.exit_code == exit_codes.FAILED:
            self._write()  # refused, as those before it spent the budget; itself it spent nothing
        else:
            self.forget()

    def forget(self) -> None:
        """Remove what is kept here: it stands in the job's record, or nothing starts the job again."""
        _remove(self._path)
        self._noted = False

    def _write(self, *mine: Attempt) -> bool:
        starts = [asdict(each) for each in (*self.before, *mine)]
        try:
            files.write_json(self._path, {"config_hash": self._config_hash, "starts": starts})
        except OSError as error:
            self._say(f"note: {self._path}: {error.strerror}; this start is not counted unless it begins its work")
            return False
        return True


def _read(path: Path, config_hash: str) -> tuple[Attempt, ...]:
    """Return the starts of this configuration in a file.

    The killed ones ended when they began: nobody knows how long they ran.

    Raises:
        OSError: the volume does not answer; what it holds is not to be forgotten for that.
    """
    try:
        kept = files.read_json(path)
        if kept["config_hash"] != config_hash:
            return ()
        found = [attempt_of(each) for each in kept["starts"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        if may_pass(error):
            raise
        return ()
    return tuple(each if each.ended else replace(each, ended=each.started, reason=KILLED) for each in found)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # what stays there counts too much, never too little
