"""What watches and questions in threads of their own bring, taken by one thread that can also stop waiting for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from launcher.cluster_errors import Busy, NoConnection
from launcher.resources import Resource

if TYPE_CHECKING:
    from launcher.cluster import Cluster, Listing

_PAUSE = 1.0  # seconds until a thing is given again
_MOST_IN_VAIN = 60  # times in a row, as many as a watch is opened anew


class Feed:
    """A queue that threads fill until ``stopped`` is set; an error of theirs is raised where it is taken."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.stopped = cluster, threading.Event()
        self._things: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._kept: Any = None
        self._in_vain = 0

    def put(self, thing: Any) -> None:
        """Add one thing."""
        self._things.put(thing)

    def take(self, seconds: float) -> Any:
        """Return the next thing, None where there is none for so long.

        Raises:
            Exception: what ended a thread.
        """
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept
        try:
            thing = self._things.get(timeout=seconds) if seconds > 0 else self._things.get_nowait()
        except queue.Empty:
            return None
        if isinstance(thing, Exception):
            raise thing
        return thing

    @contextmanager
    def dealing_with(self, thing: Any) -> Iterator[None]:
        """Give a thing again, before any later one, where the server does not answer what is asked about it.

        Raises:
            ClusterError: it refuses, or has not answered for several minutes.
        """
        try:
            yield
        except (NoConnection, Busy):
            self._in_vain += 1
            if self._in_vain > _MOST_IN_VAIN:
                raise
            self._kept = thing
            self.stopped.wait(_PAUSE)
        else:
            self._in_vain = 0

    def watch(
        self, resource: Resource, selector: str, *, namespace: str | None = None, after: Listing | None = None
    ) -> None:
        """Bring every change of the objects that fit."""

        def changes() -> None:
            try:
                for change in self.cluster.watch(
                    resource, selector=selector, namespace=namespace, after=after, stopped=self.stopped
                ):
                    if self.stopped.is_set():
                        return
                    self.put(change)
            except Exception as error:
                self.put(error)

        self.start(changes)

    def repeat(self, ask: Callable[[], Iterable[Any]], *, first: float, every: float) -> None:
        """Bring what is answered after ``first`` seconds, then ``every`` so many, counted from the last answer."""

        def asking() -> None:
            seconds = first
            while not self.stopped.wait(seconds):
                seconds = every
                try:
                    answers = list(ask())
                except Exception as error:
                    self.put(error)
                    return
                for each in answers:
                    self.put(each)

        self.start(asking)

    def start(self, work: Callable[[], None]) -> threading.Thread:
        """Do work in a thread that does not keep the program alive."""
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread
