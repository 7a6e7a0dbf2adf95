"""``python -m trainer.translate --run-dir DIR [FILE]``: translate lines or JSONL with a finished run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from trainer.processes import heed_interrupts
from trainer.quiet import loading, quiet_libraries
from trainer.reasons import guard


def main(arguments: list[str] | None = None) -> None:
    """Translate one input to one output."""
    heed_interrupts()
    parser = argparse.ArgumentParser(prog="python -m trainer.translate", description=__doc__)
    parser.add_argument("input", nargs="?", default="-", help="file to translate; - is standard input")
    parser.add_argument("--run-dir", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--output", default="-", help="file to write; - is standard output")
    parser.add_argument(
        "--format", choices=("lines", "jsonl"), help="default: jsonl for *.jsonl and *.jsonl.gz, else lines"
    )
    parser.add_argument("--source-lang", help="language of the lines, where the model translates both ways")
    parser.add_argument("--beams", type=int, help="beam width; default: eval.beams of the run")
    parser.add_argument("--base", action="store_true", help="translate with the untuned base instead")
    parser.add_argument("--model-path", help="folder of the base, where it is not where the run had it")
    options = parser.parse_args(arguments)
    with guard(rank=0):
        # Inside the guard: a library that cannot be loaded is a reason too.
        with loading():
            quiet_libraries()
            from trainer.translating import run_translation

        try:
            run_translation(options)
        except BrokenPipeError:
            # The reader, such as `head`, has seen enough; Python must not complain when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
