"""Entry of every rank: ``torchrun ... -m trainer.worker --run-dir DIR``.

Scores the base, trains, scores again and writes the deliverable. The supervisor has resolved the
configuration and prepared the data; why a rank ended goes into its reason file.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from trainer.processes import end_with_parent, heed_interrupts
from trainer.quiet import loading, quiet_libraries
from trainer.reasons import guard


def main(arguments: list[str] | None = None) -> None:
    """Run one rank to its end and leave with the exit code of DESIGN's table."""
    heed_interrupts()
    end_with_parent()
    parser = argparse.ArgumentParser(prog="python -m trainer.worker", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="the run's folder")
    options = parser.parse_args(arguments)
    with guard():
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # Inside the guard: a library that cannot be loaded is a reason too.
        with loading():
            quiet_libraries()
            from trainer.distributed import joined_world
            from trainer.prepared_run import open_run
            from trainer.session import Session

        run = open_run(options.run_dir)
        with joined_world(run.config) as world:
            Session(run, world).run()


if __name__ == "__main__":
    main()
