"""``mtft-launch init``: a commented mtft.yaml to begin with."""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.arguments import DEFAULT_FILE, add_output_argument, namespace_name, user_path
from mtft import exit_codes
from mtft.errors import InputError

EXAMPLE = "mtft-launch init --model opus_mt_en_fr --data train.jsonl.gz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument("file", nargs="?", type=user_path, default=DEFAULT_FILE, help=f"file to write ({DEFAULT_FILE})")
    parser.add_argument("--model", metavar="KEY", default="m2m100_418m", help="model to tune (m2m100_418m)")
    parser.add_argument(
        "--data",
        metavar="PATH",
        default="/mnt/mtft/data/train.jsonl.gz",
        help="training rows, as the trainer sees them",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    parser.add_argument("-n", "--namespace", type=namespace_name, metavar="NAME", help="cluster.namespace of the file")
    parser.add_argument("--context", metavar="NAME", help="without effect: no cluster is asked")
    add_output_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file; refuse to replace one without ``--force``."""
    from launcher.output import print_document, say
    from mtft.files import write_text
    from mtft.models import card
    from mtft.reference import starter_file

    file: Path = args.file
    if file.exists() and not args.force:
        raise InputError(f"{file} exists already; add --force to replace it")
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"{file}: the file is YAML; give a name that ends in .yaml")
    text = starter_file(card(args.model), args.data, args.namespace)
    try:
        write_text(file, text)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from None
    if args.output_format != "table":
        print_document({"file": str(file), "model": args.model, "namespace": args.namespace}, args.output_format)
        return exit_codes.DONE
    say(f"wrote {file}; `mtft-launch validate --config {file}` shows every effective value")
    return exit_codes.DONE
