"""Files to and from the shared volume, in pieces that survive a cut connection, checked by SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from launcher.cluster_errors import Busy, ClusterError, Cut, NoConnection
from launcher.exec_stream import CHUNK, STDERR, STDOUT, ExecStream
from launcher.files_here import Content, changed, content_of, read_on, reading, writing
from launcher.labels import CONTAINER
from launcher.printed import in_namespace, placed
from launcher.remote_files import alone, write_whole
from mtft.errors import InputError, MtftError
from mtft.files import sha256_file, sync_folder
from mtft.text import printable

if TYPE_CHECKING:
    from launcher.cluster import Cluster

T = TypeVar("T")

_TRIES = 8  # in a row that brought nothing
_SILENT_TRIES = 2  # after so many a person is told
_PAUSE = 1.0  # seconds, doubled each time
_AT_ONCE = 100  # names of one command: a cut one is asked again from its first
_LONGEST_NAME = 255  # bytes, of most file systems
_PROGRAM = Path(__file__).with_name("remote_files.py")
_BESIDE = {"launcher.remote_runs": _PROGRAM.with_name("remote_runs.py")}
# What the pod runs first: it reads the program and its arguments from stdin, and not a byte of what comes after. The
# modules beside the program are those that are sent, whatever version of mtft the image has.
_START = """
import json, os, sys, types
told = b""
while len(told) < {size}:
    piece = os.read(0, {size} - len(told))
    if not piece:
        sys.exit("the connection was cut")
    told += piece
told = json.loads(told)
sys.argv[1:] = told["arguments"]
for name, text in told["modules"].items():
    sys.modules[name] = types.ModuleType(name)
    exec(text, vars(sys.modules[name]))
exec(told["program"])
"""

Progress = Callable[[int], None]
"""Told how many bytes of a file are at their destination."""


class Remote:
    """The shared volume, seen through a pod that mounts it."""

    def __init__(self, cluster: Cluster, pod: str, namespace: str, program: str | None = None) -> None:
        """Take the Python text that answers in the pod; None: that of ``remote_files.py``."""
        self.cluster, self.pod, self.namespace = cluster, pod, namespace
        own = program is None
        self.modules = {name: path.read_text(encoding="utf-8") for name, path in _BESIDE.items()} if own else {}
        self.program = _PROGRAM.read_text(encoding="utf-8") if program is None else program

    def ask(self, *arguments: str, tries: int | None = None) -> list[dict[str, Any]]:
        """Return what a command of the far end says.

        Args:
            arguments: the command and its arguments.
            tries: how often to ask a pod that cannot be reached; None: for more than a minute.

        Raises:
            InputError: it says what is wrong.
            ClusterError: the pod cannot be reached.
        """

        def attempt() -> list[dict[str, Any]]:
            with self._run(*arguments) as stream:
                return list(self._answers(data for channel, data in stream.receive() if channel == STDOUT))

        return _persist(attempt, lambda: 0, tries)

    def ask_of(self, verb: str, folder: str, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return what a command says of any number of names in a folder; nothing is asked where there are none.

        Raises:
            InputError: it says what is wrong.
            ClusterError: the pod cannot be reached.
        """
        parts = (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))
        return [said for part in parts for said in self.ask(verb, folder, *part)]

    def push(
        self,
        local: Path,
        remote: str,
        progress: Progress = lambda _: None,
        *,
        content: Content | None = None,
        in_place_of: str | None = None,
    ) -> bool:
        """Copy a file to the volume; return False when it was there already, byte for byte.

        Args:
            local: the file here.
            remote: its path on the volume.
            progress: told how many bytes have arrived.
            content: what the file held when it was looked at, and is to hold there; None: look now.
            in_place_of: SHA-256 of the other file of that name that it may replace; None: there is none.

        Raises:
            InputError: the volume is full or may not be written, another file has the name, or this one changed
                meanwhile or cannot be read.
            ClusterError: the pod cannot be reached any more.
        """
        wanted, have = content or content_of(local), 0
        old = [in_place_of] if in_place_of else []

        def seen(value: int) -> None:
            nonlocal have
            have = value
            progress(value)

        def attempt() -> bool:
            with reading(local):
                source = local.open("rb")
                if local.stat().st_size != wanted.size:
                    raise changed(local)
            with source, self._run("receive", remote, str(wanted.size), wanted.sha256, *old) as stream:
                answers = self._answers(data for channel, data in stream.receive() if channel == STDOUT)
                first = next(answers, None)
                if first is None:
                    raise Cut("the connection to the pod was cut before anything came")
                seen(first["have"])
                if first.get("done"):
                    return not first["same"]
                source.seek(first["have"])
                last = _send_while_reading(stream, _pieces(source, local, wanted.size), answers, seen)
                if not last.get("done"):
                    raise Cut(f"the connection to the pod was cut after {have} of {wanted.size} bytes")
                return True

        return _persist(attempt, lambda: have)

    def fetch(self, remote: str, local: Path, progress: Progress = lambda _: None) -> None:
        """Copy a file of the volume here; it gets its name when it is complete.

        Raises:
            InputError: it cannot be read, changed while it was copied, or cannot be written here.
            ClusterError: the pod cannot be reached any more.
        """
        with writing(local):
            self._fetch(remote, local, progress)

    def _fetch(self, remote: str, local: Path, progress: Progress) -> None:
        part = part_of(local)
        local.parent.mkdir(parents=True, exist_ok=True)

        def tell() -> None:
            print(f"-- another fetch writes {printable(str(part))}; waiting for its end", file=sys.stderr, flush=True)

        with alone(part, tell) as out:

            def attempt() -> str:
                said = bytearray()
                with self._run("send", remote, str(out.seek(0, os.SEEK_END))) as stream:
                    for channel, data in stream.receive():
                        if channel == STDOUT:
                            write_whole(out, data)
                            progress(out.tell())
                        elif channel == STDERR:
                            said += data
                answer = list(self._answers([bytes(said)]))
                if not answer:
                    raise Cut("the connection to the pod was cut before the end of the file")
                return str(answer[-1]["sha256"])

            expected = _persist(attempt, lambda: out.seek(0, os.SEEK_END))
            os.fsync(out.fileno())
            if sha256_file(part) != expected:
                part.unlink()
                raise InputError(f"{remote}: changed while it was copied, or was damaged on the way; fetch it again")
            part.replace(local)
        sync_folder(local.parent)

    def _answers(self, pieces: Iterator[bytes] | Sequence[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects of a stream of lines.

        Raises:
            InputError: the far end says what is wrong.
        """
        place = in_namespace(self.namespace)
        rest = b""
        for piece in pieces:
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                try:
                    answer = json.loads(line)
                except ValueError:
                    said = line.decode("utf-8", "replace")
                    raise InputError(f"the pod says {said!r}; is its image mtft's?") from None
                if "error" in answer:
                    text = placed(answer["error"], place)
                    raise MtftError(text) if answer.get("may_pass") else InputError(text)
                if "note" in answer:
                    print(f"-- {printable(placed(answer['note'], place))}", file=sys.stderr, flush=True)
                elif "alive" not in answer:
                    yield answer

    def _run(self, *arguments: str) -> ExecStream:
        # Through stdin: a command travels in the address of its request, of which many proxies take 8 KiB, as UTF-8.
        told = json.dumps({"program": self.program, "modules": self.modules, "arguments": arguments}).encode()
        command = ("python3", "-c", _START.format(size=len(told)))
        stream = ExecStream(self.cluster, self.pod, self.namespace, CONTAINER, command)
        try:
            stream.send(told)
        except Cut:
            stream.__exit__()
            raise
        return stream


def part_of(local: Path) -> Path:
    """Return where a file is kept while it is fetched."""
    name = os.fsencode(local.name)
    if len(name) <= _LONGEST_NAME - len("..part"):
        return local.with_name(f".{local.name}.part")
    return local.with_name(f".{hashlib.sha256(name).hexdigest()}.part")


def safe_path(folder: Path, name: str) -> Path:
    """Return where a file of the volume goes below a folder of this machine.

    Raises:
        InputError: its name leads elsewhere, or a link stands in the way.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise InputError(f"the volume names a file {name!r}, which is no path below {folder}; it is not fetched")
    path = folder.joinpath(*parts)
    for each in (path, *path.parents):
        if each == folder:
            break
        if each.is_symlink():
            raise InputError(f"{each} is a link; remove it or choose another --to folder")
    return path


def _pieces(source: BinaryIO, local: Path, size: int) -> Iterator[bytes]:
    """Yield a file from where it stands up to a size: what was added meanwhile was not hashed."""
    while left := size - source.tell():
        yield read_on(source, local, min(CHUNK, left))


def _send_while_reading(
    stream: ExecStream, pieces: Iterator[bytes], answers: Iterator[dict[str, Any]], seen: Callable[[int], None]
) -> dict[str, Any]:
    """Send the rest of a file while the far end tells how far it is; return the last it said."""
    last: dict[str, Any] = {}
    failure: list[ClusterError | InputError] = []

    def read() -> None:
        nonlocal last
        try:
            for last in answers:
                if "have" in last:
                    seen(last["have"])
        except (ClusterError, InputError) as error:
            failure.append(error)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while reader.is_alive() and (piece := next(pieces, b"")):
            stream.send(piece)
    except Cut as error:
        failure.append(error)
    reader.join()
    if failure:
        # What the far end said of itself explains why it hung up.
        raise next((each for each in failure if isinstance(each, InputError)), failure[0])
    return last


def _persist(attempt: Callable[[], T], received: Callable[[], int], most: int | None = None) -> T:
    """Try again after a cut, or from a server that is busy, as long as tries bring the file further."""
    tries, before = 0, received()
    while True:
        try:
            return attempt()
        except (NoConnection, Busy):
            tries, before = (0, received()) if received() > before else (tries + 1, before)
            if tries >= (_TRIES if most is None else most):
                raise
            if tries > _SILENT_TRIES:
                print("-- there is no way to the pod at the moment; trying again", file=sys.stderr, flush=True)
            time.sleep(_PAUSE * 2.0 ** min(tries, 4))
