"""Why each rank ended, and the exit code that follows.

Every rank writes ``rank-<r>.json`` through :func:`guard`; a rank that was killed cannot, and torchrun's status of it
takes that place. :func:`verdict` judges what the ranks of a node left. Over that the supervisor puts what it alone
knows: that the run is finished, that the deadline passed, that it was told to stop.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mtft import exit_codes, files
from mtft.errors import NO_RIGHT, NO_ROOM, MtftError, error_number, may_pass

# Set by the supervisor for its workers: the folder of this attempt's reason files.
FOLDER_VARIABLE = "MTFT_REASONS"
_ALONE = "alone"

Kind = Literal["input", "diverged", "preempted", "peer_lost", "error", "finished", "killed"]

EXIT_CODES: dict[Kind, int] = {
    "input": exit_codes.BAD_INPUT,
    "diverged": exit_codes.DIVERGED,
    "preempted": exit_codes.RETRY,
    "peer_lost": exit_codes.RETRY,
    "error": exit_codes.FAILED,
    "finished": exit_codes.DONE,
}

# A program that dies of these would die of them again: never retried.
CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP}

# What a user can put right; any other OSError is the machine's trouble and worth another try.
USER_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST),
}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
NOT_ALLOWED = {errno.EACCES, errno.EPERM}
_NO_WRITE = {*DISK_FULL, errno.EROFS}
_PEER_ERRORS = {"DistBackendError", "DistNetworkError", "DistStoreError"}
_PEER_TEXT = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|broken pipe|closed by (the )?(remote )?peer"
    r"|ncclremoteerror|remote process exited|socket timeout|timed out (waiting|after)",
    re.IGNORECASE,
)
# A collective called wrongly is our own mistake, not a lost peer.
_MISUSE_TEXT = re.compile(r"invalid (usage|argument)|duplicate gpu|nccl(invalid|unhandled)", re.IGNORECASE)
_HOST_MEMORY_TEXT = re.compile(r"DefaultCPUAllocator: (can't|not enough)")
_DEVICE_MEMORY_TEXT = re.compile(r"CU(BLAS|DNN|SPARSE)_STATUS_ALLOC_FAILED")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why one rank ended.

    Attributes:
        rank: number of the process over all nodes.
        kind: what happened; ``killed`` is only ever concluded from outside.
        message: what a person should read.
        exit_code: exit status of the process; below 0, minus the signal that killed it.
        traceback: for an ``error`` that no person is meant to cause.
    """

    rank: int
    kind: Kind
    message: str
    exit_code: int
    traceback: str | None = None


def write_reason(folder: Path, reason: Reason) -> None:
    """Write ``rank-<r>.json`` atomically."""
    files.write_json(reason_file(folder, reason.rank), asdict(reason))


def reason_file(folder: Path, rank: int) -> Path:
    """Return the path of one rank's reason file."""
    return folder / f"rank-{rank}.json"


def read_reason(folder: Path, rank: int) -> Reason | None:
    """Return what a rank wrote, or None when it wrote nothing that can be read."""
    try:
        return Reason(**json.loads(reason_file(folder, rank).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def from_status(rank: int, status: int) -> Reason:
    """Say why a rank ended that wrote no reason: its exit status is all there is."""
    if status < 0:
        return Reason(rank=rank, kind="killed", message=f"killed by {signal_name(-status)}", exit_code=status)
    message = "finished" if status == 0 else f"exited with {status} and no word why"
    return Reason(rank=rank, kind=_kind_of_code(status), message=message, exit_code=status)


def signal_name(number: int) -> str:
    """Return the name of a signal, for example SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def verdict(reasons: Sequence[Reason], torchrun_status: int, local_world_size: int, world_size: int) -> tuple[int, str]:
    """Return the exit code of this node's attempt and why.

    Args:
        reasons: of the ranks of this node, as far as known.
        torchrun_status: exit status of torchrun; below 0, minus the signal that killed it.
        local_world_size: number of ranks on this node.
        world_size: number of ranks on all nodes.
    """
    for kind in ("input", "diverged", "error"):
        if found := [reason for reason in reasons if reason.kind == kind]:
            return EXIT_CODES[found[0].kind], _line(found[0])
    killed = [reason for reason in reasons if reason.kind == "killed"]
    if crashed := [reason for reason in killed if -reason.exit_code in CRASHES]:
        return exit_codes.FAILED, _line(crashed[0])
    aborted = [reason for reason in killed if reason.exit_code == -signal.SIGABRT]
    lost = [each for each in reasons if each.kind in ("preempted", "peer_lost", "killed") and each not in aborted]
    # NCCL's watchdog aborts a rank whose peer is gone: an abort is only our own where no peer can be missing.
    if aborted and not lost and world_size == local_world_size:
        return exit_codes.FAILED, _line(aborted[0])
    if left := sorted(lost, key=_is_consequence) + aborted:
        return exit_codes.RETRY, _line(left[0])
    if torchrun_status < 0:
        return exit_codes.RETRY, f"torchrun was killed by {signal_name(-torchrun_status)}"
    if torchrun_status == exit_codes.RETRY:
        return exit_codes.RETRY, "torchrun was stopped or lost the other nodes"
    if torchrun_status == 0 or len(reasons) == local_world_size:
        return exit_codes.DONE, "finished"
    return exit_codes.FAILED, f"torchrun exited with {torchrun_status}"


def tell_alone() -> None:
    """Tell the supervisor, from rank 0, that the other ranks are not needed any more."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        (Path(folder) / _ALONE).touch()


def is_alone(folder: Path) -> bool:
    """Whether :func:`tell_alone` was called in an attempt whose reason files lie in this folder."""
    return (folder / _ALONE).exists()


@contextmanager
def guard(rank: int | None = None) -> Iterator[None]:
    """Run the main of a worker: write why it ended, then leave with the exit code of that.

    Args:
        rank: number of the process over all nodes; None reads RANK as torchrun sets it.

    Raises:
        SystemExit: always when the body raised.
    """
    number = int(os.environ.get("RANK", "0")) if rank is None else rank
    try:
        yield
    except BaseException as error:
        reason = explain(error, number)
    else:
        reason = from_status(number, 0)
    _report(reason)
    if reason.exit_code:
        raise SystemExit(reason.exit_code)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the host's or the device's; judged by name and text, so torch is not imported."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and bool(_HOST_MEMORY_TEXT.search(text) or _DEVICE_MEMORY_TEXT.search(text))


def is_disk_full(error: BaseException) -> bool:
    """Tell whether a volume has no room left, or takes nothing any more."""
    return error_number(error) in _NO_WRITE or "No space left on device" in str(error)


def explain(error: BaseException, rank: int) -> Reason:
    """Say in which way a worker's exception ends it."""
    kind, message = _classify(error)
    trace = None
    if kind == "error" and not isinstance(error, MtftError | SystemExit):
        trace = "".join(traceback.format_exception(error))
    return Reason(rank=rank, kind=kind, message=message, exit_code=EXIT_CODES[kind], traceback=trace)


def advice_on(error: OSError) -> str | None:
    """Return what is to be done about the volume; None where neither room nor rights are wanting."""
    if error.errno in DISK_FULL:
        return NO_ROOM
    return NO_RIGHT if error.errno in NOT_ALLOWED else None


def _classify(error: BaseException) -> tuple[Kind, str]:
    text = str(error) or type(error).__name__
    if isinstance(error, MtftError):
        return _kind_of_code(error.exit_code), text
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else exit_codes.FAILED if error.code else exit_codes.DONE
        return _kind_of_code(code), f"left with {error.code}" if code else "finished"
    if isinstance(error, KeyboardInterrupt):
        return "preempted", "interrupted"
    if is_disk_full(error):
        read_only = error_number(error) == errno.EROFS
        return "input", f"cannot write: {text}; {'make storage.root writable' if read_only else NO_ROOM}"
    if isinstance(error, MemoryError) or _HOST_MEMORY_TEXT.search(text):
        return "preempted", f"out of host memory: {text}"
    if _is_peer_loss(error, text):
        return "peer_lost", f"another process is gone: {text.splitlines()[0][:200]}"
    if may_pass(error):
        return "preempted", f"the volume or the network failed: {text}"
    if isinstance(error, PermissionError):
        return "input", f"{text}; {NO_RIGHT}"
    if is_out_of_memory(error):
        hint = "lower train.micro_batch_tokens or eval.batch_tokens, or set train.gradient_checkpointing: true"
        return "error", f"out of device memory; {hint} ({text.splitlines()[0]})"
    return "error", f"{type(error).__name__}: {text}"


def _kind_of_code(code: int) -> Kind:
    known: dict[int, Kind] = {0: "finished", 2: "input", 3: "diverged", exit_codes.RETRY: "preempted"}
    return known.get(code, "error")


def _is_peer_loss(error: BaseException, text: str) -> bool:
    """Whether torch.distributed reports a broken connection; judged by name and text, so torch is not imported."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or _MISUSE_TEXT.search(text):
        return False
    names = {parent.__name__ for parent in type(error).__mro__}
    if names & _PEER_ERRORS or isinstance(error, ConnectionError):
        return True
    return isinstance(error, RuntimeError) and bool(_PEER_TEXT.search(text))


def _report(reason: Reason) -> None:
    """Write the reason file and print what went wrong; the supervisor prints the verdict itself."""
    if reason.traceback:
        print(reason.traceback, end="", file=sys.stderr, flush=True)
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        if reason.kind != "finished":
            print(reason.message, file=sys.stderr, flush=True)
        return
    try:
        write_reason(Path(folder), reason)
    except OSError as error:
        # A full disk must not hide why the rank ended; the exit status still tells the kind.
        print(f"rank {reason.rank}: {reason.message} (cannot write the reason: {error})", file=sys.stderr, flush=True)


def _is_consequence(reason: Reason) -> bool:
    """Whether another rank's end probably caused this one: torchrun terminates those that are left."""
    return reason.kind == "peer_lost" or reason.exit_code == -signal.SIGTERM


def _line(reason: Reason) -> str:
    if reason.kind in ("error", "killed", "peer_lost"):
        return f"rank {reason.rank}: {reason.message}"
    return reason.message
