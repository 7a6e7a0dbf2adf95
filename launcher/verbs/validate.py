"""``mtft-launch validate``: every effective value and where it comes from."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from launcher.arguments import add_config_arguments, flags_of, load_arguments
from launcher.output import print_document, table
from mtft import exit_codes
from mtft.errors import ConfigError, Problem

if TYPE_CHECKING:
    from mtft.settings import Resolved

EXAMPLE = "mtft-launch validate --config mtft.yaml --set train.epochs=2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print value and origin of every setting, for each model of a batch; raise with all problems otherwise."""
    resolved = _resolve_all(args)
    for note in dict.fromkeys(note for one in resolved for note in one.notes):
        print(f"note: {note}", file=sys.stderr)
    if args.output_format == "table":
        print("\n\n".join(table(_rows(one)) for one in resolved))
    else:
        documents = [_document(one) for one in resolved]
        print_document(documents[0] if len(documents) == 1 else documents, args.output_format)
    return exit_codes.DONE


def _resolve_all(args: argparse.Namespace) -> list[Resolved]:
    from mtft.settings import models_of, resolve

    document, flags = load_arguments(args), flags_of(args)
    batch = args.model is None and "models" in document
    resolved: list[Resolved] = []
    problems: list[Problem] = []
    for model in models_of(document) if batch else [args.model]:
        try:
            resolved.append(resolve(document, model=model, sets=args.sets, flags=flags))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return resolved


def _values(resolved: Resolved) -> list[tuple[str, Any, str]]:
    from mtft.fields import leaves

    values = leaves(resolved.config.model_dump(mode="json"))
    return [(path, value, resolved.origins[path]) for path, value in values.items()]


def _rows(resolved: Resolved) -> list[dict[str, Any]]:
    return [{"field": path, "value": value, "origin": origin} for path, value, origin in _values(resolved)]


def _document(resolved: Resolved) -> dict[str, Any]:
    return {
        "model": resolved.card.key,
        "fields": {path: {"value": value, "origin": origin} for path, value, origin in _values(resolved)},
        "notes": list(resolved.notes),
    }
