"""``mtft-launch delete``: remove jobs from the cluster; their runs stay on the volume."""

from __future__ import annotations

import argparse
import sys

from launcher import acting
from launcher.arguments import namespace_of
from mtft import exit_codes
from mtft.errors import InputError

EXAMPLE = "mtft-launch delete nightly --yes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    acting.add_arguments(parser, at_least="*")
    parser.add_argument(
        "-l", "--selector", metavar="LABELS", help="all of our jobs with these labels, instead of names"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    """Delete each job with its pods and ConfigMap, after asking a person once."""
    from launcher.actions import delete
    from launcher.cluster import connect

    if bool(args.names) == bool(args.selector):
        raise InputError("name the jobs to delete, or give --selector; not both")
    cluster = connect(args.context, namespace_of(args))
    jobs = acting.chosen(cluster, args.names, args.selector)
    if jobs and not args.yes and not _agreed([job["metadata"]["name"] for job in jobs], cluster.namespace):
        print("nothing was deleted", file=sys.stderr)
        return exit_codes.BAD_INPUT
    return acting.act(cluster, jobs, delete, args.output_format)


def _agreed(names: list[str], namespace: str) -> bool:
    if not sys.stdin.isatty():
        raise InputError(
            f"{len(names)} jobs would be deleted from namespace {namespace}; add --yes where nobody can ask"
        )
    listed = "\n".join(f"  {name}" for name in names)
    print(f"to be deleted from namespace {namespace} (nothing on the volume is removed):\n{listed}", file=sys.stderr)
    print("delete them? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
