"""Files that are complete or absent: written beside, synced, renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_ESCAPE = "backslashreplace"  # of surrogates, which names of files hold that are not UTF-8; JSON knows such escapes
_STALE_TRIES = 5
_STALE_PAUSE = 0.05  # seconds, doubled each time


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; on success sync it and rename it to ``path``.

    On an error the temporary file is removed and ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 text file atomically; what a file's name has that is not UTF-8 becomes an escape."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=_ESCAPE, newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically, indented, non-ASCII kept readable, NaN refused."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def json_line(value: Any) -> str:
    """Return one JSON value as a line that can be written as UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode(errors=_ESCAPE).decode() + "\n"


def read_json(path: Path) -> Any:
    """Return one JSON document.

    Raises OSError or ValueError when it is not there or no JSON.
    """
    return json.loads(path.read_text(encoding="utf-8"))


def link_new(beside: Path, target: Path) -> bool:
    """Give a written file its name; return False where the name exists already, on NFS too.

    ``beside`` stays. On object-store volumes, which have no hard links, it is moved; of two writers at once both may
    be told True there.
    """
    try:
        os.link(beside, target)
    except FileExistsError:
        # NFS may answer so to its own repeated request: the link count tells.
        if beside.stat().st_nlink < 2:
            return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if target.exists():
            return False
        os.replace(beside, target)
    sync_folder(target.parent)
    return True


def steadily(action: Callable[[], T]) -> T:
    """Do something that reads, again where NFS lost the file under it: replaced at that moment, it is there anew."""
    for attempt in range(_STALE_TRIES):
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            time.sleep(_STALE_PAUSE * 2**attempt)
    return action()


def read_steadily(path: Path) -> str:
    """Return a UTF-8 text file that others replace meanwhile: as it was or as it is."""
    return steadily(lambda: path.read_text(encoding="utf-8"))


def publish_folder(built: Path, target: Path) -> None:
    """Put a finished folder in its place: shared, every file synced, then renamed; what was there goes last."""
    share(built)
    sync_files(built)
    replaced = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
    if target.exists():
        target.rename(replaced)
    built.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Mend what killed writers left below a folder that nobody else writes to now.

    A folder that was moved aside and never replaced gets its name back; everything unfinished is removed.
    """
    for aside in list(folder.rglob(".*.old")):
        target = aside.with_name(aside.name[1:].rsplit(".", 2)[0])
        if not target.exists():
            aside.rename(target)
    for path in [path for pattern in (".*.tmp", ".*.old") for path in folder.rglob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


SHARED_UMASK = 0o002
"""In a pod every UID is of group 0, and the volume's files are that group's."""


def share(folder: Path) -> None:
    """Give every file below a folder the permissions the umask allows; safetensors writes for the owner only."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def sync_files(folder: Path) -> None:
    """Make every file below a folder durable, and the folder's own entries."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as written:
                os.fsync(written.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def listing(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each file of a folder by name, for :func:`damage` to hold it against later."""
    found = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: {"size": path.stat().st_size, "sha256": sha256_file(path)} for path in found}


def damage(folder: Path, listed: Mapping[str, Mapping[str, Any]], *, hashed: bool) -> str | None:
    """Say of the first file that is not as it was listed what is wrong with it; None where all are.

    Args:
        folder: where they lie.
        listed: as :func:`listing` returns it; an entry without ``sha256`` is held against its size alone.
        hashed: compare SHA-256 too, for which everything is read.

    Raises:
        OSError: the volume does not answer.
    """
    for name, entry in listed.items():
        path = folder / name
        try:
            if path.stat().st_size != entry["size"]:
                return f"{path}: has not the size it was written with"
            if hashed and "sha256" in entry and sha256_file(path) != entry["sha256"]:
                return f"{path}: has not the SHA-256 it was written with"
        except FileNotFoundError:
            return f"{path}: is missing"
    return None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
