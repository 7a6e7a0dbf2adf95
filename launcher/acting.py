"""What the verbs about jobs share: which jobs are meant, one row for each, one exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from launcher.arguments import add_cluster_arguments, add_output_argument, namespace_of
from mtft import exit_codes
from mtft.errors import MtftError

if TYPE_CHECKING:
    from launcher.cluster import Cluster

Manifest = dict[str, Any]
Action = Callable[["Cluster", Manifest], str]


def add_arguments(parser: argparse.ArgumentParser, *, at_least: str = "+") -> None:
    """Add NAME ..., the cluster's and ``-o``."""
    parser.add_argument("names", nargs=at_least, metavar="NAME", help="job, batch or model")
    add_cluster_arguments(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace, action: Action) -> int:
    """Act on every job that is meant, print a row for each and return the worst exit code.

    Raises:
        InputError: a name is unknown, or means several jobs without being a batch.
        ClusterError: the jobs cannot be listed.
    """
    from launcher.cluster import connect

    cluster = connect(args.context, namespace_of(args))
    return act(cluster, chosen(cluster, args.names), action, args.output_format)


def chosen(cluster: Cluster, names: list[str], selector: str | None = None) -> list[Manifest]:
    """Return the jobs that names mean, or all that a further label selector fits.

    Raises:
        InputError: a name is unknown, or means several jobs without being a batch.
        ClusterError: the jobs cannot be listed.
    """
    from launcher import labels
    from launcher.resources import JOBS
    from launcher.selection import choose

    jobs = cluster.list(JOBS, selector=",".join(filter(None, (labels.SELECTOR, selector)))).items
    return [dict(job) for job in choose(names, jobs)]


def note_missing_namespace(cluster: Cluster) -> None:
    """Say, where nothing was found, that it is for want of the namespace; one request."""
    from launcher.cluster_errors import no_namespace

    if cluster.lacks_namespace():
        print(f"note: {no_namespace(cluster.namespace)}", file=sys.stderr)


def act(cluster: Cluster, jobs: list[Manifest], action: Action, output_format: str) -> int:
    """Act on each job, print a row for each and return the worst exit code; interrupted, print what came of each."""
    from launcher.job_tables import print_answers
    from launcher.output import print_rows

    rows, codes = [], []
    try:
        for job in jobs:
            rows.append({"name": job["metadata"]["name"], "result": "interrupted; it may be done or not"})
            try:
                result, code = action(cluster, job), exit_codes.DONE
            except MtftError as error:
                result, code = str(error), error.exit_code
            rows[-1]["result"] = result
            codes.append(code)
    except KeyboardInterrupt:
        rows += [{"name": job["metadata"]["name"], "result": "not tried"} for job in jobs[len(rows) :]]
        raise
    finally:
        if output_format == "table":
            print_answers(rows, "result")
        else:
            print_rows(rows, output_format)
    return exit_codes.worst(codes)
