"""``mtft-launch status``: how far jobs are, and what came of those that ended."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from launcher.acting import note_missing_namespace
from launcher.arguments import add_cluster_arguments, add_output_argument, namespace_of
from mtft import exit_codes

if TYPE_CHECKING:
    from launcher.states import JobState

EXAMPLE = "mtft-launch status m2m100_418m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="job, batch or model (default: every job)")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces; needs a ClusterRole")
    add_cluster_arguments(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print state, phase, progress, restarts, GPUs, nodes, and the scores or the reason."""
    from launcher.cluster import connect
    from launcher.output import print_document
    from launcher.watching import jobs_now

    cluster = connect(args.context, namespace_of(args))
    states = jobs_now(cluster, args.names, everywhere=args.all_namespaces)
    if not states and not args.all_namespaces:
        note_missing_namespace(cluster)
    if args.output_format == "table":
        _print_table(states, with_namespace=args.all_namespaces)
    else:
        print_document([state.as_dict() for state in states], args.output_format)
    return exit_codes.DONE


def _print_table(states: list[JobState], *, with_namespace: bool) -> None:
    from launcher.job_tables import status_row
    from launcher.output import say, table

    say(table([status_row(state, with_namespace=with_namespace) for state in states]))
    for state in states:
        # The table holds the first line only; a configuration or data error may have many.
        if state.reason and "\n" in state.reason:
            say(f"\n{state.name}:\n{state.reason}")
