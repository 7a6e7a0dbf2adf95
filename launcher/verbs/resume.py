"""``mtft-launch resume``: let suspended or cancelled jobs go on."""

from __future__ import annotations

import argparse

from launcher import acting

EXAMPLE = "mtft-launch resume m2m100_418m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    acting.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Let each job start again; it continues from its last checkpoint with a fresh budget."""
    from launcher.actions import resume

    return acting.run(args, resume)
