"""The verdict on an attempt, from why its ranks ended, and what an exception means."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from mtft.errors import NO_ROOM
from trainer.outcome import failed
from trainer.reasons import Kind, Reason, explain, verdict


def ended(*kinds: Kind | int) -> list[Reason]:
    """Reasons of ranks 0, 1, ...: a kind, or the signal that killed the rank."""
    return [
        Reason(rank=rank, kind="killed", message="killed", exit_code=-kind)
        if isinstance(kind, int)
        else Reason(rank=rank, kind=kind, message=kind, exit_code=0)
        for rank, kind in enumerate(kinds)
    ]


@pytest.mark.parametrize(
    ("reasons", "torchrun", "code"),
    [
        (ended("finished", "finished"), 0, 0),
        (ended("finished", "finished"), 1, 0),
        (ended("error", "input"), 1, 2),
        (ended("preempted", "diverged"), 1, 3),
        (ended("peer_lost", "error"), 1, 1),
        (ended("error", 9), 1, 1),
        (ended("peer_lost", 9), 1, 143),
        (ended("peer_lost", "peer_lost"), 1, 143),
        (ended("preempted", "finished"), 1, 143),
        (ended(15, 11), 1, 1),
        (ended(9, 6), 1, 143),
        (ended(6, 6), 1, 1),
        (ended("finished"), -9, 143),
        ([], -9, 143),
        ([], 143, 143),
        ([], 1, 1),
    ],
)
def test_verdict(reasons: list[Reason], torchrun: int, code: int) -> None:
    assert verdict(reasons, torchrun, local_world_size=2, world_size=2)[0] == code


def test_an_abort_is_blamed_on_other_nodes_where_there_are_some() -> None:
    assert verdict(ended(6, 6), 1, local_world_size=2, world_size=4)[0] == 143


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(28, "No space left on device"), "input"),
        (MemoryError(), "preempted"),
        (OSError(116, "Stale file handle"), "preempted"),
        (OSError(9, "Bad file descriptor"), "error"),
        (SafetensorError("I/O error: Input/output error (os error 5)"), "preempted"),
        (PermissionError(13, "Permission denied", "step-4"), "input"),
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711"), "peer_lost"),
        (type("DistBackendError", (RuntimeError,), {})("NCCL error: remote process exited"), "peer_lost"),
        (type("DistBackendError", (RuntimeError,), {})("ncclInvalidUsage: Duplicate GPU detected"), "error"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "error"),
        (SystemExit(0), "finished"),
        (KeyError("x"), "error"),
    ],
)
def test_what_an_exception_means(error: BaseException, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert explain(error, 0).kind == kind


@pytest.mark.parametrize(
    ("error", "room"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("[enforce fail at inline_container.cc:659] . No space left on device"), True),
        (SafetensorError("I/O error: Disk quota exceeded (os error 122)"), True),
        (OSError(errno.EROFS, "Read-only file system"), False),
    ],
)
def test_want_of_room_is_told_so_that_the_launcher_knows_it(error: BaseException, *, room: bool) -> None:
    found = explain(error, 0)
    assert found.kind == "input" and found.message.endswith(NO_ROOM) == room
    if isinstance(error, OSError):
        assert failed(error).text.endswith(NO_ROOM) == room
