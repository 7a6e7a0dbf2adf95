"""Files of this machine, as copies to and from a volume need them: what they hold, and their trouble in words."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from launcher.remote_files import locked
from mtft.errors import InputError

_LOCK_PAUSE = 0.5  # seconds


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        size: in bytes.
        sha256: of its bytes.
    """

    size: int
    sha256: str


def content_of(path: Path) -> Content:
    """Return what a file holds: the size is that of the bytes that were hashed, also while it grows.

    Raises:
        InputError: it cannot be read.
    """
    with reading(path), path.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
        return Content(source.tell(), sha256)


def read_on(source: BinaryIO, path: Path, count: int) -> bytes:
    """Return the next bytes of a file, ``count`` at most.

    Raises:
        InputError: it cannot be read any more, or has become shorter.
    """
    with reading(path):
        block = source.read(count)
    if not block and count:
        raise changed(path)
    return block


def changed(path: Path) -> InputError:
    """Return the error for a file that is not what was hashed any more."""
    return InputError(f"{path}: changed while it was pushed; push it again when nobody writes it any more")


@contextmanager
def alone(part: Path) -> Iterator[BinaryIO]:
    """Open an unfinished file, unbuffered and at its end, for this process alone; wait for another fetch of it."""
    while True:
        with part.open("ab", buffering=0) as out:
            told = False
            while not locked(out):
                if not told:
                    print(f"-- another fetch writes {part}; waiting for its end", file=sys.stderr, flush=True)
                told = True
                time.sleep(_LOCK_PAUSE)
            # Whoever had it before may have given it its name meanwhile.
            if part.exists() and os.path.samestat(part.stat(), os.fstat(out.fileno())):
                yield out
                return


def write_whole(out: BinaryIO, data: bytes) -> None:
    """Write all of it: an unbuffered file may take a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[out.write(rest) :]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say in words what stands against reading a file or folder.

    Raises:
        InputError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in words what stands against writing a file or folder.

    Raises:
        InputError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        where = f"{path}: cannot be written: {error.strerror or error}"
        raise InputError(f"{where}; make room or give another folder with --to DIR") from error


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that no file can be written to; one that is not there yet is not made.

    Raises:
        InputError: it, or the nearest folder above it, takes no file.
    """
    with writing(folder):
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists() or each.is_symlink())
        with TemporaryFile(dir=there):
            pass
