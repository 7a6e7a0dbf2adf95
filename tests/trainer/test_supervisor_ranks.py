"""The truth table of the supervisor, with real torchrun and tiny workers."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.trainer.supervising import CHECKOUT, Bench, Started, until


@pytest.mark.parametrize(
    ("action", "code", "text"),
    [
        ("raise", 1, "rank 0: ValueError: a mistake in the program"),
        ("diverge", 3, "the loss became nan at step 3"),
        ("signal 11", 1, "rank 0: killed by SIGSEGV"),
        ("signal 15", 143, "rank 0: killed by SIGTERM"),
        ("say-nothing", 1, "finished.json is missing"),
    ],
)
def test_how_a_rank_ends_decides_the_code(bench: Bench, action: str, code: int, text: str) -> None:
    found, output = bench.run({"0": action})
    assert found == code
    assert f"(exit {code}): " in output and text in output.splitlines()[-1]
    assert ("Traceback" in output) == (action == "raise")
    assert bench.record["attempts"][0]["exit_code"] == code
    assert text in (bench.folder / "console_output.txt").read_text()


@pytest.mark.parametrize(
    ("action", "code", "text"),
    [("meet-and-die", 143, "rank 1: killed by SIGKILL"), ("meet-and-raise", 1, "rank 1: ValueError")],
)
def test_one_rank_of_two_dying_names_that_rank(bench: Bench, action: str, code: int, text: str) -> None:
    bench.configure(cluster={"processes_per_node": 2})
    found, output = bench.run({"0": "meet", "1": action})
    assert found == code and text in output.splitlines()[-1]
    assert bench.reason(0)["kind"] == "peer_lost"


def test_a_killed_torchrun_is_143_and_leaves_no_rank(bench: Bench) -> None:
    with bench.started({"0": "kill-torchrun"}) as process:
        rank = int(until(process, "rank").split()[1])
        assert process.wait(timeout=60) == 143
        assert not psutil.pid_exists(rank)
    assert bench.record["attempts"][0]["reason"] == "torchrun was killed by SIGKILL"


def test_a_signal_reaches_the_ranks_once_and_the_next_start_continues_the_run(executed: Bench) -> None:
    with executed.started({"0": "wait"}) as process:
        until(process, "ready")
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert output.splitlines()[0] == "saved" and "stopped by SIGUSR1" in output
    assert executed.reason(0)["kind"] == "preempted"
    run_id = executed.record["run_id"]
    assert executed.run({})[0] == 0
    assert executed.record["run_id"] == run_id and len(executed.record["attempts"]) == 2


def test_a_second_signal_kills_at_once(executed: Bench) -> None:
    with executed.started({"0": "refuse-to-leave"}) as process:
        rank = int(until(process, "ready").split()[1])
        process.send_signal(signal.SIGTERM)
        until(process, "told to stop")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        assert not psutil.pid_exists(rank)


def test_the_supervisor_never_imports_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import trainer.__main__"]
    imported = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT).stderr
    assert "trainer.supervisor" in imported
    assert not [line for line in imported.splitlines() if line.split("|")[-1].strip() in ("torch", "transformers")]


# ---- several nodes


@contextmanager
def two_nodes(bench: Bench, plan: Mapping[str, str]) -> Iterator[tuple[Started, Started]]:
    bench.configure(cluster={"nodes": 2, "processes_per_node": 1, "gpus_per_node": 0})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    with bench.started(plan, RANK="0", **meeting) as first, bench.started(plan, RANK="1", **meeting) as second:
        yield first, second


def test_two_nodes_end_together_and_a_follower_never_finishes_what_node_0_has_not(bench: Bench) -> None:
    with two_nodes(bench, {"0": "wait", "1": "finish"}) as (first, second):
        until(first, "ready")  # its rank works on when the other's is done: judging, exporting
        first.terminate()
        codes = first.wait(60), second.wait(60)
    assert codes == (143, 143)
    with two_nodes(bench, {}) as (first, second):
        codes = first.wait(60), second.wait(60)
    assert codes == (0, 0)
    assert [attempt["exit_code"] for attempt in bench.record["attempts"]] == [143, 0]


def test_node_0_does_not_wait_for_a_node_that_was_lost_while_it_finished(bench: Bench) -> None:
    """The last minutes are rank 0's alone; torchrun would wait five more for the ranks of the other node."""
    with two_nodes(bench, {"0": "finish-when-told", "1": "wait"}) as (first, second):
        until(first, "ready")
        until(second, "ready")
        second.kill()
        second.wait(60)
        (bench.folder / "told").touch()
        assert first.wait(60) == 0


@pytest.mark.parametrize("alone", [False, True])
def test_a_node_that_was_lost_without_a_word_is_not_waited_for(bench: Bench, alone: bool) -> None:
    """torchrun would wait half an hour for it, a collective ten minutes; rank 0 needs none while it judges."""
    with two_nodes(bench, {"0": "wait-alone" if alone else "wait", "1": "wait"}) as (first, second):
        until(first, "ready")
        until(second, "ready")
        second.kill()
        second.wait(60)
        with bench.started({}, RANK="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="1") as again:
            until(again, "node 1")
            if alone:
                with pytest.raises(subprocess.TimeoutExpired):
                    first.wait(8)
                assert (bench.folder / "logs" / "attempt-1" / "lost-1").exists()
                first.terminate()
            assert first.wait(60) == 143
            again.terminate()
    assert bench.record["attempts"][0]["reason"] == ("stopped by SIGTERM" if alone else "node 1 was lost")


def test_a_node_0_that_was_lost_without_a_word_is_not_waited_for(bench: Bench) -> None:
    with two_nodes(bench, {"0": "wait", "1": "wait"}) as (first, second):
        until(first, "ready")
        until(second, "ready")
        first.kill()
        first.wait(60)
        with bench.started({"0": "wait"}, RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="1") as again:
            assert second.wait(60) == 143
            assert second.stdout is not None and "node 0 was lost" in second.stdout.read()
            again.terminate()


def test_a_follower_does_not_join_an_attempt_twice(bench: Bench) -> None:
    """Node 0 was killed without a word; the other node's new pod waits for its next attempt."""
    with two_nodes(bench, {"0": "wait", "1": "wait"}) as (first, second):
        until(first, "ready")
        until(second, "ready")
        first.kill()
        second.terminate()
        assert second.wait(60) == 143
    assert bench.record["attempts"][0]["ended"] is None
    record = bench.folder / "logs" / "attempt-1" / "torchrun-1.json"
    before = record.stat().st_mtime_ns
    with bench.started({}, RANK="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="1") as second:
        assert "waiting for node 0" in until(second, "node 1")
        second.terminate()
        assert second.wait(60) == 143
    assert record.stat().st_mtime_ns == before


def test_a_signal_that_comes_after_the_ranks_changes_nothing(tmp_path: Path) -> None:
    """What torchrun does on a signal it does for as long as its process lives."""
    program = """
import os, signal, sys
from torch.distributed import run as torchrun

def heeds(_):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop where nobody listens"))

torchrun.run = heeds
from trainer import ranks
code = ranks.main([sys.argv[1], "-m", "worker"])
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(code)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "statuses.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    assert (done.returncode, done.stderr) == (0, "")
