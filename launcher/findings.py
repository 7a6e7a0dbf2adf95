"""What the doctor finds: one line a layer, with a verdict and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """One layer looked at.

    Attributes:
        layer: what was looked at.
        verdict: ``skip`` when it could not be looked at, which is no fault.
        message: what was found.
        fix: what a person can do; None where nothing is to be done.
    """

    layer: str
    verdict: Verdict
    message: str
    fix: str | None = None


def ok(layer: str, message: str) -> Finding:
    """Return a layer that is in order."""
    return Finding(layer, "ok", message)


def warn(layer: str, message: str, fix: str | None = None) -> Finding:
    """Return a layer that may stop a job, or slows one down."""
    return Finding(layer, "warn", message, fix)


def fail(layer: str, message: str, fix: str) -> Finding:
    """Return a layer that stops every job."""
    return Finding(layer, "fail", message, fix)


def skip(layer: str, message: str, fix: str | None = None) -> Finding:
    """Return a layer that could not be looked at, or that nothing asks for."""
    return Finding(layer, "skip", message, fix)
