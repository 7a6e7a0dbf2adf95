"""``mtft-launch models``: the registry."""

from __future__ import annotations

import argparse

from launcher.arguments import add_output_argument
from launcher.output import print_rows
from mtft import exit_codes
from mtft.models import MODELS

EXAMPLE = "mtft-launch models -o json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print key, base, directions, seed hyper-parameters and estimated memory (GiB) of every model."""
    from mtft.config import LoraConfig, TrainConfig

    rank, tokens = LoraConfig().r, TrainConfig().micro_batch_tokens
    rows = [
        {
            "key": card.key,
            "base": card.base,
            "direction": ", ".join("->".join(pair) for pair in card.directions),
            "batch_size": card.batch_size,
            "learning_rate": card.learning_rate,
            "parameters_million": round(card.parameters / 1e6),
            "memory_gib": round(card.memory_gib(rank=rank, micro_batch_tokens=tokens), 1),
        }
        for card in MODELS.values()
    ]
    print_rows(rows, args.output_format)
    return exit_codes.DONE
