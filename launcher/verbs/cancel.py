"""``mtft-launch cancel``: stop jobs for good."""

from __future__ import annotations

import argparse

from launcher import acting

EXAMPLE = "mtft-launch cancel nightly"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    acting.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Stop the pods of each job and keep its object and run; only resume or retry starts it again."""
    from launcher.actions import cancel

    return acting.run(args, cancel)
