"""``mtft-launch rollback``: back to the run that was current before; again, one further back."""

from __future__ import annotations

import argparse

from launcher import storekeeping
from mtft import exit_codes

EXAMPLE = "mtft-launch rollback opus_mt_en_fr --reason 'drops accents'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    storekeeping.add_arguments(parser)
    storekeeping.add_reason_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Go one promotion back, over runs that are gone or damaged."""
    from launcher.output import print_document, say
    from mtft.promotion import me

    with storekeeping.reached(args, read_only=False) as ask:
        # What stands is said, so a request that is repeated after a cut does not go back twice.
        before = ask("history")
        storekeeping.tell_damaged(before)  # another run may be meant than the one it goes to
        standing = before["current"] or before.get("lost")
        answer = ask("rollback", who=me(), reason=args.reason, away_from=standing)
        # Told while the store is still reached: asked again for want of an answer, it would go one further back.
        if args.output_format != "table":
            print_document(answer, args.output_format)
        else:
            say(f"{args.model}: {answer['run']} is current again (before: {answer['previous']})")
    return exit_codes.DONE
