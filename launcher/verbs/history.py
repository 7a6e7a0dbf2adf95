"""``mtft-launch history``: what was promoted and rolled back, by whom and why."""

from __future__ import annotations

import argparse
import sys

from launcher import storekeeping
from mtft import exit_codes

EXAMPLE = "mtft-launch history opus_mt_en_fr -o json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    storekeeping.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print every promotion, oldest first, and what is current."""
    from launcher.output import print_document, print_rows

    with storekeeping.reached(args, read_only=True) as ask:
        answer = ask("history")
    storekeeping.tell_damaged(answer)
    if args.output_format != "table":
        print_document(answer, args.output_format)
        return exit_codes.DONE
    rows = [
        {
            "n": each["number"],
            "at": each["at"],
            "action": each["action"] + (" --force" if each["forced"] else ""),
            "run": each["run"] + ("" if each["there"] else " (gone)"),
            "verdict": each["verdict"] or "",
            "who": each["who"],
            "reason": each["reason"],
        }
        for each in answer["promotions"]
    ]
    print_rows(rows, args.output_format)
    gone = "" if answer.get("current_there", True) or answer["current"] is None else " (gone)"
    lost = answer.get("lost")  # keepers of older images tell nothing of it
    nothing = f"nothing, although {lost} was promoted last: the pointer was lost" if lost else "nothing is promoted"
    print(f"current: {answer['current'] or nothing}{gone}", file=sys.stderr)
    return exit_codes.DONE
