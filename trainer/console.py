"""What a person sees, and its copy in console_output.txt."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import BinaryIO

_TERMINAL_CODES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


class Console:
    """Shows bytes to the person and keeps them as plain text in a file, once there is one.

    In the file a line that was drawn over and over, such as a progress bar, keeps its last state only.
    """

    def __init__(self) -> None:
        self._file: BinaryIO | None = None
        self._line = b""

    def keep_in(self, path: Path) -> None:
        """Append everything from now on to this file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")

    def say(self, text: str) -> None:
        """Print a line of the supervisor's own."""
        self.write(f"{text}\n".encode())

    def write(self, data: bytes) -> None:
        """Show a piece of output as it comes."""
        # A closed terminal or a broken pipe must not end the training.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        if self._file is None:
            return
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[self._line.rfind(b"\r", 0, -1) + 1 :]
        self._append(lines)

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._file is not None:
            self._append([self._line] if self._line else [])
            self._file.close()
            self._file = None

    def _append(self, lines: list[bytes]) -> None:
        plain = [_TERMINAL_CODES.sub(b"", line).rstrip(b"\r").rpartition(b"\r")[2] for line in lines]
        if self._file is None or not plain:
            return
        try:
            self._file.writelines(line + b"\n" for line in plain)
            self._file.flush()
        except OSError as error:
            self._file = None
            self.say(f"console_output.txt is not continued: {error}")
