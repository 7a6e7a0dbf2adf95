"""What `data push` sends, and what of the volume it would take the place of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mtft.errors import InputError
from mtft.files import sha256_file
from mtft.sources import SUFFIXES, content_sha256, expand
from mtft.text import printable

if TYPE_CHECKING:
    from launcher.transfer import Remote

_NAMED = 5  # files of a refusal
_AT_ONCE = 100  # names of one command: they travel in the address of a request


@dataclass(frozen=True)
class Lying:
    """A file on the volume.

    Attributes:
        size: in bytes.
        sha256: of its bytes.
    """

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Files here beside those on the volume; names are below ``data/``.

    Attributes:
        same: names of those that are there already, byte for byte.
        other: name -> the other file that is there.
        extra: data files the trainer would read of the folder on the volume, and the one here does not have.
    """

    same: frozenset[str]
    other: Mapping[str, Lying]
    extra: Mapping[str, Lying]


def local_files(path: Path, name: str | None = None) -> list[tuple[Path, str]]:
    """Return (file, name below data/) of what a person wants to push: a file, or every file of a folder.

    Args:
        path: the file or folder.
        name: its name on the volume; None: the one it has.

    Raises:
        InputError: there is nothing, or a link or a special file among it.
    """
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    top = path.resolve()
    if top.is_file():
        return [(top, _sent(name or path.name))]
    if not top.is_dir():
        raise InputError(f"{path}: is neither a file nor a folder")
    if top == Path(top.anchor):
        raise InputError(f"{path}: is the whole file system; push the folder that is meant")
    found = []
    for each in sorted(top.rglob("*")):
        inner = each.relative_to(top)
        if any(part.startswith(".") for part in inner.parts) or (each.is_dir() and not each.is_symlink()):
            continue
        if each.is_symlink() or not each.is_file():
            raise InputError(f"{each}: is a link or no regular file; push what it stands for by itself")
        found.append((each, _sent(str(PurePosixPath(name or top.name, *inner.parts)))))
    if not found:
        raise InputError(f"{path}: the folder holds no file")
    return found


def _sent(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name!a}: the name is not UTF-8, so the volume cannot have it; rename it") from None
    return name


def data_sha256(path: Path) -> str | None:
    """Return ``data.sha256`` of a file or folder, as the trainer reads it; None for a folder that holds no data.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        files = expand([path])
    except InputError:  # `local_files` found it, so it is there: a folder without rows, such as a checkpoint
        return None
    return content_sha256(files)


def compare(remote: Remote, folder: str, files: Sequence[tuple[Path, str]]) -> Comparison:
    """Return how files here stand to what lies under their names in a folder of the volume.

    Raises:
        InputError: the volume cannot be read.
        ClusterError: the pod cannot be reached.
    """
    top = files[0][1].partition("/")[0]
    said = remote.ask("digests", folder, top)
    there = {each["path"]: Lying(each["size"], each["sha256"]) for each in said}
    same = {name for local, name in files if name in there and _is(local, there[name])}
    # Of a folder the trainer reads its own data files, not those of folders below.
    data = {name for name in there if str(PurePosixPath(name).parent) == top and name.endswith(SUFFIXES)}
    lacking = data - {name for _, name in files} if "/" in files[0][1] else ()
    return Comparison(
        same=frozenset(same),
        other={name: there[name] for _, name in files if name in there and name not in same},
        extra={name: there[name] for name in sorted(lacking)},
    )


def refuse_others(folder: str, files: Sequence[tuple[Path, str]], found: Comparison) -> None:
    """Refuse to take the place of other files, or to add to a folder that holds further data.

    Raises:
        InputError: naming them, and the ways out.
    """
    here = {name: local for local, name in files}
    lines = [
        f"  {printable(name)}: there {lying.size:,} bytes, SHA-256 {lying.sha256}; "
        f"here {here[name].stat().st_size:,} bytes, SHA-256 {sha256_file(here[name])}"
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


def remove(remote: Remote, folder: str, names: Sequence[str]) -> None:
    """Remove files of the volume.

    Raises:
        InputError: one cannot be removed.
        ClusterError: the pod cannot be reached.
    """
    for start in range(0, len(names), _AT_ONCE):
        remote.ask("remove", folder, *names[start : start + _AT_ONCE])


def _is(local: Path, lying: Lying) -> bool:
    return local.stat().st_size == lying.size and sha256_file(local) == lying.sha256
