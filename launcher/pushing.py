"""What `data push` sends, and what of the volume it would take the place of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from launcher.files_here import Content, content_of, reading
from launcher.remote_files import refuse
from mtft.errors import InputError
from mtft.sources import REMOTE_SCHEMES, SUFFIXES, combined_sha256
from mtft.text import printable

if TYPE_CHECKING:
    from launcher.transfer import Remote

_NAMED = 5  # files of a refusal


@dataclass(frozen=True, kw_only=True)
class ToSend:
    """A file of this machine that is to lie on the volume.

    Attributes:
        path: where it is here.
        name: its name below ``data/``.
        content: what it held when it was looked at.
    """

    path: Path
    name: str
    content: Content


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Files here beside those on the volume; names are below ``data/``.

    Attributes:
        same: names of those that are there already, byte for byte.
        other: name -> the other file that is there.
        extra: data files the trainer would read of the folder on the volume, and the one here does not have.
    """

    same: frozenset[str]
    other: Mapping[str, Content]
    extra: Mapping[str, Content]


def local_files(path: Path, name: str | None = None) -> list[ToSend]:
    """Return what a person wants to push: a file, or every file of a folder but hidden ones; each is read once.

    Args:
        path: the file or folder.
        name: its name on the volume; None: the one it has.

    Raises:
        InputError: there is nothing, a link or a special file among it, or something that cannot be read.
    """
    with reading(path):
        if not path.exists() and str(path).startswith(tuple(scheme.removesuffix("/") for scheme in REMOTE_SCHEMES)):
            raise InputError(f"{path}: trainers read an object store themselves; give its address to data.train")
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder")
        top = path.resolve()
    if top.is_file():
        return [_sent(top, name or path.name)]
    if not top.is_dir():
        raise InputError(f"{path}: is neither a file nor a folder")
    if top == Path(top.anchor):
        raise InputError(f"{path}: is the whole file system; push the folder that is meant")
    found = sorted(_below(top))
    if not found:
        raise InputError(f"{path}: the folder holds no file")
    return [_sent(each, str(PurePosixPath(name or top.name, *each.relative_to(top).parts))) for each in found]


def _below(top: Path) -> Iterator[Path]:
    with reading(top):
        for where, folders, names in os.walk(top, onerror=refuse):
            folders[:] = [each for each in folders if not each.startswith(".")]
            links = [each for each in folders if Path(where, each).is_symlink()]
            for each in (Path(where, name) for name in (*links, *names) if not name.startswith(".")):
                if each.is_symlink() or not each.is_file():
                    raise InputError(f"{each}: is a link or no regular file; push what it stands for by itself")
                yield each


def _sent(path: Path, name: str) -> ToSend:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name!a}: the name is not UTF-8, so the volume cannot have it; rename it") from None
    return ToSend(path=path, name=name, content=content_of(path))


def data_of(files: Sequence[ToSend]) -> list[ToSend]:
    """Return what a trainer would read of a file or folder that is pushed."""
    top, _, is_folder = files[0].name.partition("/")
    return [each for each in files if not is_folder or _is_data(each.name, top)]


def data_sha256(files: Sequence[ToSend]) -> str | None:
    """Return ``data.sha256`` of what is pushed, as the trainer reads it; None for a folder that holds no data."""
    data = data_of(files)
    return combined_sha256([each.content.sha256 for each in data]) if data else None


def compare(remote: Remote, folder: str, files: Sequence[ToSend]) -> Comparison:
    """Return how files here stand to what lies under their names in a folder of the volume.

    Raises:
        InputError: the volume cannot be read, or has a file where a folder is to be, or the other way round.
        ClusterError: the pod cannot be reached.
    """
    top, _, is_folder = files[0].name.partition("/")
    said = remote.ask("digests", folder, top)
    there = {each["path"]: Content(each["size"], each["sha256"]) for each in said}
    here = {each.name: each.content for each in files}
    _refuse_clash(folder, set(here), set(there))
    lacking = {name for name in there if _is_data(name, top)} - set(here) if is_folder else ()
    return Comparison(
        same=frozenset(name for name in here if there.get(name) == here[name]),
        other={name: there[name] for name in here if name in there and there[name] != here[name]},
        extra={name: there[name] for name in sorted(lacking)},
    )


def _is_data(name: str, top: str) -> bool:
    """Whether the trainer reads a file of a folder as data: its own files, not those of folders below."""
    return str(PurePosixPath(name).parent) == top and name.endswith(SUFFIXES)


def _refuse_clash(folder: str, here: set[str], there: set[str]) -> None:
    """Refuse a folder on a file's name and a file on a folder's."""
    for mine, theirs, is_mine, is_theirs in ((here, there, "folder", "file"), (there, here, "file", "folder")):
        above = {str(each) for name in mine for each in PurePosixPath(name).parents}
        if clash := sorted(above & theirs):
            raise InputError(
                f"{folder}/{printable(clash[0])} is a {is_theirs} on the volume and a {is_mine} here; "
                "nothing was sent; --to NAME pushes it under another name (--replace only replaces files by files)"
            )


def refuse_others(folder: str, files: Sequence[ToSend], found: Comparison) -> None:
    """Refuse to take the place of other files, or to add to a folder that holds further data.

    Raises:
        InputError: naming them, and the ways out.
    """
    here = {each.name: each.content for each in files}
    lines = [
        f"  {printable(name)}: there {lying.size:,} bytes, SHA-256 {lying.sha256}; "
        f"here {here[name].size:,} bytes, SHA-256 {here[name].sha256}"
        for name, lying in list(found.other.items())[:_NAMED]
    ]
    lines += [
        f"  {printable(name)}: there {lying.size:,} bytes; the folder here does not have it"
        for name, lying in list(found.extra.items())[: _NAMED - len(lines)]
    ]
    if not lines:
        return
    if more := len(found.other) + len(found.extra) - len(lines):
        lines.append(f"  and {more:,} more")
    removes = ", and removes what the folder here does not have" if found.extra else ""
    raise InputError(
        "\n".join(
            [
                f"{folder} has other data under this name; nothing was sent",
                *lines,
                f"--to NAME pushes it under another name; --replace puts it in the place of what is there{removes}",
            ]
        )
    )
