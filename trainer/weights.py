"""Weights are read from safetensors alone: a base without any is told apart by the names of its files."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mtft.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

SUFFIX = ".safetensors"
TEXTS = (".json", ".model", ".spm", ".txt")
"""Ends of a checkpoint's other files that its loaders read: configuration and tokenizer."""
PICKLES = (".bin", ".pt")
_PAUSE_SECONDS = 0.2


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU.

    Raises:
        OSError: it cannot be opened.
        SafetensorError: it is none.
    """
    from safetensors.torch import load_file

    touch(path)
    return load_file(path)


def touch(path: Path) -> None:
    """Read a byte of a file: safetensors says of every file that it cannot open that there is none.

    Raises:
        OSError: why it cannot be opened.
    """
    with path.open("rb") as file:
        file.read(1)


def read_twice(read: Callable[[], T]) -> T:
    """Read what a base is made of, once more where that failed, whatever the reason.

    Parsers in C++ do not tell a volume that fails for a moment from a file that is damaged, and a folder that cannot be
    looked at is taken for the name of a repository.
    """
    try:
        return read()
    except Exception:
        time.sleep(_PAUSE_SECONDS)
        return read()


def check_names(names: Iterable[str], source: str, revision: str | None = None) -> None:
    """Refuse a base of which no file holds weights that are read.

    Args:
        names: its files, those in folders below left out.
        source: its folder, or its repository on the hub.
        revision: its commit on the hub; None for a folder.

    Raises:
        InputError: it has no safetensors; where there is a pickle, with the command that converts it.
    """
    found = sorted(names)
    if any(name.endswith(SUFFIX) for name in found):
        return
    where = f"{source} at {revision}" if revision else source
    pickle = next((name for name in found if name.endswith(PICKLES)), None)
    if pickle is None:
        raise InputError(f"{where} holds no weights: no *{SUFFIX} file in it")
    message = (
        f"{where} holds its weights only as a pickle ({pickle}), which is never read. Convert it on a machine where "
        f"you trust it, then give the folder with --model-path FOLDER:\n  {_conversion(source, revision)}"
    )
    if revision:
        message += (
            "\nOr take a revision that holds safetensors, such as the hub's own conversion where a pull request of the "
            "repository offers it: --set model.revision=refs/pr/N"
        )
    raise InputError(message)


def _conversion(source: str, revision: str | None) -> str:
    arguments = json.dumps(source) + (f", revision={json.dumps(revision)}" if revision else "")
    code = (
        f'import transformers as t; [part.from_pretrained({arguments}).save_pretrained("FOLDER") '
        "for part in (t.AutoModelForSeq2SeqLM, t.AutoTokenizer)]"
    )
    return f"python -c {shlex.quote(code)}"
