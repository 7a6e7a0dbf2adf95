"""The far end of `data push`, `fetch` and `doctor`: text that ``python3 -c`` runs in a pod.

It is sent with every request, and with it remote_runs.py, which is all it needs beside Python. What both ends need of
it (``alone``, ``write_whole``, ``refuse``) the launcher imports.

    receive PATH SIZE SHA256 [OLD]  write the bytes of stdin to PATH, where no other file but one of SHA-256 OLD may be;
                                says how many it has, so a cut one goes on
    list FOLDER NAME...         name every regular file of these files and folders, with its size; no links
    digests FOLDER NAME...      name every file of these files and folders, with size and SHA-256; links as what is read
    remove FOLDER NAME...       delete these files
    send PATH OFFSET            write the bytes of PATH from OFFSET on to stdout, then its SHA-256 to stderr
    run ROOT MODEL [job|run NAME]  name the run of a job, or that run, or without a name what a model's users get
    sound FOLDER                refuse a run whose deliverable is not byte for byte what was written
    look ROOT                   say how much room the volume has, what of it this user may not write, and whether names
                                of services are found

Everything it says is one JSON object a line, of ``send`` on stderr, else on stdout: ``{"error": ...}`` when a person
has to do something, ``{"note": ...}`` when a person should know, ``{"alive": true}`` so that silence means a cut.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from launcher.remote_runs import digest, run_of, sound

CHUNK = 1 << 20  # bytes
FULL = (errno.ENOSPC, errno.EDQUOT)
LET_IN = "let group 0 read and write the volume's folders (chgrp -R 0 and chmod -R g+rwX, by who administers it)"
COME_AS = "cluster.run_as_user or cluster.fs_group"
GROUP_WRITES = 0o002  # as the trainer's files
ALIVE_SECONDS = 20.0  # hashing a large file takes minutes, and the launcher takes long silence for a cut
IDLE_SECONDS = 60.0  # who sends nothing for so long has lost the connection and comes again
_voice = threading.Lock()


def main(arguments: list[str]) -> None:
    """Do one command; what goes wrong is said, not raised."""
    os.umask(GROUP_WRITES)
    verbs: dict[str, Callable[..., None]] = {
        "receive": receive,
        "list": list_files,
        "digests": digests,
        "remove": remove,
        "send": send,
        "run": run,
        "sound": sound,
        "look": look,
    }
    stream = sys.stderr if arguments[0] == "send" else sys.stdout
    done = threading.Event()
    alive = threading.Thread(target=stay_alive, args=(stream, done), daemon=True)
    alive.start()
    try:
        verbs[arguments[0]](*arguments[1:])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        say(stream, error=words_of(error))
    finally:
        done.set()
        alive.join()


def words_of(error: Exception) -> str:
    """Say what went wrong; where somebody has to be let in, as whom the pod came."""
    if not isinstance(error, OSError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    closed = error.errno in (errno.EACCES, errno.EPERM)
    pod = f"; the pod runs as {whom()}: {LET_IN}, or set {COME_AS} to who may" if closed else ""
    return f"{where}{error.strerror or error}{pod}"


def whom() -> str:
    """Say as which user and groups this process runs."""
    return f"user {os.getuid()}, groups {' '.join(map(str, sorted({os.getgid(), *os.getgroups()})))}"


def is_open(folder: Path) -> bool:
    """Whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def is_read_only(folder: Path) -> bool:
    """Whether the file system of a folder takes nothing from anybody."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def receive(name: str, size: str, sha256: str, old: str = "") -> None:
    """Continue a file from stdin; it gets its name only when the digest is right and nobody else took the name."""
    path, wanted = Path(name), int(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_there(path, wanted, sha256):
        return
    keep_others(path, old)
    if not is_open(path.parent):
        why = errno.EROFS if is_read_only(path.parent) else errno.EACCES
        raise OSError(why, os.strerror(why), str(path.parent))
    # The name holds the digest: what is left of another version is never continued.
    start = os.fsencode(path.name)[:150].decode(errors="ignore")  # a name may have 255 bytes in all
    part = path.with_name(f".{start}.{sha256[:16]}.part")
    if start == path.name:  # else it is the start of other names, too
        sweep(part, start)
    with alone(part, lambda: say(sys.stdout, note=f"another push of {part} is running; waiting for its end")) as out:
        if is_there(path, wanted, sha256):  # by another push of the same file, which this one waited for
            part.unlink()
            return
        with room_for(path, part, wanted):
            filled = fill(out, wanted)
        if not filled:
            return  # the connection was cut; the next call goes on from here
        found = digest(part)
        if found != sha256:
            part.unlink()
            raise ValueError(
                f"{path}: the SHA-256 of what arrived is {found}, not {sha256}; the file changed while it was pushed, "
                "or was damaged on the way; push it again"
            )
        keep_others(path, old)
        part.replace(path)
    say(sys.stdout, have=wanted, done=True, same=False)


def sweep(part: Path, start: str) -> None:
    """Delete what cut pushes of other versions of a file have left; what somebody may be pushing stays."""
    left = re.compile(rf"\.{re.escape(start)}\.[0-9a-f]{{16}}\.part")
    with suppress(OSError):  # a folder that may not be listed
        for other in (each for each in part.parent.iterdir() if each != part and left.fullmatch(each.name)):
            # Not `locked`: where there are no locks nobody knows.
            with suppress(OSError), other.open("ab", buffering=0) as out:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
                other.unlink()


@contextmanager
def room_for(path: Path, part: Path, wanted: int) -> Iterator[None]:
    """Refuse a file that the volume has no room for, before it is sent where that is seen.

    What had arrived is deleted: a full volume stops every job on it, and nobody but this push can use that.
    """
    have, usage = part.stat().st_size, shutil.disk_usage(part.parent)
    try:
        if usage.total and wanted - have > usage.free:  # a volume that does not say how large it is gives 0
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        have = part.stat().st_size
        free = shutil.disk_usage(part.parent).free
        part.unlink()
        raise ValueError(
            f"{path}: {error.strerror}: the file has {mib(wanted)}, "
            f"{f'{mib(have)} of it were there and ' if have else ''}{mib(free)} are free on the volume; "
            "nothing of it is left there; free some space or ask for a larger volume, then give the command again"
        ) from None


def mib(size: int) -> str:
    """Return a size as a person reads it."""
    return f"{size / 2**20:,.1f} MiB"


def is_there(path: Path, size: int, sha256: str) -> bool:
    """Say so where the file is there already, byte for byte."""
    if not path.is_file() or path.stat().st_size != size or digest(path) != sha256:
        return False
    say(sys.stdout, have=size, done=True, same=True)
    return True


def keep_others(path: Path, old: str) -> None:
    """Refuse a name that has a file nobody said may be replaced, or a folder."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder of the volume; push under another name with --to NAME")
    if path.is_file() and digest(path) != old:
        raise ValueError(f"{path}: somebody else put another file there meanwhile; give the command again to see it")


@contextmanager
def alone(part: Path, tell: Callable[[], None]) -> Iterator[BinaryIO]:
    """Open an unfinished file for whoever enters alone, unbuffered; ``tell`` is called before another is waited for."""
    while True:
        with part.open("ab", buffering=0) as out:
            if not locked(out):
                tell()
                while not locked(out):
                    time.sleep(0.5)
            same = False
            with suppress(FileNotFoundError):  # who had it before may have renamed it
                same = os.path.samestat(part.stat(), os.fstat(out.fileno()))
            if same:
                yield out
                return


def locked(out: BinaryIO) -> bool:
    """Whether this process has the file for itself, until it ends; a volume without locks gives True."""
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def fill(out: BinaryIO, wanted: int) -> bool:
    """Append stdin to a file up to its size; return False when the connection was cut before."""
    have = out.seek(0, os.SEEK_END)
    say(sys.stdout, have=have)
    source = sys.stdin.fileno()
    while have < wanted:
        ready = select.select([source], [], [], IDLE_SECONDS)[0]
        if not ready or not (block := os.read(source, min(CHUNK, wanted - have))):
            return False
        write_whole(out, block)
        have += len(block)
        say(sys.stdout, have=have)
    os.fsync(out.fileno())
    return True


def write_whole(out: BinaryIO, data: bytes) -> None:
    """Write all of it: an unbuffered file may take a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[out.write(rest) :]


def list_files(folder: str, *names: str) -> None:
    """Say every regular file at or below the names."""
    for name in names:
        for path in files_below(Path(folder, name)):
            if not path.is_symlink():  # a link could lead anywhere
                say(sys.stdout, path=str(path.relative_to(folder)), size=path.stat().st_size)


def digests(folder: str, *names: str) -> None:
    """Say every file at or below the names with the SHA-256 of what is read under it."""
    for name in names:
        for path in files_below(Path(folder, name)):
            say(sys.stdout, path=str(path.relative_to(folder)), size=path.stat().st_size, sha256=digest(path))


def files_below(top: Path) -> Iterator[Path]:
    """Yield a file, or the files below a folder, sorted; hidden ones there are none yet: they are being written.

    A folder that may not be listed is an error: what is in it would be missing without a word.
    """
    if top.is_file():
        yield top
        return
    found: list[Path] = []
    for folder, folders, names in os.walk(top, onerror=refuse if top.exists() else None):
        folders[:] = [each for each in folders if not each.startswith(".")]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    yield from (path for path in sorted(found) if path.is_file())


def refuse(error: OSError) -> None:
    """Raise what ``os.walk`` would pass over."""
    raise error


def remove(folder: str, *names: str) -> None:
    """Delete files; those that are gone already are none to speak of."""
    for name in names:
        Path(folder, name).unlink(missing_ok=True)


def send(name: str, offset: str) -> None:
    """Write a file from an offset to stdout; the digest is of the whole file."""
    skip, seen = int(offset), hashlib.sha256()
    with Path(name).open("rb") as source:
        while block := source.read(min(CHUNK, skip) if skip else CHUNK):
            seen.update(block)
            if skip:
                skip -= len(block)
            else:
                sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    say(sys.stderr, sha256=seen.hexdigest())


def run(root: str, model: str, kind: str = "", named: str = "") -> None:
    """Say the folder of a run and the name of what it made."""
    found = run_of(root, model, kind, named)
    if note := found.pop("note"):
        say(sys.stdout, note=note)
    say(sys.stdout, **found)


def look(root: str) -> None:
    """Say the bytes free and in all below a folder, where jobs may not write, and whether the cluster's DNS answers."""
    usage, top = shutil.disk_usage(root), Path(root)
    written = {name: top / name if os.path.lexists(top / name) else top for name in ("data", "outputs", "cache")}
    closed = {name: str(where) for name, where in written.items() if not is_open(where)}
    try:
        socket.getaddrinfo("kubernetes.default.svc", None)
        dns = True
    except OSError:
        dns = False
    say(
        sys.stdout, free=usage.free, total=usage.total, dns=dns, closed=closed, whom=whom(), read_only=is_read_only(top)
    )


def say(stream: TextIO, **values: object) -> None:
    """Write one JSON object as a line, at once."""
    with _voice:
        stream.write(json.dumps(values) + "\n")
        stream.flush()


def stay_alive(stream: TextIO, done: threading.Event) -> None:
    """Say something every now and then."""
    while not done.wait(ALIVE_SECONDS):
        say(stream, alive=True)


if __name__ == "__main__":
    main(sys.argv[1:])
