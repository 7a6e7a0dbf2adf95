"""``mtft-launch list``: the jobs of a namespace, or of all."""

from __future__ import annotations

import argparse

from launcher.acting import note_missing_namespace
from launcher.arguments import add_cluster_arguments, add_output_argument, namespace_of
from mtft import exit_codes

EXAMPLE = "mtft-launch list -A -o json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces; needs a ClusterRole")
    parser.add_argument("--batch", metavar="NAME", help="only the jobs of one batch")
    parser.add_argument("--model", metavar="KEY", help="only the jobs of one model")
    add_cluster_arguments(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print every job with its state; one request, no pods and no logs."""
    from launcher import labels
    from launcher.cluster import connect
    from launcher.job_tables import list_document, list_row
    from launcher.output import print_document, say, table
    from launcher.resources import JOBS
    from launcher.states import job_state

    cluster = connect(args.context, namespace_of(args))
    selector = labels.selector(model=args.model, batch=args.batch)
    jobs = cluster.list(JOBS, selector=selector, everywhere=args.all_namespaces)
    now = cluster.now()
    if not jobs.items and not args.all_namespaces:
        note_missing_namespace(cluster)
    states = [job_state(job, None, now=now) for job in jobs.items]
    if args.output_format == "table":
        say(table([list_row(state, with_namespace=args.all_namespaces) for state in states]))
    else:
        print_document([list_document(state) for state in states], args.output_format)
    return exit_codes.DONE
