"""What a verb prints: an aligned table for people, JSON or YAML for programs."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO

from mtft.text import printable

_LONGEST_VALUE = 80  # characters
_unread = threading.Event()


def print_rows(rows: Sequence[Mapping[str, Any]], output_format: str) -> None:
    """Print rows that share their columns as a table, or as a JSON or YAML list."""
    if output_format == "table":
        say(table(rows))
    else:
        print_document(list(rows), output_format)


def print_document(document: Any, output_format: str) -> None:
    """Print one document as JSON or YAML."""
    if output_format == "json":
        print_text(json.dumps(document, ensure_ascii=False, indent=2))
        return
    from mtft.documents import yaml_text

    print_text(yaml_text(document), end="")


def print_text(text: str, end: str = "\n") -> None:
    """Print what programs read, such as JSON and YAML: UTF-8, whatever the encoding of the terminal."""
    with suppress(BrokenPipeError):  # of what is in the buffer; the next line tells it too
        use_utf8(sys.stdout)
    say(text, end=end)


def say(text: str, end: str = "\n") -> None:
    """Print what a verb has found for a person; it goes on, and its exit code stays, though nobody reads any more."""
    try:
        print(text, end=end)
    except BrokenPipeError:
        discard()


def finish() -> None:
    """Print what is still in the buffer, of a verb that has told on standard error why it fails."""
    try:
        if sys.stdout is not None:  # closed before the start
            sys.stdout.flush()
    except OSError:
        discard()


def is_read() -> bool:
    """Return whether nobody is known to have stopped reading."""
    return not _unread.is_set()


def discard() -> None:
    """Send what is printed nowhere from now on, and what is still in the buffer, which nobody can take any more."""
    _unread.set()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Remarks(io.FileIO):
    """Standard error; no verb ends because nobody reads it any more, or its disk is full."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def patient(stream: TextIO) -> TextIO:
    """Return standard error as a stream that never fails; another stream is returned as it is."""
    if stream is not sys.__stderr__:
        return stream
    raw = io.BufferedWriter(_Remarks(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)


def use_utf8(stream: TextIO) -> None:
    """Write UTF-8 from here on; what stands for a letter that another encoding lacks is neither JSON nor YAML."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as aligned columns under upper-case heads; numbers to the right, a long ``value`` shortened."""
    if not rows:
        return "(nothing)"
    columns = list(rows[0])
    cells = [[_fitted(column, cell(row[column])) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    right = [all(isinstance(row[column], int | float) for row in rows) for column in columns]
    lines = [[column.upper() for column in columns], *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _fitted(column: str, text: str) -> str:
    # Other columns hold names, places and reasons, which lose their sense when cut.
    return text if column != "value" or len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def cell(value: Any) -> str:
    """Return a value as a person writes it in a configuration."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)
