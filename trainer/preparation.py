"""The preparation step as a process of its own: ``python -m trainer.preparation --run-dir DIR``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mtft.runs import RunPaths
from mtft.settings import load_document, resolve
from trainer.reasons import guard


def main(arguments: list[str]) -> int:
    """Read, check, split and tokenise the data of a run, once, before any rank starts."""
    parser = argparse.ArgumentParser(prog="python -m trainer.preparation", description=main.__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="run directory with its config.yaml")
    paths = RunPaths.of(parser.parse_args(arguments).run_dir)
    with guard(rank=0):
        from trainer.prepare import prepare

        prepare(resolve(load_document(paths.config)).config, paths)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
