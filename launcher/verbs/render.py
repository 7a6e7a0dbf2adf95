"""``mtft-launch render``: the objects a cluster would be sent; opens no data, asks no clock and no cluster."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from launcher.arguments import add_cluster_arguments, add_config_arguments, flags_of, load_arguments, resolve_models
from mtft import exit_codes

if TYPE_CHECKING:
    from mtft.settings import Resolved

EXAMPLE = "mtft-launch render --config mtft.yaml -n team-mt | kubectl apply -f -"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add_config_arguments(parser)
    add_cluster_arguments(parser)
    group = parser.add_argument_group("render")
    group.add_argument("--batch", metavar="NAME", help="name of the batch, the first part of every job's name")
    group.add_argument("--nonce", metavar="TEXT", help="another text makes another run of the same configuration")
    claims = group.add_mutually_exclusive_group()
    claims.add_argument(
        "--create-claim", type=_quantity, metavar="SIZE", help="also the shared ReadWriteMany claim, such as 100Gi"
    )
    claims.add_argument(
        "--claim-only", type=_quantity, metavar="SIZE", help="that claim and no job; needs no model and no data"
    )
    group.add_argument(
        "--storage-class", metavar="NAME", help="StorageClass of that claim (default: the cluster's default)"
    )
    group.add_argument(
        "--network-policy",
        action="store_true",
        help="also a NetworkPolicy for the pods of each job; `delete` removes it with the job",
    )
    parser.set_defaults(output_format="yaml")


def run(args: argparse.Namespace) -> int:
    """Print the objects of one model or of every enabled model of a batch."""
    manifests = _claims_alone(args) if args.claim_only else _manifests(args)
    if args.output_format == "table":
        from launcher.output import say, table

        say(table([_row(manifest) for manifest in manifests]))
        return exit_codes.DONE
    from launcher.manifests import as_json, as_yaml
    from launcher.output import print_text

    print_text(as_json(manifests) if args.output_format == "json" else as_yaml(manifests).rstrip("\n"))
    return exit_codes.DONE


def _manifests(args: argparse.Namespace) -> list[dict[str, Any]]:
    from launcher.pytorchjob import render
    from launcher.surroundings import network_policy

    document, resolved = resolve_models(args)
    jobs: list[dict[str, Any]] = []
    for one in resolved:
        model, namespace = one.card.key, args.namespace
        objects = render(document, model, batch=args.batch, nonce=args.nonce, namespace=namespace)
        jobs += objects + ([network_policy(objects[-1])] if args.network_policy else [])
        _note(one)
    return (_claims(args, args.create_claim, resolved) if args.create_claim else []) + jobs


def _claims_alone(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the claims of a configuration that may say nothing of model, data and image yet."""
    from launcher.partial import filled
    from mtft.settings import merge, resolve

    document, keys = filled(merge(load_arguments(args), args.sets, flags_of(args), model=args.model), args.model)
    return _claims(args, args.claim_only, [resolve(document, model=key) for key in keys])


def _claims(args: argparse.Namespace, size: str, resolved: Sequence[Resolved]) -> list[dict[str, Any]]:
    from launcher.surroundings import claim

    places = dict.fromkeys(
        (one.config.cluster.claim, args.namespace or one.config.cluster.namespace) for one in resolved
    )
    return [claim(name, size, args.storage_class, place) for name, place in places]


def _note(resolved: Resolved) -> None:
    """Tell of old names, and of data that only this folder's reader would find."""
    for note in resolved.notes:
        print(f"note: {note}", file=sys.stderr)
    given = resolved.config.data.train
    for path in [given] if isinstance(given, str) else given:
        if not path.startswith("/") and "://" not in path:
            root = resolved.config.storage.root
            print(f"note: data.train {path}: a pod reads it there, such as {root}/data/{path}", file=sys.stderr)


def _row(manifest: dict[str, Any]) -> dict[str, Any]:
    metadata = manifest["metadata"]
    return {"kind": manifest["kind"], "name": metadata["name"], "namespace": metadata.get("namespace") or "(context's)"}


def _quantity(text: str) -> str:
    from mtft.cluster_names import SIZE

    if not re.fullmatch(SIZE, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; give one such as 100Gi")
    return text
