"""What a person is told while an API server does not answer."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SILENT_SECONDS = 5.0  # of an outage, after which a person is told


class Outage:
    """Tells once that a server does not answer, and once that it does again, however many threads ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None  # moment of time.monotonic
        self._told: str | None = None  # who was said not to answer

    @contextmanager
    def awaited(self, whom: str) -> Iterator[None]:
        """Tell of a request that is not answered before the block ends."""
        answered = threading.Event()

        def tell() -> None:
            if answered.wait(_SILENT_SECONDS):
                return
            with self._lock:
                if not self._told and not answered.is_set():
                    self._since = time.monotonic() - _SILENT_SECONDS if self._since is None else self._since
                    self._told = whom
                    print(f"-- {whom} does not answer; still waiting", file=sys.stderr, flush=True)

        threading.Thread(target=tell, daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                answered.set()

    def goes_on(self, whom: str, error: Exception, pause: float) -> None:
        """Note that a request failed and is sent again after a pause, in seconds."""
        with self._lock:
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            if not self._told and now + pause - self._since > _SILENT_SECONDS:
                self._told = whom
                print(f"-- {str(error).splitlines()[0]}; trying again", file=sys.stderr, flush=True)

    def over(self, server: str) -> None:
        """Note that a request was answered."""
        with self._lock:
            if self._told and self._since is not None:
                seconds = time.monotonic() - self._since
                said = f"{server} answers again," if self._told == server else "the answer came"
                print(f"-- {said} after {seconds:.0f} s", file=sys.stderr, flush=True)
            self._since, self._told = None, None

    def forget(self) -> None:
        """Note that the error that is raised now tells more than the end of the outage would."""
        with self._lock:
            self._since, self._told = None, None
