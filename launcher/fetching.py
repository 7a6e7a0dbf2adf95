"""What `fetch` brings, and what of the folder here it would mix with another run's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.files_here import content_of, reading, writing
from launcher.transfer import part_of, safe_path
from mtft.errors import InputError
from mtft.files import read_json, write_json
from mtft.text import printable

if TYPE_CHECKING:
    from launcher.transfer import Remote

MARK = ".mtft-fetched.json"
"""Which run a folder holds, written before its first file: ``{"run": TEXT, "files": [NAME, ...]}``."""
_NAMED = 5  # files of a refusal


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file of a run.

    Attributes:
        source: its path below the run's folder on the volume.
        name: its path below the folder here.
        target: where it goes on this machine.
        size: in bytes.
    """

    source: str
    name: str
    target: Path
    size: int


def complete(remote: Remote, run_folder: str, files: Sequence[Wanted]) -> set[str]:
    """Return the names of the files that are here already, byte for byte.

    Raises:
        InputError: one cannot be read, here or there.
        ClusterError: the pod cannot be reached.
    """
    with reading(files[0].target.parent):
        alike = [each for each in files if each.target.is_file() and each.target.stat().st_size == each.size]
    said = remote.ask_of("digests", run_folder, [each.source for each in alike])
    there = {each["path"]: each["sha256"] for each in said}
    return {each.name for each in alike if there.get(each.source) == content_of(each.target).sha256}


def claim(folder: Path, run: str, files: Sequence[Wanted], same: set[str], *, replace: bool) -> None:
    """Make a folder that of one run, so that it never holds files of two.

    Files of the same run stay: those that changed since are fetched over them.

    Args:
        folder: of this machine.
        run: names the run.
        files: what is asked for of it.
        same: names of those that are here already.
        replace: remove what `fetch` brought of another run, and files of the names that are asked for.

    Raises:
        InputError: it holds another run's files and ``replace`` is not given, or it cannot be written.
    """
    mark = _mark(folder)
    names, before = {each.name for each in files}, set(mark.get("files", ()))
    if mark.get("run") != run:
        others = (before | {each.name for each in files if each.target.exists()}) - same
        others = {name for name in others if safe_path(folder, name).exists()}
        if others and not replace:
            raise InputError(_refusal(folder, mark.get("run"), sorted(others)))
        with writing(folder):
            for name in (before | names) - same:
                path = safe_path(folder, name)
                part_of(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
        before = set()
    with writing(folder):
        write_json(folder / MARK, {"run": run, "files": sorted(before | names)})


def _mark(folder: Path) -> dict[str, Any]:
    try:
        found = read_json(folder / MARK)
    except (OSError, ValueError):
        return {}
    sound = isinstance(found, dict) and isinstance(found.get("run"), str) and isinstance(found.get("files"), list)
    return found if sound and all(isinstance(name, str) for name in found["files"]) else {}


def _refusal(folder: Path, run: str | None, others: Sequence[str]) -> str:
    more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    return (
        f"{folder} holds files of {f'another run, {printable(run)}' if run else 'another origin'}: "
        f"{', '.join(map(printable, others[:_NAMED]))}{more}; nothing was fetched\n"
        "--to DIR takes another folder; --replace removes these files first"
    )
