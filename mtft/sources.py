"""Open data wherever it lies: files, folders, gzip and zstd, object stores; as bounded lines of bytes.

Compression is recognised by the first bytes, never by the name. Lines end at ``\\n`` and nowhere else.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from mtft.errors import InputError, MtftError, Retry, may_pass
from mtft.text import printable

MAX_LINE_BYTES = 1 << 20
"""Longest line that is read whole, in bytes; of a longer one only the first ``MAX_LINE_BYTES + 1`` are kept."""

REMOTE_SCHEMES = ("s3://", "gs://", "hf://")
_CLIENTS = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_PATTERNS = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
_NAMED = 5
DATA_SETTINGS = "data.train, data.dev and data.test"

_CHUNK = 1 << 18
# One compressed block of 4 bytes can hold 128 KiB: small inputs bound what one step can unfold to.
_ZSTD_INPUT = 1 << 10
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BrokenStreamError(Exception):
    """A compressed file ended early or is damaged; ``rest`` is the unfinished line before the break."""

    rest: bytes = b""


def as_list(paths: str | Sequence[str] | None) -> list[str]:
    """Return data as a list of paths, whichever way it was given."""
    return [paths] if isinstance(paths, str) else list(paths or ())


def expand(paths: Sequence[Path | str], setting: str = DATA_SETTINGS) -> list[str]:
    """List the files that ``paths`` name: folders become their ``*.jsonl``, ``.jsonl.gz`` and ``.jsonl.zst``, sorted.

    Args:
        paths: files and folders.
        setting: where a person named them.

    Raises:
        InputError: a path is empty, something is missing, is no regular file or named twice, or a folder holds no file.
    """
    files = [file for path in paths for file in _expand_one(str(path), setting)]
    if not files:
        raise InputError("no data file given; name at least one JSON Lines file or folder")
    first: dict[str, str] = {}
    for file in files:
        real = real_path(file)
        if real in first:
            how = "named twice" if first[real] == file else f"the same file as {first[real]}"
            raise InputError(f"{printable(file)}: {how}; each data file may be given once")
        first[real] = file
    return files


def passed_over(paths: Sequence[Path | str]) -> list[str]:
    """List what lies in the folders of ``paths`` and is not read: folders, and files of other names; no hidden ones.

    Raises:
        InputError: a folder cannot be read.
        Retry: it cannot be read at the moment.
    """
    folders = [_listing(str(path)) for path in paths]
    return [other for folder in folders if folder is not None for other in folder[1]]


def passed_over_note(others: Sequence[str]) -> str | None:
    """Return one line for people about what `passed_over` gives; None when that is nothing."""
    if not others:
        return None
    named = ", ".join(printable(other) for other in others[:_NAMED])
    more = f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else ""
    are = "entry of a data folder is" if len(others) == 1 else "entries of data folders are"
    return f"{len(others):,} {are} not read: {named}{more}; of a folder its own {_PATTERNS} are, and no folder below it"


def real_path(file: str) -> str:
    """Return one name for one file: local ones without links and ``..``."""
    return file if file.startswith(REMOTE_SCHEMES) else str(Path(file).resolve())


def read_lines(file: str) -> Iterator[bytes]:
    """Yield the lines of one file without their ``\\n``, each cut to ``MAX_LINE_BYTES + 1`` bytes.

    Raises:
        InputError: the file cannot be opened or read.
        Retry: it cannot be read at the moment.
        BrokenStreamError: its compressed data end early or are damaged; every line before was yielded.
    """
    rest = b""
    with closing(_chunks(file)) as chunks:
        try:
            for chunk in chunks:
                lines = chunk.split(b"\n")
                lines[0] = rest + lines[0]
                rest = lines.pop()[: MAX_LINE_BYTES + 1]
                yield from lines
        except BrokenStreamError as error:
            error.rest = rest
            raise
    if rest:
        yield rest


def content_sha256(paths: Sequence[Path | str], setting: str = DATA_SETTINGS) -> str:
    """Identify data by content as ``data.sha256`` does, in 64 hex digits.

    One file: the SHA-256 of its bytes as stored (what ``sha256sum`` prints). Several: the SHA-256 over those
    digests, one a line, in the order of `expand`.

    Raises:
        InputError: a file is missing or unreadable.
        Retry: one cannot be read at the moment.
    """
    return combined_sha256([file_sha256(file) for file in expand(paths, setting)])


def combined_sha256(digests: Sequence[str]) -> str:
    """Join the digests of several files into one; a single digest stays as it is."""
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def file_sha256(file: str) -> str:
    """Return the SHA-256 of one file's bytes as stored, local or remote."""
    digest = hashlib.sha256()
    with _reading(file), _open(file) as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def _expand_one(path: str, setting: str) -> list[str]:
    if not path:
        raise InputError("a data path is empty; name a JSON Lines file or folder (the current folder is .)")
    folder = _listing(path)
    if folder is not None:
        return folder[0] or _no_data(path)
    if path.startswith(REMOTE_SCHEMES):
        return [path]
    try:
        if Path(path).is_file():
            return [path]
        exists = Path(path).exists()
    except OSError as error:
        raise _unreadable(path, error) from error
    if exists:
        raise InputError(f"{printable(path)}: not a regular file or folder; data are read more than once")
    raise InputError(f"{printable(path)}: no such file or folder; check {setting}")


def _listing(path: str) -> tuple[list[str], list[str]] | None:
    """Return the data files of a folder and what else lies in it, both sorted; None for anything but a folder."""
    children = _remote_children(path) if path.startswith(REMOTE_SCHEMES) else _local_children(path)
    if children is None:
        return None
    visible = sorted((name, is_file) for name, is_file in children if not _last(name).startswith("."))
    data = [name for name, is_file in visible if is_file and name.endswith(SUFFIXES)]
    return data, [name if is_file else f"{name}/" for name, is_file in visible if name not in data]


def _local_children(path: str) -> list[tuple[str, bool]] | None:
    try:
        return [(str(each), each.is_file()) for each in Path(path).iterdir()] if Path(path).is_dir() else None
    except OSError as error:
        raise _unreadable(path, error) from error


def _remote_children(path: str) -> list[tuple[str, bool]] | None:
    fsspec = _fsspec(path)
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        if not filesystem.isdir(inner):
            return None
        # Some stores list the folder itself.
        found = [each for each in filesystem.ls(inner, detail=True) if each["name"].strip("/") != inner.strip("/")]
        return [(str(filesystem.unstrip_protocol(each["name"])), each["type"] == "file") for each in found]
    except ImportError as error:
        raise _no_client(path) from error
    except Exception as error:  # every store has exceptions of its own, such as missing credentials
        raise _unreadable(path, error) from error


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2]


def _no_data(path: str) -> list[str]:
    raise InputError(f"{printable(path)}: no {_PATTERNS} in this folder")


def _fsspec(path: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise _no_client(path) from error
    return fsspec


def _no_client(path: str) -> InputError:
    scheme = path.partition("://")[0]
    client = _CLIENTS.get(scheme, f"a client for {scheme}")
    return InputError(
        f"{path}: reading {scheme}:// needs fsspec and {client}; install them with: pip install 'mtft[train]'"
    )


def _open(file: str) -> BinaryIO:
    if not file.startswith(REMOTE_SCHEMES):
        return Path(file).open("rb")
    try:
        return cast(BinaryIO, _fsspec(file).open(file, "rb", compression=None).open())
    except InputError:
        raise
    except Exception as error:  # as in _expand_remote
        raise _unreadable(file, error) from error


def _chunks(file: str) -> Generator[bytes, None, None]:
    """Yield the uncompressed bytes of one file in pieces of bounded size."""
    with _reading(file), _open(file) as stream:
        head = stream.read(4)
        stream.seek(0)
        if head.startswith(_GZIP_MAGIC):
            yield from _gunzip(stream)
        elif head == _ZSTD_MAGIC or (head[1:] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):
            yield from _unzstd(stream)
        else:
            while block := stream.read(_CHUNK):
                yield block


@contextmanager
def _reading(file: str) -> Iterator[None]:
    """Say which file an error of the block is about.

    Raises:
        InputError: it is unreadable.
        Retry: it cannot be read at the moment.
    """
    try:
        yield
    except OSError as error:
        raise _unreadable(file, error) from error
    except (MtftError, BrokenStreamError, ImportError):
        raise
    except Exception as error:  # a store's client has errors of its own for a connection that was cut
        if not file.startswith(REMOTE_SCHEMES):
            raise
        detail = str(error) or type(error).__name__
        raise Retry(f"{printable(file)}: cannot be read now: {detail}; try again") from error


def _gunzip(stream: BinaryIO) -> Iterator[bytes]:
    # read1, not read: it hands over what was unfolded before a break.
    with gzip.GzipFile(fileobj=stream) as plain:
        try:
            while block := plain.read1(_CHUNK):
                yield block
        except EOFError as error:
            raise BrokenStreamError("the gzip data end early") from error
        except (zlib.error, gzip.BadGzipFile) as error:
            raise BrokenStreamError(f"the gzip data are damaged ({error})") from error


def _unzstd(stream: BinaryIO) -> Iterator[bytes]:
    # The stream reader of the library takes an early end for a normal one; the frame object knows the difference.
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    while block := stream.read(_ZSTD_INPUT):
        while block:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                plain = frame.decompress(block)
            except zstandard.ZstdError as error:
                raise BrokenStreamError(f"the zstd data are damaged ({error})") from error
            if plain:
                yield plain
            block = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise BrokenStreamError("the zstd data end early")


def _unreadable(file: str, error: Exception) -> InputError | Retry:
    detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    if may_pass(error):
        return Retry(f"{printable(file)}: cannot be read now: {detail}; try again")
    return InputError(f"{printable(file)}: cannot be read: {detail}")
