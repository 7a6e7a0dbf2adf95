"""What a verb prints: an aligned table for people, JSON or YAML for programs."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from mtft.text import printable

_LONGEST_VALUE = 80  # characters


def print_rows(rows: Sequence[Mapping[str, Any]], output_format: str) -> None:
    """Print rows that share their columns as a table, or as a JSON or YAML list."""
    if output_format == "table":
        _print(table(rows), end="\n")
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
    use_utf8(sys.stdout)
    _print(text, end=end)


def _print(text: str, end: str) -> None:
    """Print what a verb ends with; its exit code stays what it found, though nobody reads on."""
    try:
        print(text, end=end)
    except BrokenPipeError:
        discard()


def discard() -> None:
    """Send what is printed nowhere from now on, and what is still in the buffer, which nobody can take any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
