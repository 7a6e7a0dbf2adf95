"""The log of one pod: whether there is one, and its lines, over cut connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launcher.cluster_errors import Busy, NoConnection
from launcher.job_objects import rank_of
from launcher.labels import CONTAINER
from launcher.log_lines import Line, parse_line

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Object = Mapping[str, Any]

FIRST_WAIT = 0.5  # seconds between two tries to go on reading, doubled each time
_SILENT_TRIES = 2  # after so many a person is told
_PATIENT_SECONDS = 20.0  # a node that hangs is waited for at each try
MOST_IN_VAIN = 6  # tries on a pod that writes no more; a node may lose logs before it loses pods


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which lines are wanted.

    Attributes:
        rank: number of one pod, 0 for the master; None: of all.
        since_s: only those of the last so many seconds; None: from the start.
        tail: only the last so many of each pod; None: all.
    """

    rank: int | None = None
    since_s: float | None = None
    tail: int | None = None

    def has(self, pod: Object) -> bool:
        """Whether a pod's lines are wanted."""
        return self.rank is None or rank_of(pod) == self.rank


def has_started(pod: Object) -> bool:
    """Whether the pod's trainer runs or has run, so that there is a log."""
    for status in (pod.get("status") or {}).get("containerStatuses") or []:
        if status["name"] == CONTAINER:
            return bool(status.keys() & {"state"}) and bool(status["state"].keys() & {"running", "terminated"})
    return False


def has_ended(pod: Object) -> bool:
    """Whether the pod's trainer writes no more."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") or any(
        status["name"] == CONTAINER and "terminated" in (status.get("state") or {}) for status in statuses
    )


def whole_log(
    cluster: Cluster, pod: Object, wanted: Wanted, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Line]:
    """Yield the lines a pod has written so far, over cut connections; ``tell`` hears of one that lasts.

    Raises:
        NoConnection: the connection is cut again and again, with nothing read in between.
        Busy: the server refuses as often.
    """
    last, vain, since = "", 0, time.monotonic()
    while True:
        before = last
        try:
            for line in lines_of(cluster, pod, wanted, last):
                yield line
                last = line.at
            return
        except (NoConnection, Busy) as error:
            name, now = pod["metadata"]["name"], time.monotonic()
            vain, since = (0, now) if last > before else (vain + 1, since)
            hangs = isinstance(error, Busy) and now - since > _PATIENT_SECONDS
            if vain == MOST_IN_VAIN or hangs:
                again = "; run this again" if isinstance(error, NoConnection) else ""
                error.args = (f"the log of {name} is not whole: {error}{again}",)
                raise
            if vain == _SILENT_TRIES:
                tell(f"the log of {name} cannot be read at the moment; trying again")
            time.sleep(FIRST_WAIT * 2.0 ** min(vain, 2))


def lines_of(cluster: Cluster, pod: Object, wanted: Wanted, after: str = "", *, follow: bool = False) -> Iterator[Line]:
    """Yield a pod's lines later than ``after``, the time of the last one that was read."""
    meta, rank = pod["metadata"], rank_of(pod)
    raw = cluster.log(
        meta["name"],
        container=CONTAINER,
        namespace=meta["namespace"],
        follow=follow,
        timestamps=True,
        tail_lines=None if after else wanted.tail,
        since_s=None if after else wanted.since_s,
        # The server goes by whole seconds: what comes twice is left out below.
        since_time=f"{after[:19]}{after[29:]}" if after else None,
    )
    for text in raw:
        line = parse_line(text.decode("utf-8", "replace"), rank, meta["name"])
        if line.at > after or not after:
            yield line
