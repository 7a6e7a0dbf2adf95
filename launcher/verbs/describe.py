"""``mtft-launch describe``: one job, its pods and what the cluster says of them."""

from __future__ import annotations

import argparse
import sys

from launcher.arguments import add_cluster_arguments, add_output_argument, namespace_of
from mtft import exit_codes
from mtft.text import printable_lines

EXAMPLE = "mtft-launch describe m2m100_418m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("name", metavar="NAME", help="job, or a model with one job")
    add_cluster_arguments(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print state, scores or reason, conditions, pods and events, in words."""
    from launcher import labels
    from launcher.cluster import connect
    from launcher.cluster_errors import Forbidden
    from launcher.description import describe, page
    from launcher.output import print_document, say
    from launcher.resources import EVENTS, JOBS
    from launcher.selection import choose_one
    from launcher.watching import pods_of, state_now

    cluster = connect(args.context, namespace_of(args))
    job = choose_one(args.name, cluster.list(JOBS, selector=labels.SELECTOR).items)
    pods = pods_of(cluster, [job]).get((job["metadata"]["namespace"], job["metadata"]["name"]), [])
    now = cluster.now()
    try:
        events = cluster.list(EVENTS).items
    except Forbidden as error:
        events = []
        print(f"note: without events, which may not be looked at: {str(error).splitlines()[0]}", file=sys.stderr)
    document = describe(job, state_now(cluster, job, pods, now), pods, events, now)
    if args.output_format == "table":
        say(printable_lines(page(document)))
    else:
        print_document(document, args.output_format)
    return exit_codes.DONE
