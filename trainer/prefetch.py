"""``python -m trainer.prefetch --config FILE``: fetch the bases of a document's models from the hub, each once.

What a cluster runs before a batch, so that no GPU waits for a download and no two jobs fetch the same base.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtft import exit_codes, files
from mtft.errors import ConfigError, MtftError, Problem
from mtft.settings import load_document, models_of, resolve
from trainer.processes import heed_interrupts


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch every base and say where it is; return 0, 2 when one cannot be had, or 143 when the hub is away."""
    heed_interrupts()
    parser = argparse.ArgumentParser(prog="python -m trainer.prefetch", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the document, as the user wrote it")
    options = parser.parse_args(arguments)
    os.umask(files.SHARED_UMASK)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mtft").setLevel(logging.INFO)
    try:
        wanted = bases(load_document(options.config))
    except MtftError as error:
        print(f"prefetch: {error}", file=sys.stderr)
        return error.exit_code
    codes = {_fetch(checkpoint, revision) for checkpoint, revision in wanted}
    # Where one wants mending, trying again helps nobody.
    return min(codes - {exit_codes.DONE}, default=exit_codes.DONE)


def bases(document: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return checkpoint and revision of each base that comes from the hub, each once; say which model needs none.

    Raises:
        ConfigError: with every problem of every model, or because there is no model.
    """
    problems: list[Problem] = []
    found: list[tuple[str, str | None]] = []
    models = models_of(document)
    if not models:
        raise ConfigError([Problem(path="models", message="has no enabled model")])
    for model in models:
        try:
            resolved = resolve(document, model=model)
        except ConfigError as error:
            problems += error.problems
            continue
        base = resolved.config.model
        if base.path is not None:
            print(f"{model}: nothing to fetch, its base is the folder {base.path}", flush=True)
        else:
            found.append((resolved.card.base, base.revision))
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return list(dict.fromkeys(found))


def _fetch(checkpoint: str, revision: str | None) -> int:
    from trainer.hub import fetch

    print(f"{checkpoint}: looking for it{f' at {revision}' if revision else ''}", flush=True)
    try:
        print(f"{checkpoint}: in the cache, at {fetch(checkpoint, revision).name}", flush=True)
    except MtftError as error:
        print(f"prefetch: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return exit_codes.DONE


if __name__ == "__main__":
    sys.exit(main())
