"""The arguments shared by every verb that takes a configuration."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtft.documents import Document
    from mtft.settings import Resolved

DEFAULT_FILE = Path("mtft.yaml")


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``-o``."""
    parser.add_argument(
        "-o", dest="output_format", choices=("table", "json", "yaml"), default="table", help="form of the output"
    )


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--config``, ``--model``, ``--set``, ``-o`` and the few settings with a flag of their own."""
    group = parser.add_argument_group("configuration")
    group.add_argument(
        "--config", type=Path, metavar="FILE", help=f"YAML, JSON or TOML file (default: ./{DEFAULT_FILE} if present)"
    )
    group.add_argument("--model", metavar="KEY", help="model to tune; `mtft-launch models` lists them")
    group.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="PATH=VALUE", help="any setting, such as lora.r=16"
    )
    for path, flag, kind, text in (
        ("data.train", "--data", str, "training rows: file, folder or address"),
        ("storage.root", "--output", str, "directory that holds data/, outputs/ and cache/"),
        ("train.epochs", "--epochs", float, "passes over the training rows"),
        ("train.max_steps", "--max-steps", int, "optimizer steps after which training stops"),
        ("preset", "--preset", str, "default, quick_test, memory_efficient or high_capacity"),
        ("method", "--method", str, "lora, qlora or full"),
        ("train.learning_rate", "--learning-rate", float, "peak learning rate"),
        ("train.batch_size", "--batch-size", int, "sentences per process and accumulation step"),
    ):
        group.add_argument(flag, dest=path, type=kind, metavar=flag[2:].upper().replace("-", "_"), help=text)
    add_output_argument(parser)


def load_arguments(args: argparse.Namespace) -> Document:
    """Return the document of ``--config``, of ./mtft.yaml where there is one, or an empty one."""
    from mtft.settings import Document, load_document

    if args.config is not None or DEFAULT_FILE.exists():
        return load_document(args.config or DEFAULT_FILE)
    return Document({}, source="command line")


def flags_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return dotted path -> value of the flags that were given."""
    from mtft.settings import FLAGS

    return {path: value for path, value in vars(args).items() if path in FLAGS and value is not None}


def resolve_arguments(args: argparse.Namespace) -> tuple[dict[str, Any], Resolved]:
    """Return the document a job is sent, and the effective configuration of the chosen model.

    Raises:
        InputError: the file cannot be read.
        ConfigError: with every problem of the configuration.
    """
    from mtft.settings import merge, resolve

    document, flags = load_arguments(args), flags_of(args)
    resolved = resolve(document, model=args.model, sets=args.sets, flags=flags)
    chosen = {} if "models" in document else {"model.key": resolved.config.model.key}
    return merge(document, args.sets, flags | chosen), resolved
