"""``mtft-launch logs``: what every pod of a job prints."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING

from launcher.arguments import add_cluster_arguments, add_output_argument, namespace_of
from mtft import exit_codes
from mtft.errors import InputError

if TYPE_CHECKING:
    from launcher.cluster import Cluster

EXAMPLE = "mtft-launch logs m2m100_418m --follow --grep 'BLEU|loss'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    from launcher.verbs.wait import seconds

    parser.add_argument("name", metavar="NAME", help="job, or a model with one job")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the job has ended, over restarts and cut connections"
    )
    parser.add_argument("--rank", type=_count, metavar="N", help="only one pod: 0 is the master, 1 the first worker")
    parser.add_argument("--since", type=seconds, metavar="TIME", help="only the last 90s, 30m, 2h ...")
    parser.add_argument("--tail", type=_count, metavar="N", help="only the last N lines of each pod")
    parser.add_argument("--grep", type=_pattern, metavar="REGEX", help="only lines with this in them")
    add_cluster_arguments(parser)
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the lines; those of earlier starts are in console_output.txt of the run."""
    from launcher import labels, logs, printed
    from launcher.cluster import connect
    from launcher.job_objects import pod_count
    from launcher.log_lines import Printer
    from launcher.output import discard
    from launcher.pod_logs import Wanted
    from launcher.resources import JOBS
    from launcher.selection import choose_one

    refuse_yaml("logs", args.output_format)
    cluster = connect(args.context, namespace_of(args))
    job = choose_one(args.name, cluster.list(JOBS, selector=labels.SELECTOR).items)
    pods = pod_count(job)
    if args.rank is not None and args.rank >= pods:
        raise InputError(f"--rank {args.rank}: job {job['metadata']['name']} has {pods} pods, counted from 0")
    wanted = Wanted(rank=args.rank, since_s=args.since, tail=args.tail)
    printer = Printer(prefixed=False, pattern=args.grep, as_json=args.output_format == "json")
    try:
        if args.follow:
            logs.follow(cluster, job, printer, wanted)
            return exit_codes.DONE
        shown = logs.show(cluster, job, printer, wanted)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        discard()
        return exit_codes.DONE
    if not shown and args.rank is None:
        why = printed.launch("status", job)
        print(f"no pod of it runs or has just run; --follow waits for one, `{why}` tells why", file=sys.stderr)
    return exit_codes.DONE


def refuse_yaml(command: str, output_format: str) -> None:
    """Refuse to print a log as YAML.

    Raises:
        InputError: that was asked for.
    """
    if output_format == "yaml":
        raise InputError(f"{command} -o yaml is not offered: a log has no end; use -o json, one object a line")


def follow(cluster: Cluster, name: str, *, until: float | None = None, as_json: bool = False) -> None:
    """Print what a job's pods write, as ``logs NAME --follow``, at most until a moment of the monotonic clock."""
    from launcher import logs
    from launcher.log_lines import Printer
    from launcher.resources import JOBS

    if job := cluster.find(JOBS, name):  # else it was deleted, which whoever waits for it is told
        logs.follow(cluster, job, Printer(prefixed=False, as_json=as_json), until=until)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from error
