"""``mtft-launch diff``: what differs between a live job and what would be sent now."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from launcher.arguments import add_cluster_arguments, add_config_arguments, namespace_of, resolve_arguments
from mtft import exit_codes
from mtft.errors import InputError

if TYPE_CHECKING:
    from launcher.cluster import Cluster

EXAMPLE = "mtft-launch diff --config mtft.yaml --model m2m100_418m"

Manifest = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="live job (default: the one this configuration would be, else the newest of its model)",
    )
    add_config_arguments(parser)
    add_cluster_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print every difference; exit 0 where there is none, 1 where there is."""
    from launcher.cluster import connect
    from launcher.differences import differences
    from launcher.output import print_rows, say

    if args.name is not None and args.model is None:
        args.model = _model_of(connect(args.context, namespace_of(args)), args.name)
    document, resolved = resolve_arguments(args)
    cluster = connect(args.context, args.namespace or resolved.config.cluster.namespace)
    job, objects = _counterparts(cluster, args.name, document, resolved)
    found = differences(cluster, objects, job)
    name = job["metadata"]["name"]
    if args.output_format == "table" and not found:
        say(f"{name} is what would be sent")
    else:
        print(f"compared with {name}", file=sys.stderr)
        print_rows(
            [{"path": each.path, "live": each.live, "wanted": each.wanted} for each in found], args.output_format
        )
    return exit_codes.FAILED if found else exit_codes.DONE


def _model_of(cluster: Cluster, name: str) -> str:
    from launcher import acting
    from launcher.verbs.fetch import model_label

    (job,) = _only(acting.chosen(cluster, [name]), name)
    return model_label(job)


def _only(jobs: list[Manifest], name: str) -> list[Manifest]:
    if len(jobs) > 1:
        raise InputError(f"{name} is a batch of {len(jobs)} jobs; name one of them")
    return jobs


def _counterparts(
    cluster: Cluster, name: str | None, document: Manifest, resolved: Any
) -> tuple[Manifest, list[Manifest]]:
    """Return the live job, and the objects that would be sent under its name."""
    from launcher import acting, labels
    from launcher.backends.kubernetes import prepare
    from launcher.resources import JOBS
    from launcher.seen_data import with_data_facts

    document = with_data_facts(document, [resolved], cluster.namespace)
    job: Manifest | None
    if name is not None:
        (job,) = _only(acting.chosen(cluster, [name]), name)
    else:
        would_be = prepare(document, resolved, cluster.namespace).name
        job = cluster.find(JOBS, would_be) or _newest(cluster, resolved.card.key)
    if job is None:
        raise InputError(f"there is no job of {resolved.card.key} in namespace {cluster.namespace} to compare with")
    meta = job["metadata"]
    batch = (meta.get("labels") or {}).get(labels.BATCH)
    prepared = prepare(document, resolved, cluster.namespace, name=meta["name"], batch=batch)
    return job, list(prepared.objects)


def _newest(cluster: Cluster, model: str) -> Manifest | None:
    from launcher import labels
    from launcher.resources import JOBS

    jobs = cluster.list(JOBS, selector=labels.selector(model=model)).items
    return max(jobs, key=lambda job: str(job["metadata"]["creationTimestamp"]), default=None)
