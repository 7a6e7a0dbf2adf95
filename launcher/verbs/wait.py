"""``mtft-launch wait``: until jobs have ended."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from launcher.arguments import add_cluster_arguments, add_output_argument, namespace_of
from mtft import exit_codes

if TYPE_CHECKING:
    from launcher.states import JobState

EXAMPLE = "mtft-launch wait m2m100_418m --timeout 2h"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MEANING = {
    exit_codes.DONE: "done",
    exit_codes.FAILED: "failed",
    exit_codes.NOT_PROMOTED: "trained, but not better",
    exit_codes.WAIT_TIMED_OUT: "still going on",
}
# States that end the waiting, but are no failure of the job.
_OTHERWISE = {"Deleted": "deleted by somebody", "Cancelled": "cancelled"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("names", nargs="+", metavar="NAME", help="job, batch or model")
    parser.add_argument("--timeout", type=seconds, metavar="TIME", help="such as 90s, 30m or 2h (default: for ever)")
    add_cluster_arguments(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Wait and exit with 0 done, 1 failed, 4 trained but not better, 124 timed out; of several jobs the worst."""
    from launcher.cluster import connect
    from launcher.output import print_rows
    from launcher.waiting import wait_for

    meaning: dict[str, str] = {}

    def seen(state: JobState) -> None:
        unknown = "done, verdict unknown" if state.state == "Succeeded" and state.reason else ""
        meaning[state.name] = _OTHERWISE.get(state.state, unknown)
        report(state)

    codes = wait_for(connect(args.context, namespace_of(args)), args.names, args.timeout, report=seen)
    rows = [
        {"name": name, "result": meaning.get(name) or _MEANING[code], "exit_code": code} for name, code in codes.items()
    ]
    print_rows(rows, args.output_format)
    return exit_codes.worst(list(codes.values()))


def report(state: JobState) -> None:
    """Tell a person, on stderr, that a job's state changed."""
    from launcher.job_tables import note

    said = note(state)
    print(f"-- {state.name}: {state.state}{'' if said == '-' else ': ' + said}", file=sys.stderr, flush=True)


def seconds(text: str) -> float:
    """Read a time such as 90s, 30m, 1h30m or 1d; a plain number is seconds."""
    number = r"\d+(?:\.\d+)?"
    if not re.fullmatch(rf"{number}|({number}[smhd])+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; give one such as 90s, 30m, 2h or 1h30m")
    return sum(float(count) * _UNITS[unit] for count, unit in re.findall(rf"({number})([smhd]?)", text))
