"""``mtft-launch reproduce``: the job that made a run, once more; or a rerun held to the same data and base."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import storekeeping
from mtft import exit_codes

if TYPE_CHECKING:
    from launcher.reproduction import Recorded

EXAMPLE = """mtft-launch reproduce opus_mt_en_fr | kubectl diff -f -
  mtft-launch reproduce outputs/opus_mt_en_fr/runs/20300102T030405Z-0a1b2c3d --rerun > again.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this verb."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="MODEL (its current run), MODEL/RUN-ID, or the folder of a run on this machine, such as a fetched one",
    )
    parser.add_argument(
        "--rerun",
        action="store_true",
        help="another job of the same configuration, which refuses other data or another base",
    )
    storekeeping.add_place_arguments(parser)
    parser.set_defaults(output_format="yaml")


def run(args: argparse.Namespace) -> int:
    """Print the objects that were sent; of a run that was made without a cluster, the document."""
    from launcher.backends.kubernetes import show
    from launcher.output import print_document

    recorded = _recorded(args)
    for remark in recorded.remarks():
        print(f"note: {remark}", file=sys.stderr)
    if recorded.pod is None:
        document = recorded.pinned() if args.rerun else recorded.document
        again = f"mtft-launch run --backend local --config FILE --model {recorded.model}"
        print(
            f"note: made without a cluster, as job {recorded.job}; with this document in FILE: {again} --rerun",
            file=sys.stderr,
        )
        print_document(document, "json" if args.output_format == "json" else "yaml")
        return exit_codes.DONE
    objects = recorded.objects(args.namespace, secrets.token_hex(4) if args.rerun else None)
    show(objects, args.output_format)
    return exit_codes.DONE


def _recorded(args: argparse.Namespace) -> Recorded:
    """Return the record of the run that is named, from this machine or a cluster's volume."""
    from launcher.reproduction import Recorded
    from mtft import provenance
    from mtft.runs import RunPaths

    folder = Path(args.run)
    if (folder / "provenance.json").is_file():
        return Recorded.of(provenance.read(RunPaths.of(folder).provenance))
    args.model, _, run_id = args.run.strip("/").partition("/")
    with storekeeping.reached(args, read_only=True) as ask:
        return Recorded.of(ask("provenance", run=run_id or None)["provenance"])
