"""Write a stand-in checkpoint: ``python -m tests.standins opus_mt_en_fr /tmp/opus --size small``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mtft.errors import MtftError
from mtft.models import MODELS
from tests.standins.build import FAMILIES, SIZES, build_standin
from tests.standins.text import generated_pairs, lines_of, read_lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.standins", description=__doc__)
    parser.add_argument("model", metavar="KEY", help=f"one of {', '.join([*MODELS, *FAMILIES])}")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; must not exist")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    parser.add_argument("--text", type=Path, metavar="FILE.jsonl.gz", help="train the pieces on these rows")
    parser.add_argument("--pieces", type=int, help="pieces to train in place of the size's")
    options = parser.parse_args(arguments)
    try:
        lines = read_lines(options.text) if options.text else lines_of(generated_pairs(2000))
        build_standin(
            options.model,
            options.folder,
            lines=lines,
            size=options.size,
            seed=options.seed,
            vocab_pieces=options.pieces,
        )
    except MtftError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
