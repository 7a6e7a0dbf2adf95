"""The preparation step as a process of its own: ``python -m trainer.preparation --run-dir DIR``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from mtft import files
from mtft.runs import RunPaths
from mtft.settings import load_document, resolve
from trainer.processes import end_with_parent
from trainer.reasons import guard


def main(arguments: list[str]) -> int:
    """Read, check, split and tokenise the data of a run, once, before any rank starts."""
    end_with_parent()
    parser = argparse.ArgumentParser(prog="python -m trainer.preparation", description=main.__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="the run's folder, with its config.yaml")
    options = parser.parse_args(arguments)
    with guard(rank=0):
        prepare_run(RunPaths.of(options.run_dir))
    return 0


def prepare_run(paths: RunPaths) -> None:
    """Prepare the data of a run, note where it lies and copy the list of dropped rows to the run.

    Raises:
        InputError: the data, the tokenizer or the storage cannot be used.
    """
    from trainer.encoding import Encoder
    from trainer.prepare import prepare
    from trainer.run import remember_prepared

    resolved = resolve(load_document(paths.config))
    config, card = resolved.config, resolved.card
    prepared = prepare(config, card, Encoder.load(card, config), paths.root)
    with files.replacing(paths.rejected) as beside:
        shutil.copyfile(prepared.folder / "rejected.jsonl", beside)
    remember_prepared(paths, prepared)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
