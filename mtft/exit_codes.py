"""Exit codes of the trainer and the launcher; the one place they are written."""

from __future__ import annotations

# Both programs.
DONE = 0
FAILED = 1
BAD_INPUT = 2

# Trainer. 1-127 are permanent for the operator, 128 and above are retried.
DIVERGED = 3
RETRY = 143

# Launcher.
CLUSTER_REFUSED = 3
NOT_PROMOTED = 4
WAIT_TIMED_OUT = 124
INTERRUPTED = 130

# The gate's verdicts.
PROMOTED = "promoted"
BETTER = "better"
"""May be promoted, and is not by itself: ``gate.promote: never``."""
NOT_BETTER = "not better"
REGRESSED = "regressed"
PROMOTABLE = (PROMOTED, BETTER)

# A batch exits with the worst code of its jobs, in this order.
WORST_FIRST = (INTERRUPTED, CLUSTER_REFUSED, BAD_INPUT, FAILED, WAIT_TIMED_OUT, NOT_PROMOTED, DONE)


def of_verdict(verdict: str | None) -> int:
    """Return the launcher's exit code for a job that trained; a verdict that nobody kept counts as done."""
    return DONE if verdict is None or verdict in PROMOTABLE else NOT_PROMOTED


def worst(codes: list[int]) -> int:
    """Return the exit code of a batch from those of its jobs; an unknown code counts as failed."""
    known = {code if code in WORST_FIRST else FAILED for code in codes}
    return next((code for code in WORST_FIRST if code in known), DONE)
