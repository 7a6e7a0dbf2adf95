"""The data of a run: read, checked, split and tokenised once, then mapped into memory by every process.

``python -m trainer.preparation --run-dir DIR`` is a process of its own, before any rank starts.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mtft import files, lease
from mtft.config import Config
from mtft.errors import InputError, Retry
from mtft.models import ModelCard
from mtft.runs import RunPaths
from mtft.settings import load_document, resolve
from mtft.split import SPLITS
from trainer.processes import end_with_parent, heed_interrupts
from trainer.reasons import USER_ERRNOS, advice_on, guard

if TYPE_CHECKING:
    from mtft.rows import Rejected
    from trainer.building import Inputs
    from trainer.prepared_data import PairEncoder, Prepared

_log = logging.getLogger("mtft.data")

_INPUTS = {"train", "dev", "test", "sha256"}
# Later settings of `data` count only where they are not at their default: else an image with one more would build every
# store anew and refuse the checkpoints that name them. So such a default may change only together with FORMAT.
_ALWAYS_IN_KEY = {
    *("dev_fraction", "split_seed", "max_samples"),
    *("on_bad_row", "max_bad_fraction", "max_unknown_fraction"),
}

_UNTOUCHED_SECONDS = 6 * 3600  # longer than reading the data once, when nothing is written, may take


def main(arguments: list[str]) -> int:
    """Prepare the data of a run."""
    heed_interrupts()
    end_with_parent()
    parser = argparse.ArgumentParser(prog="python -m trainer.preparation", description=main.__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, help="the run's folder, with its config.yaml")
    options = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("mtft").setLevel(logging.INFO)
    with guard(rank=0):
        prepare_run(RunPaths.of(options.run_dir))
    return 0


def prepare_run(paths: RunPaths) -> None:
    """Prepare the data of a run, note where it lies and copy the list of dropped rows to the run.

    Raises:
        InputError: the data, the tokenizer or the storage cannot be used.
    """
    from trainer.quiet import loading, quiet_libraries

    with loading():
        quiet_libraries()
        from trainer.base_files import check_checkpoint
        from trainer.building import Inputs
        from trainer.distributed import choose_device, choose_precision
        from trainer.encoding import Encoder
        from trainer.guards import count_leaked, prepare_guards
        from trainer.hub import pin_base
        from trainer.prepared_run import remember_prepared

    resolved = resolve(load_document(paths.config))
    card = resolved.card
    # What would stop every rank is said before millions of rows are tokenised.
    choose_precision(resolved.config, choose_device(resolved.config, 0))
    config = pin_base(paths, resolved.config, card)
    check_checkpoint(card, config)
    inputs = Inputs.of(config.data)
    dropped = prepare_guards(paths, config, card, inputs.in_order())
    prepared = prepare(config, card, Encoder.load(card, config), inputs, paths.root)
    count_leaked(paths, config, inputs.files["train"])
    with files.replacing(paths.rejected) as beside:
        copy_rejected(prepared, inputs, beside, dropped)
    remember_prepared(paths, prepared)


def copy_rejected(prepared: Prepared, inputs: Inputs, target: Path, further: Iterable[Rejected] = ()) -> None:
    """Write the list of dropped rows with the names this run's files have; another run's may have made the store.

    ``further`` ones were dropped from files that are not in the store.
    """
    names = dict(zip((file["file"] for file in prepared.stats["files"]), inputs.in_order(), strict=True))
    with (
        (prepared.folder / "rejected.jsonl").open(encoding="utf-8") as lines,
        target.open("w", encoding="utf-8") as out,
    ):
        for line in lines:
            dropped = json.loads(line)
            out.write(files.json_line({**dropped, "file": names[dropped["file"]]}))
        for each in further:
            out.write(files.json_line(each.as_dict()))


def prepare(config: Config, card: ModelCard, encoder: PairEncoder, inputs: Inputs, root: Path) -> Prepared:
    """Return the prepared data of a run; build them below ``<root>/cache/data`` when they are not there as written.

    Raises:
        InputError: a file is unreadable; too many rows are bad; no rows are left for training or dev; the tokenizer
            does not know the text; the cache cannot be written.
        Retry: the volume failed in a way that may pass, or another process damaged what was built.
    """
    from trainer.building import Builder
    from trainer.prepared_data import damage, open_prepared, publish

    folder = root / "cache" / "data" / _key(config, card, encoder, inputs)
    building = _beside(folder)
    try:
        if folder.is_dir() and damage(folder, hashed=True) is None:
            return open_prepared(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lease.hold(folder.with_name(f"{folder.name}.lease")):
            # Looked at again: another process may have built it meanwhile.
            if folder.is_dir() and (found := damage(folder, hashed=True)):
                _log.warning("%s; the tokenised data are built anew", found)
                # Without its name first: nobody opens half a store. NFS keeps what another process reads.
                shutil.rmtree(folder.rename(_beside(folder)), ignore_errors=True)
            if not folder.is_dir():
                _sweep(folder.parent)
                building.mkdir()
                Builder(config, card, encoder, inputs, building).build()
                publish(building, folder)
    except OSError as error:
        if error.errno is not None and error.errno not in USER_ERRNOS:
            raise Retry(f"{folder.parent}: {error.strerror or error} while the data were tokenised") from error
        advice = advice_on(error) or "storage.root must be a writable folder"
        raise InputError(
            f"{folder.parent}: the tokenised data cannot be written: {error.strerror or error}; {advice}"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return open_prepared(folder)


def _beside(folder: Path) -> Path:
    """Return a name beside a store that says whose it is, for :func:`_is_abandoned`."""
    return folder.with_name(f".{folder.name}.{_here()}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def _here() -> str:
    return lease.machine().replace("/", "-")


def _sweep(data: Path) -> None:
    """Remove half stores and files of leases that nobody works on any more."""
    for left in data.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process sweeps, or ends, too
            if not _is_abandoned(left):
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def _is_abandoned(left: Path) -> bool:
    """Whether its process on this machine is gone, or it was not touched for hours."""
    built = re.fullmatch(rf"\..*\.{re.escape(_here())}\.([0-9]+)\.[0-9a-f]+\.tmp", left.name)
    if built and not psutil.pid_exists(int(built[1])):
        return True
    inside = left.iterdir() if left.is_dir() else ()
    newest: float = max(path.stat().st_mtime for path in (left, *inside))
    return time.time() - newest > _UNTOUCHED_SECONDS


def _key(config: Config, card: ModelCard, encoder: PairEncoder, inputs: Inputs) -> str:
    """Return the SHA-256 over everything that decides what a store holds, and whether it may be built."""
    from trainer.prepared_data import FORMAT

    data = config.data.model_dump(mode="json", include=_ALWAYS_IN_KEY)
    later = config.data.model_dump(mode="json", exclude=_INPUTS | _ALWAYS_IN_KEY, exclude_defaults=True)
    parts = {
        "format": FORMAT,
        "content": [inputs.digest(name) for name in SPLITS],
        "data": data | later,
        "directions": card.directions,
        "encoder": encoder.fingerprint,
        "lengths": [config.train.max_source_length, config.train.max_target_length],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
