"""A rank that the kernel kills because the host's memory runs out: seen, told, and heeded by the next start."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.trainer.supervising import Bench
from trainer.host_memory import kernel_kills, kills

GROUPS = Path("/sys/fs/cgroup")
LIMIT = 1 << 30  # bytes: supervisor and torchrun need about a third
TOO_LITTLE = 160 << 20  # bytes: for the supervisor alone


@pytest.fixture
def small_memory(request: pytest.FixtureRequest) -> Iterator[tuple[str, ...]]:
    """Give a command that starts another one with 1 GiB of memory at most, or as much as the test says."""
    version_1 = (GROUPS / "memory").is_dir()
    group = (GROUPS / "memory" if version_1 else GROUPS) / f"mtft-test-{secrets.token_hex(4)}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(
            str(getattr(request, "param", LIMIT))
        )
    except OSError as error:
        require("memory-group", f"a control group with a limit cannot be made: {error}")
    yield ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    group.rmdir()


def test_the_kernel_is_named_and_the_next_start_is_told(tmp_path: Path, small_memory: tuple[str, ...]) -> None:
    bench = Bench(tmp_path, prefix=small_memory)
    bench.configure(cluster={"processes_per_node": 1})
    code, output = bench.run({"0": "eat-memory"})
    assert code == 143, output
    assert "killed by the kernel, out of host memory: the next start halves the batches" in output
    assert kills(bench.folder / "logs") == 1
    code, output = bench.run({"0": "signal 9"})
    assert code == 143 and "the attempt before ended: rank 0: killed by the kernel, out of host memory" in output
    assert kills(bench.folder / "logs") == 1, "somebody else's SIGKILL says nothing about memory"


@pytest.mark.parametrize("small_memory", [TOO_LITTLE], indirect=True)
def test_torchrun_itself_may_be_too_large(tmp_path: Path, small_memory: tuple[str, ...]) -> None:
    bench = Bench(tmp_path, prefix=small_memory)
    bench.configure(cluster={"processes_per_node": 1})
    code, output = bench.run({"0": "finish"})
    assert code == 143, output
    assert "torchrun was killed by the kernel, out of host memory: the next start halves the batches" in output
    assert kills(bench.folder / "logs") == 1


@pytest.mark.parametrize(
    ("own", "events", "expected"),
    [
        ("0::/pod/one\n", "pod/one/memory.events", 3),
        ("0::/../../pod\n", "memory.events", 3),  # as a container sees its own group
        ("3:cpu:/\n4:memory:/pod\n0::/\n", "memory/pod/memory.oom_control", 3),
        ("4:memory:/elsewhere\n0::/\n", "memory/memory.oom_control", 3),
        ("0::/\n", "nothing", 0),
        ("", "nothing", 0),
    ],
)
def test_where_the_kernel_counts(own: str, events: str, expected: int, tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (groups / events).parent.mkdir(parents=True)
    (groups / events).write_text("low 0\noom 9\noom_kill 3\noom_group_kill 0\n")
    (tmp_path / "own").write_text(own)
    assert kernel_kills(groups, tmp_path / "own") == expected
    assert kernel_kills(groups, tmp_path / "missing") == 0
