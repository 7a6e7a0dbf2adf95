"""The far end of `data push`, `fetch` and `doctor`: text that ``python3 -c`` runs in a pod, so it stands alone.

It is sent with every request; what both ends need of it (``alone``, ``write_whole``, ``refuse``) the launcher imports.

    receive PATH SIZE SHA256 [OLD]  write the bytes of stdin to PATH, where no other file but one of SHA-256 OLD may be;
                                says how many it has, so a cut one goes on
    list FOLDER NAME...         name every regular file of these files and folders, with its size; no links
    digests FOLDER NAME...      name every file of these files and folders, with size and SHA-256; links as what is read
    remove FOLDER NAME...       delete these files
    send PATH OFFSET            write the bytes of PATH from OFFSET on to stdout, then its SHA-256 to stderr
    run ROOT MODEL [job|run NAME]  name the run of a job, or that run, or without a name what a model's users get
    sound FOLDER                refuse a run whose deliverable is not byte for byte what was written
    look ROOT                   say how much room the volume has, and whether names of services are found

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
from typing import Any, BinaryIO, TextIO

CHUNK = 1 << 20  # bytes
FULL = (errno.ENOSPC, errno.EDQUOT)
GROUP_WRITES = 0o002  # as the trainer's files
ALIVE_SECONDS = 20.0  # hashing a large file takes minutes, and the launcher takes long silence for a cut
IDLE_SECONDS = 60.0  # who sends nothing for so long has lost the connection and comes again
RUN = re.compile(r"runs/[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
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
        "run": run_of,
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
        where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        say(stream, error=f"{where}{getattr(error, 'strerror', None) or error}")
    finally:
        done.set()
        alive.join()


def receive(name: str, size: str, sha256: str, old: str = "") -> None:
    """Continue a file from stdin; it gets its name only when the digest is right and nobody else took the name."""
    path, wanted = Path(name), int(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_there(path, wanted, sha256):
        return
    keep_others(path, old)
    # The name holds the digest: what is left of another version is never continued.
    start = os.fsencode(path.name)[:150].decode(errors="ignore")  # a name may have 255 bytes in all
    part = path.with_name(f".{start}.{sha256[:16]}.part")
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


def run_of(root: str, model: str, kind: str = "", named: str = "") -> None:
    """Say the folder of a run, of a job's run, or of a model's current run: the newest finished one if none is.

    A job that has not claimed a run yet has no folder.
    The rules of mtft/store.py over again, since this text may run where there is no mtft; a test holds them equal.
    """
    outputs = Path(root, "outputs", model)
    pointer, link, newest = outputs / "current.json", outputs / "current", False
    if kind == "run":
        name = f"runs/{named}"
    elif kind == "job":
        try:
            record = (outputs / "jobs" / f"{named}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            say(sys.stdout, folder=None, deliverable=None)
            return
        name = f"runs/{json.loads(record)['run_id']}"
    elif pointer.is_file():
        name = str(json.loads(pointer.read_text(encoding="utf-8"))["run"])
    elif link.is_symlink() or link.exists():
        name = str(link.readlink())
    else:
        name, newest = f"runs/{newest_of(outputs)}", True
    folder = outputs / name
    if not RUN.fullmatch(name) or folder.is_symlink():
        raise ValueError(f"{outputs}: {name!r} leads out of the store")
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such run; `mtft-launch history {model}` lists what was promoted")
    deliverable = deliverable_of(folder, unfinished=kind == "job")
    if newest:
        say(sys.stdout, note=unpromoted(folder))
    say(sys.stdout, folder=str(folder), deliverable=deliverable)


def newest_of(outputs: Path) -> str:
    """Return the run-id of a model's newest finished run."""
    found = [each for each in outputs.glob("runs/*/finished.json") if not each.parent.is_symlink()]
    finished = [each for each in found if RUN.fullmatch(f"runs/{each.parent.name}")]
    if not finished:
        raise ValueError(f"{outputs}: no run of {outputs.name} is finished yet")
    # Times sort as text; a file that cannot be understood counts as oldest.
    return max(finished, key=lambda each: (str(told_in(each).get("finished_at", "")), each.parent.name)).parent.name


def unpromoted(folder: Path) -> str:
    """Say of a run that stands in while nothing is promoted what the gate found, and what users get meanwhile."""
    gate = gate_of(folder)
    verdict, reasons = gate.get("verdict"), gate.get("reasons")
    why = f": {reasons[0]}" if isinstance(reasons, list) and reasons else ""
    found = f"run {folder.name}, the newest finished one ({verdict or 'not judged'}{why})"
    outputs = folder.parents[1]
    if last := promoted_last(outputs):
        force = "" if gate_of(outputs / "runs" / last).get("verdict") in ("promoted", "better") else " --force"
        return (
            f"nothing is current, although run {last} was promoted last: {outputs / 'current'} was removed, or not "
            f"copied with the store; `mtft-launch promote {outputs.name} --run {last}{force}` puts it back; this is "
            f"{found}"
        )
    return f"nothing is promoted, so this is {found}; users of the model get its base until one is promoted"


def gate_of(folder: Path) -> dict[str, Any]:
    """Return what the gate found of a run; empty where it was not judged or cannot be read."""
    gate = told_in(folder / "finished.json").get("gate")
    return gate if isinstance(gate, dict) else {}


def promoted_last(outputs: Path) -> str | None:
    """Return the run of the last entry in a model's journal, None where nothing was ever promoted."""
    numbered = [path for path in outputs.glob("promotions/*.json") if path.stem.isdecimal()]
    for path in sorted(numbered, key=lambda each: int(each.stem), reverse=True):
        name = told_in(path).get("run")
        if isinstance(name, str) and RUN.fullmatch(f"runs/{name}"):  # else a damaged entry
            return name
    return None


def told_in(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty where it cannot be read or holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def deliverable_of(folder: Path, *, unfinished: bool) -> str | None:
    """Return the name of what a run made, None where it is not finished; its files are there, and no links."""
    about = folder / "finished.json"
    told = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    name = told.get("deliverable")
    if name not in ("lora", "model"):
        return None
    weights = folder / name
    for each in (weights, *weights.glob("*")):
        if each.is_symlink():
            raise ValueError(f"{each}: is a link, which may lead out of the store; put the files themselves there")
    if not unfinished and not any(weights.glob("*.safetensors")):
        raise ValueError(f"{folder}: its deliverable {name!r} holds no safetensors; the run is damaged")
    return str(name)


def sound(run: str) -> None:
    """Hold the files of a deliverable against their size and SHA-256 in finished.json; earlier versions wrote none."""
    told = json.loads(Path(run, "finished.json").read_text(encoding="utf-8"))
    for name, entry in told.get("deliverable_files", {}).items():
        path = Path(run, told["deliverable"], name)
        if not path.is_file() or path.stat().st_size != entry["size"] or digest(path) != entry["sha256"]:
            raise ValueError(
                f"{path}: is not as it was written; the run is damaged: take another one with --run RUN-ID "
                "(`mtft-launch history MODEL`), or train it anew with --rerun"
            )


def look(root: str) -> None:
    """Say the bytes free and in all below a folder, and whether the cluster's DNS answers."""
    usage = shutil.disk_usage(root)
    try:
        socket.getaddrinfo("kubernetes.default.svc", None)
        dns = True
    except OSError:
        dns = False
    say(sys.stdout, free=usage.free, total=usage.total, dns=dns)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


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
