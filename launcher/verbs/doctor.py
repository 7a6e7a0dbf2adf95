"""``mtft-launch doctor``: what stands between a configuration and a running job, or why a job does not run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher.arguments import add_cluster_arguments, add_config_arguments, namespace_of
from mtft import exit_codes
from mtft.text import printable_lines

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from launcher.findings import Finding
    from mtft.settings import Resolved

EXAMPLE = "mtft-launch doctor --config mtft.yaml -n team-mt"
_LAYER = 18  # characters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="job, or a model with one job: why it does not run")
    parser.add_argument(
        "--operator", action="store_true", help="only whether the cluster knows PyTorchJobs; any account may ask"
    )
    add_config_arguments(parser)
    add_cluster_arguments(parser)
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also start a pod for a moment: whether it starts, free space on the volume, DNS",
    )


def run(args: argparse.Namespace) -> int:
    """Print one line a layer; exit 0 when nothing failed, 1 otherwise, 3 when the cluster cannot be reached."""
    from dataclasses import asdict

    from launcher.cluster import connect
    from launcher.doctor import examine
    from launcher.output import print_document, say

    cluster = connect(args.context, namespace_of(args) if args.name else args.namespace)
    if args.name:
        findings = _of_job(cluster, args.name, probe=args.probe)
    else:
        *_, job = objects = _planned(args)
        if args.namespace is None and "namespace" in job["metadata"]:
            cluster.namespace = job["metadata"]["namespace"]
        only = ("operator",) if args.operator else ()
        findings = examine(cluster, job, config=_meaning(objects), only=only, probe=args.probe)
    if args.output_format == "table":
        say(printable_lines("\n".join(_lines(findings))))
    else:
        print_document([asdict(finding) for finding in findings], args.output_format)
    return exit_codes.FAILED if any(finding.verdict == "fail" for finding in findings) else exit_codes.DONE


def _of_job(cluster: Cluster, name: str, *, probe: bool) -> list[Finding]:
    from launcher import labels
    from launcher.cluster_errors import Forbidden
    from launcher.doctor import NODES_LAYER, examine
    from launcher.doctor_job import diagnose
    from launcher.resources import CONFIG_MAPS, JOBS
    from launcher.selection import choose_one
    from launcher.watching import pods_of, state_now

    job = choose_one(name, cluster.list(JOBS, selector=labels.SELECTOR).items)
    pods = pods_of(cluster, [job]).get((job["metadata"]["namespace"], job["metadata"]["name"]), [])
    state = state_now(cluster, job, pods, cluster.now())
    try:
        texts = cluster.find(CONFIG_MAPS, job["metadata"]["name"])
    except Forbidden:
        texts = None
    config = _meaning([texts, job]) if texts else None
    findings = examine(cluster, job, pods=pods, config=config, probe=probe)
    seen = not any(each.layer == NODES_LAYER and each.verdict == "skip" for each in findings)
    return [*findings, diagnose(state, job, gone=not pods, nodes_seen=seen)]


def _meaning(objects: Sequence[Mapping[str, Any]]) -> Resolved | None:
    """Return the effective configuration of a ConfigMap and PyTorchJob; None where this version cannot read it."""
    from launcher.labels import MODEL
    from launcher.pod import CONFIG_FILE
    from mtft.errors import MtftError
    from mtft.settings import resolve

    texts, job = objects[0], objects[-1]
    try:
        return resolve(json.loads(texts["data"][CONFIG_FILE]), model=job["metadata"]["labels"][MODEL])
    except (MtftError, KeyError, ValueError):
        return None


def _planned(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the objects that would be sent; without a configuration the one mtft's defaults make."""
    from launcher.arguments import flags_of, load_arguments
    from launcher.doctor import PLACEHOLDER_IMAGE
    from launcher.partial import filled
    from launcher.pytorchjob import render
    from mtft.settings import merge

    given = merge(load_arguments(args), args.sets, flags_of(args), model=args.model)
    document, [model, *_] = filled(given, args.model, image=PLACEHOLDER_IMAGE)
    if "models" not in document:
        document = merge(document, flags={"model.key": model})
    return render(document, model, namespace=args.namespace)


def _lines(findings: list[Finding]) -> list[str]:
    lines = []
    for each in findings:
        first, *more = each.message.splitlines() or [""]
        lines.append(f"{each.verdict:<5} {each.layer:<{_LAYER}} {first}")
        lines += [f"{'':<{_LAYER + 7}}{line}" for line in more]
        if each.fix:
            lines += [f"{'':<{_LAYER + 7}}-> {line}" for line in each.fix.splitlines()]
    return lines
