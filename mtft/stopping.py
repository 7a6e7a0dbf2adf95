"""How long a stopped job may take, in seconds; each must be longer than what it waits for.

longest step and save <= ``STOP_SECONDS`` < ``KILL_AFTER_SECONDS`` < a pod's ``terminationGracePeriodSeconds``
"""

from __future__ import annotations

STOP_SECONDS = 120
"""Time the ranks have to finish the running step and write a checkpoint; torchrun kills them after it."""

KILL_AFTER_SECONDS = STOP_SECONDS + 15
"""Time after which the supervisor kills torchrun, which needs a moment of its own after its ranks are gone."""
