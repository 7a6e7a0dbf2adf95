"""``mtft-launch models``: the registry, and the commit each base is at now."""

from __future__ import annotations

import argparse
from typing import Any

from launcher.arguments import accept_cluster_arguments, add_output_argument
from launcher.output import print_document, print_rows
from mtft import exit_codes
from mtft.models import MODELS, card

EXAMPLE = "mtft-launch models -o json"
PIN_EXAMPLE = "mtft-launch models pin opus_mt_en_fr -o yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add_output_argument(parser)
    accept_cluster_arguments(parser)
    actions = parser.add_subparsers(dest="action", metavar="pin")
    text = (
        "Ask the model hub for the commit each base is at now; -o yaml or json prints it as a piece of configuration."
    )
    pin = actions.add_parser(
        "pin", help="tell the commits of the bases", description=text, epilog=f"example: {PIN_EXAMPLE}"
    )
    pin.add_argument("keys", nargs="*", metavar="KEY", help="models to look up (default: all)")
    # Without a default of its own it leaves what was given before `pin` alone.
    add_output_argument(pin, default=argparse.SUPPRESS)
    accept_cluster_arguments(pin)


def run(args: argparse.Namespace) -> int:
    """Print the registry, or with ``pin`` the commits of the bases."""
    if args.action == "pin":
        _pin(args.keys, args.output_format)
    else:
        print_rows(_registry(), args.output_format)
    return exit_codes.DONE


def _registry() -> list[dict[str, Any]]:
    """Return key, base, directions, seed hyper-parameters and estimated GPU memory (GiB, built-in settings)."""
    from mtft.memory import training_memory
    from mtft.settings import resolve

    any_data = {"data": {"train": "-"}}
    return [
        {
            "key": card.key,
            "base": card.base,
            "direction": ", ".join("->".join(pair) for pair in card.directions),
            "batch_size": card.batch_size,
            "learning_rate": card.learning_rate,
            "parameters_million": round(card.parameters / 1e6),
            "memory_gib": round(training_memory(card, resolve(any_data, model=card.key).config).total, 1),
        }
        for card in MODELS.values()
    ]


def _pin(keys: list[str], output_format: str) -> None:
    """Print what the hub tells: rows for people, for a program a document that pins one model or a batch.

    Raises:
        InputError: a key is unknown, or the hub does not tell a commit; nothing is printed then.
    """
    from launcher.hub import commits

    cards = [card(key) for key in dict.fromkeys(keys or MODELS)]
    revisions = commits(each.base for each in cards)
    if output_format == "table":
        rows = [{"key": each.key, "base": each.base, "revision": revisions[each.base]} for each in cards]
        print_rows(rows, output_format)
    elif len(cards) == 1:
        print_document({"model": {"key": cards[0].key, "revision": revisions[cards[0].base]}}, output_format)
    else:
        models = {each.key: {"model": {"revision": revisions[each.base]}} for each in cards}
        print_document({"models": models}, output_format)
