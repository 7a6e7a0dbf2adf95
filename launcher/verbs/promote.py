"""``mtft-launch promote``: make a finished run what a model's users get."""

from __future__ import annotations

import argparse
import sys

from launcher import storekeeping
from mtft import exit_codes

EXAMPLE = "mtft-launch promote opus_mt_en_fr --run 20300102T030405Z-0a1b2c3d --reason 'read by the revisers'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    storekeeping.add_arguments(parser)
    parser.add_argument("--run", metavar="RUN-ID", help="default: the newest finished one")
    parser.add_argument("--force", action="store_true", help="even if the gate's verdict is against it; kept on record")
    storekeeping.add_reason_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Promote one run; what is current already stays so."""
    from launcher.output import print_document, say
    from mtft.promotion import me
    from mtft.runs import check_run_id

    if args.run is not None:
        check_run_id(args.run)  # said before a pod is started
    with storekeeping.reached(args, read_only=False) as ask:
        answer = ask("promote", run=args.run, who=me(), reason=args.reason, force=args.force)
        storekeeping.tell_damaged(answer)
        # Told while the store is still reached: whatever fails afterwards, this is done.
        if args.output_format != "table":
            print_document(answer, args.output_format)
        elif answer["changed"]:
            against = answer["verdict"] not in exit_codes.PROMOTABLE
            why = f"its verdict is {answer['verdict']}" if against else "it was compared with another run"
            forced = f", forced: {why}" if answer["forced"] else ""
            say(f"{args.model}: {answer['run']} is current now (before: {answer['previous'] or 'nothing'}){forced}")
        else:
            print(f"{args.model}: {answer['run']} is current already", file=sys.stderr)
    return exit_codes.DONE
