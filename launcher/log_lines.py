"""Lines of several pods on one screen: whose they are, in which order, which of them."""

from __future__ import annotations

import heapq
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from launcher.output import use_utf8
from mtft.text import printable, printable_lines

_COLOURS = (36, 33, 32, 35, 34, 31)  # cyan, yellow, green, magenta, blue, red
# What the kubelet puts before each line when asked for times.
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[-+]\d\d:\d\d) ?(.*)", re.DOTALL)


@dataclass(frozen=True, order=True)
class Line:
    """One line of one pod.

    Attributes:
        at: when it was written, as the kubelet says, in UTC with nine digits of a second: sorts as text.
        rank: number of the pod within its job, 0 for the master.
        pod: name of the pod.
        text: the line, without its end.
    """

    at: str
    rank: int
    pod: str
    text: str


def parse_line(raw: str, rank: int, pod: str) -> Line:
    """Read a line that the kubelet put a time before; without one it sorts first."""
    if found := STAMP.match(raw):
        second, fraction, zone, text = found.groups()
        if zone != "Z":  # a node whose container runtime writes local time
            second = f"{datetime.fromisoformat(second + zone).astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
        return Line(f"{second}.{(fraction or '').ljust(9, '0')}Z", rank, pod, text)
    return Line("", rank, pod, raw)


def merged(pods: Iterable[Iterable[Line]]) -> Iterator[Line]:
    """Yield the lines of several pods in the order they were written."""
    return heapq.merge(*pods, key=lambda line: line.at)


class Printer:
    """Prints lines, those that match; with several pods each behind the number of its own.

    Args:
        prefixed: whether to say which pod a line is of.
        pattern: only lines it is found in.
        as_json: one JSON object a line, for programs.
        out: where to; colours are used on a terminal, unless NO_COLOR is set.
    """

    def __init__(
        self,
        *,
        prefixed: bool,
        pattern: re.Pattern[str] | None = None,
        as_json: bool = False,
        out: TextIO | None = None,
    ) -> None:
        self.prefixed, self.pattern, self.as_json = prefixed, pattern, as_json
        self.out = out or sys.stdout
        if as_json:
            use_utf8(self.out)
        self.coloured = self.out.isatty() and not os.environ.get("NO_COLOR")

    def show(self, line: Line) -> None:
        """Print one line, at once."""
        if self.pattern and not self.pattern.search(line.text):
            return
        if self.as_json:
            values = {"time": line.at, "pod": line.pod, "rank": line.rank, "text": line.text}
            print(json.dumps(values, ensure_ascii=False), file=self.out, flush=True)
            return
        # A file gets every byte; a terminal would obey what a log tells it.
        text = "\t".join(map(printable, line.text.split("\t"))) if self.out.isatty() else line.text
        print(f"{self._prefix(line.rank)}{text}", file=self.out, flush=True)

    def remark(self, text: str) -> None:
        """Tell the person something that is no pod's line; programs that read the lines do not see it."""
        print(f"-- {printable_lines(text)}", file=sys.stderr, flush=True)

    def _prefix(self, rank: int) -> str:
        if not self.prefixed:
            return ""
        return f"\x1b[{_COLOURS[rank % len(_COLOURS)]}m[{rank}]\x1b[0m " if self.coloured else f"[{rank}] "
