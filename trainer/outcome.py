"""How an attempt ended, told to the person and to the cluster."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtft import exit_codes
from mtft.runs import RunPaths

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
        return f"{label} (exit {self.exit_code}): {self.text}{where}"

    def termination_message(self) -> str:
        """Return one line of JSON for the kubelet: exit code, reason, run-id and, when finished, the scores."""
        message: dict[str, Any] = {"exit_code": self.exit_code, "reason": self.text[:_REASON_CHARACTERS]}
        if self.paths:
            message["run_id"] = self.paths.run_id
        if self.attempt:
            message["attempt"] = self.attempt
        if self.paths and self.exit_code == exit_codes.DONE and self.paths.finished.exists():
            finished = json.loads(self.paths.finished.read_text(encoding="utf-8"))
            verdict = {"gate": {"verdict": finished.get("gate", {}).get("verdict")}}
            for kept in (finished, {"scores": finished.get("scores"), **verdict}, verdict):
                message["finished"] = kept
                if len(_dump(message).encode()) <= _TERMINATION_BYTES:
                    break
        return _dump(message)


def write_termination_message(outcome: Outcome, path: Path = TERMINATION_LOG) -> None:
    """Leave the outcome where the kubelet reads it; outside a pod there is no such file and nothing is written."""
    try:
        if path.exists():
            path.write_text(outcome.termination_message(), encoding="utf-8")
    except OSError:
        return  # the exit code says the most important part


def _dump(message: dict[str, Any]) -> str:
    return json.dumps(message, ensure_ascii=False)
