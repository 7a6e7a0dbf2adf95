"""Files of this machine, as copies to and from a volume need them: what they hold, and their trouble in words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from mtft.errors import InputError


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
