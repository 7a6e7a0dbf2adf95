"""``mtft-launch retry``: start failed jobs again under their names."""

from __future__ import annotations

import argparse

from launcher import acting

EXAMPLE = "mtft-launch retry m2m100_418m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    acting.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Make each failed job anew; its run continues from its last checkpoint with a fresh budget."""
    from launcher.actions import retry

    return acting.run(args, retry)
