"""``mtft-launch suspend``: hold jobs back; they keep their place and their checkpoints."""

from __future__ import annotations

import argparse

from launcher import acting

EXAMPLE = "mtft-launch suspend m2m100_418m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    acting.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Stop the pods of each job with a checkpoint and keep the job; resume continues it."""
    from launcher.actions import suspend

    return acting.run(args, suspend)
