"""A look at data before they are pushed: what no trainer could read is not sent. ``data check`` looks at every row."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from mtft.errors import InputError
from mtft.rows import Rejected, read_file
from mtft.sources import SUFFIXES, BrokenStreamError, read_lines

_PARSED = 1000  # rows of each file; the rest is only decoded
_NAMED = 5
_ENDINGS = ", ".join(f"*{suffix}" for suffix in SUFFIXES)


def notes_on(path: Path, data: Sequence[Path]) -> Iterator[str]:
    """Yield what a person should know about data before they are sent.

    Args:
        path: the file or folder that is pushed.
        data: its files that a trainer would read.

    Raises:
        InputError: a file is empty, or compressed and damaged.
    """
    if not data:
        yield f"{path} has no {_ENDINGS} of its own: no trainer reads it as data"
    elif path.is_file() and not path.name.endswith(SUFFIXES):
        yield f"{path} is none of {_ENDINGS}: trainers read it where data.train names it, and pass over it in a folder"
    faults = [f"{each}: {fault}" for each in data if (fault := _first_fault(each))]
    yield from faults[:_NAMED]
    if faults:
        more = f"{len(faults) - _NAMED:,} more files have bad rows; " if len(faults) > _NAMED else ""
        yield f"{more}`mtft-launch data check {shlex.quote(str(path))}` shows every bad row"


def _first_fault(path: Path) -> str | None:
    """Return the first bad row among the first ones, or the first line anywhere that is no UTF-8."""
    for row, _ in islice(read_file(str(path)), _PARSED):
        if isinstance(row, Rejected) and row.whole_file:
            raise _refusal(path, row.reason.partition(": ")[2])
        if isinstance(row, Rejected) and not row.empty:
            return _drained(path) or f"line {row.line} is no row: {row.reason}"
    return _drained(path)


def _drained(path: Path) -> str | None:
    """Read a file to its end, which alone tells whether an archive is whole; return its first line that is no UTF-8."""
    fault = None
    try:
        for number, line in enumerate(read_lines(str(path)), 1):
            if fault is None and not _is_utf8(line):
                fault = f"line {number} is not UTF-8"
    except BrokenStreamError as broken:
        raise _refusal(path, str(broken)) from broken
    return fault


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refusal(path: Path, why: str) -> InputError:
    return InputError(f"{path}: {why}; nothing was sent")
