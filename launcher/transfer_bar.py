"""A progress bar over several files, on a terminal; elsewhere nothing is drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from mtft.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """Shows bytes done of all files together, with rate and time left, on standard error."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._before = what, total, 0
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Shown

            name = TextColumn("{task.description}", markup=False)  # `[` is a letter of file names
            columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._progress = Shown(*columns, TimeRemainingColumn(), console=Console(file=sys.stderr))
            self._progress.start()
            self._task = self._progress.add_task(self._what, total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def file(self, name: str, size: int) -> Callable[[int], None]:
        """Begin the next file and return what is told how many bytes of it are done."""
        before = self._before
        self._before += size

        def seen(done: int) -> None:
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, completed=before + done, description=printable(name))

        return seen
