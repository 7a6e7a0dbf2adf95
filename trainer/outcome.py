"""How an attempt ended, told to the person and to the cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtft import exit_codes, files
from mtft.errors import MtftError
from mtft.runs import Job, RunPaths
from mtft.text import printable_lines
from trainer.reasons import USER_ERRNOS, advice_on

TERMINATION_LOG = Path("/dev/termination-log")
_TERMINATION_BYTES = 4096  # the kubelet keeps no more
_REASON_CHARACTERS = 800

_LABELS = {
    exit_codes.DONE: "done",
    exit_codes.BAD_INPUT: "bad input",
    exit_codes.DIVERGED: "diverged",
    exit_codes.RETRY: "stopped, another start continues",
}


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended; ``paths`` is None when it ended before there was a run, ``attempt`` when none began."""

    exit_code: int
    text: str
    paths: RunPaths | None = None
    attempt: int | None = None

    def line(self) -> str:
        """Return the verdict and where things are."""
        label = _LABELS.get(self.exit_code, "failed")
        where = f" [{self.paths.folder}]" if self.paths else ""
        return printable_lines(f"{label} (exit {self.exit_code}): {self.text}{where}")

    def termination_message(self) -> str:
        """Return one line of JSON for the kubelet: exit code, reason, run-id and, when finished, what came of it.

        That is ``finished.json`` where it fits, else scores, rates, verdict and as many of its reasons as fit.
        """
        message: dict[str, Any] = {"exit_code": self.exit_code, "reason": self.text[:_REASON_CHARACTERS]}
        if self.paths:
            message["run_id"] = self.paths.run_id
        if self.attempt:
            message["attempt"] = self.attempt
        if self.paths and self.exit_code == exit_codes.DONE and self.paths.finished.exists():
            finished = json.loads(self.paths.finished.read_text(encoding="utf-8"))
            for kept in _shorter_and_shorter(finished):
                message["finished"] = kept
                if len(_dump(message).encode()) <= _TERMINATION_BYTES:
                    break
        return _dump(message)


def failed(error: MtftError | OSError, paths: RunPaths | None = None) -> Outcome:
    """Return how an error that reached the supervisor ends the attempt."""
    if isinstance(error, MtftError):
        return Outcome(error.exit_code, str(error), paths)
    code = exit_codes.BAD_INPUT if error.errno in USER_ERRNOS else exit_codes.RETRY
    where = f"{error.filename}: " if error.filename else ""
    advice = advice_on(error) or "check storage.root"
    return Outcome(code, f"{where}{error.strerror or error}; {advice}", paths)


def finished_already(job: Job, paths: RunPaths) -> Outcome:
    """Return how a start ends whose run is finished."""
    if not job.attempts:
        same = "has the same data, base, configuration and code; --rerun trains all the same"
        return Outcome(exit_codes.DONE, f"nothing to retrain: run {job.run_id} {same}", paths)
    return Outcome(exit_codes.DONE, f"job {job.name} is finished already; nothing to do", paths)


def write_termination_message(outcome: Outcome, path: Path = TERMINATION_LOG) -> None:
    """Leave the outcome where the kubelet reads it; outside a pod there is no such file and nothing is written."""
    try:
        if path.exists():
            path.write_text(outcome.termination_message(), encoding="utf-8")
    except OSError:
        return  # the exit code says the most important part


def _shorter_and_shorter(finished: dict[str, Any]) -> Iterator[dict[str, Any]]:
    gate, scores = finished.get("gate", {}), finished.get("scores", {})
    systems = {name: scores.get(name) for name in ("base", "tuned")}
    systems["published"] = (finished.get("published") or {}).get("scores")
    brief = {name: _numbers(its) for name, its in systems.items() if its is not None}
    reasons = gate.get("reasons", [])
    yield finished
    for count in range(len(reasons), 0, -1):
        yield {"scores": brief, "gate": {"verdict": gate.get("verdict"), "reasons": reasons[:count]}}
    yield {"scores": brief, "gate": {"verdict": gate.get("verdict")}}
    yield {"gate": {"verdict": gate.get("verdict")}}


def _numbers(directions: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return scores and rates of a system with as many digits as anybody reads."""
    return {
        direction: {name: round(value, 4) for name, value in its.items() if isinstance(value, int | float)}
        for direction, its in directions.items()
    }


def _dump(message: dict[str, Any]) -> str:
    return files.json_line(message).rstrip("\n")
