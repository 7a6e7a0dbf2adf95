"""``mtft-launch validate``: every effective value and where it comes from."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from launcher.arguments import (
    add_cluster_arguments,
    add_config_arguments,
    enabled_models,
    load_arguments,
    resolve_each,
    resolve_models,
)
from launcher.output import print_document, say, table
from mtft import exit_codes

if TYPE_CHECKING:
    from mtft.settings import Resolved

EXAMPLE = "mtft-launch validate --config mtft.yaml --set train.epochs=2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add_config_arguments(parser)
    add_cluster_arguments(parser)
    parser.add_argument(
        "--server", action="store_true", help="also let the cluster check what would be sent, without sending it"
    )


def run(args: argparse.Namespace) -> int:
    """Print value and origin of every setting, for each model of a batch; raise with all problems otherwise."""
    resolved = _resolve_all(args)
    for note in dict.fromkeys(note for one in resolved for note in one.notes):
        print(f"note: {note}", file=sys.stderr)
    if args.output_format == "table":
        say("\n\n".join(f"{table(_rows(one))}\n\n{_memory(one)}" for one in resolved))
    else:
        documents = [_document(one) for one in resolved]
        print_document(documents[0] if len(documents) == 1 else documents, args.output_format)
    if args.server:
        _ask_server(args)
    return exit_codes.DONE


def _ask_server(args: argparse.Namespace) -> None:
    """Let the API server check the objects of every model: schema, rights, quota, webhooks.

    Raises:
        ClusterError: it would refuse one.
        InputError: one fits no GPU.
    """
    from launcher.backends.kubernetes import prepare, refuse_too_large, refuse_unfit
    from launcher.cluster import connect
    from launcher.submit import dry_run

    document, resolved = resolve_models(args)
    for one in resolved:
        cluster = connect(args.context, args.namespace or one.config.cluster.namespace)
        job = prepare(document, one, cluster.namespace)
        refuse_too_large([one])
        refuse_unfit([(one, job)], cluster)
        dry_run(cluster, job.objects)
        print(
            f"{job.name}: accepted by {cluster.context} ({cluster.server}) in namespace {job.namespace}",
            file=sys.stderr,
        )


def _resolve_all(args: argparse.Namespace) -> list[Resolved]:
    document = load_arguments(args)
    batch = args.model is None and "models" in document
    return resolve_each(args, document, enabled_models(document) if batch else [args.model])


def _values(resolved: Resolved) -> list[tuple[str, Any, str]]:
    from mtft.fields import leaves

    values = leaves(resolved.config.model_dump(mode="json"))
    return [(path, value, resolved.origins[path]) for path, value in values.items()]


def _rows(resolved: Resolved) -> list[dict[str, Any]]:
    return [{"field": path, "value": value, "origin": origin} for path, value, origin in _values(resolved)]


def _memory(resolved: Resolved) -> str:
    """Return the line that says what training needs of each GPU, and whether the pool's have it."""
    from mtft.memory import refusal, training_memory

    if not resolved.config.cluster.gpus_per_node:
        return "memory: no GPU is asked for"
    if too_small := refusal(resolved.card, resolved.config):
        return f"memory: {too_small}"
    return f"memory: about {training_memory(resolved.card, resolved.config)} of each GPU, estimated"


def _document(resolved: Resolved) -> dict[str, Any]:
    from mtft.memory import training_memory

    memory = training_memory(resolved.card, resolved.config)
    return {
        "model": resolved.card.key,
        "fields": {path: {"value": value, "origin": origin} for path, value, origin in _values(resolved)},
        "memory_gib": {name: round(gib, 2) for name, gib in {**memory.as_dict(), "total": memory.total}.items()},
        "notes": list(resolved.notes),
    }
