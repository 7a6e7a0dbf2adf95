"""Children of the supervisor, what a person sees of them, and what the cluster is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtft.runs import RunPaths
from trainer.console import Console
from trainer.node import child_environment
from trainer.outcome import Outcome, write_termination_message
from trainer.processes import PARENT_VARIABLE, Stop, Stopped

CHECKOUT = Path(__file__).parents[2]

RUN = """
import os, sys, time
from trainer.processes import Stop, adopt_orphans, run
adopt_orphans()
stop = Stop()
def show(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
with stop.listening():
    stop.deadline = {deadline}
    status = run({command!r}, os.environ, stop, show)
print(status, stop.deadline_passed, flush=True)
"""


def program(*command: str, deadline: str = "None") -> list[str]:
    return [sys.executable, "-c", RUN.format(command=command, deadline=deadline)]


def test_the_deadline_ends_a_running_child() -> None:
    command = program("sleep", "1000", deadline="time.monotonic()")
    assert subprocess.check_output(command, text=True, cwd=CHECKOUT) == "-15 True\n"


@pytest.mark.parametrize("signals", [[], [signal.SIGTERM]])
def test_a_read_that_hangs_ends_with_the_deadline_or_a_signal(signals: list[int]) -> None:
    stop = Stop()
    stop.deadline = None if signals else time.monotonic()
    reader, writer = os.pipe()
    with pytest.raises(Stopped), stop.ending(lambda: Stopped("ended")):
        for number in signals:
            signal.raise_signal(number)
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    assert (stop.signals, stop.deadline_passed) == (signals, not signals)


def test_a_daemon_that_holds_the_output_does_not_outlive_its_parent() -> None:
    command = program("sh", "-c", "setsid sleep 1000 & echo started $!")
    output = subprocess.check_output(command, text=True, cwd=CHECKOUT, timeout=60).split()
    assert output[0] == "started" and output[2:] == ["0", "False"]
    assert not Path(f"/proc/{output[1]}").exists()


def test_a_child_that_comes_after_its_parents_death_ends_at_once() -> None:
    end = [sys.executable, "-c", "from trainer.processes import end_with_parent; end_with_parent(); print('lives')"]
    assert subprocess.check_output(program(*end), text=True, cwd=CHECKOUT) == "lives\n0 False\n"
    orphan = {**os.environ, PARENT_VARIABLE: "1"}  # who took it over is not who started it
    late = subprocess.run(end, env=orphan, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (late.returncode, late.stdout) == (-signal.SIGKILL, "")


INTERRUPTED = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"


@pytest.mark.parametrize("module", ["", ".preparation", ".ranks", ".worker", ".translate", ".prefetch"])
def test_a_program_that_is_interrupted_while_it_is_imported_shows_no_traceback(tmp_path: Path, module: str) -> None:
    (tmp_path / "psutil.py").write_text(INTERRUPTED)
    command = [sys.executable, "-m", f"trainer{module}", "--run-dir", "none"]
    paths = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    done = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("module", ["preparation", "worker", "translate"])
def test_later_an_interrupt_is_a_word_and_an_exit_code(tmp_path: Path, module: str) -> None:
    (tmp_path / "torch.py").write_text(INTERRUPTED)
    (tmp_path / "datasets.py").write_text(INTERRUPTED)
    command = [sys.executable, "-m", f"trainer.{module}", "--run-dir", "none"]
    paths = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{CHECKOUT}"}
    done = subprocess.run(command, cwd=tmp_path, env=paths, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (143, "interrupted\n")


def test_a_child_has_a_terminal_where_the_person_has_one() -> None:
    ask = [sys.executable, "-c", "import sys; print(sys.stdout.isatty())"]
    assert subprocess.check_output(program(*ask), text=True, cwd=CHECKOUT).startswith("False\n")
    reader, writer = os.openpty()
    with subprocess.Popen(program(*ask), stdout=writer, cwd=CHECKOUT) as process:
        os.close(writer)
        assert os.read(reader, 100).startswith(b"True")
        process.wait(timeout=60)
    os.close(reader)


def test_the_kept_output_has_the_last_state_of_a_bar_and_no_terminal_codes(tmp_path: Path) -> None:
    console = Console()
    console.keep_in(tmp_path / "console_output.txt")
    for piece in (b"start\r\n\x1b[2K 10 %\r 5", b"0 %\r\x1b[32m100 %\x1b[0m\n", b"\xc3\xa9t\xc3\xa9\nno end"):
        console.write(piece)
    console.close()
    assert (tmp_path / "console_output.txt").read_text() == "start\n100 %\nété\nno end\n"


def test_a_child_gets_none_of_the_operators_process_group() -> None:
    given = {
        "RANK": "1",
        "MASTER_ADDR": "x",
        "PET_NNODES": "2",
        "WORLD_SIZE": "2",
        "HOME": "/h",
        "OMP_NUM_THREADS": "3",
    }
    kept = child_environment(given, Path("/reasons"), 2)
    assert set(kept) == {"HOME", "OMP_NUM_THREADS", "PYTHONUNBUFFERED", "PYTHONSAFEPATH", "MTFT_REASONS"}
    assert kept["OMP_NUM_THREADS"] == "3"
    assert int(child_environment({}, Path("/reasons"), 10**6)["OMP_NUM_THREADS"]) == 1


def test_the_termination_message_has_the_scores_and_fits(tmp_path: Path) -> None:
    paths = RunPaths.at(tmp_path, "m2m100_418m", "20300102T030405Z-0a1b2c3d")
    paths.folder.mkdir(parents=True)
    log = tmp_path / "termination-log"
    write_termination_message(Outcome(0, "finished", paths), log)
    assert not log.exists()
    log.touch()
    tuned = {"en-fr": {"chrf": 61.51234, "numbers": 0.98, "signatures": {"chrf": "nrefs:1"}}}
    finished = {"scores": {"base": tuned, "tuned": tuned, "comparison": {}}, "published": {"scores": tuned}}
    gate = {"verdict": "regressed", "reasons": ["r" * 300 + str(number) for number in range(20)]}
    for extra, reasons in (("", 2), ("x" * 5000, 2), ("", 20)):
        its = {**gate, "reasons": gate["reasons"][:reasons]}
        paths.finished.write_text(json.dumps({**finished, "gate": its, "extra": extra}))
        write_termination_message(Outcome(0, "finished", paths, attempt=2), log)
        told = json.loads(log.read_text())
        assert (told["run_id"], told["attempt"]) == (paths.run_id, 2) and len(log.read_bytes()) <= 4096
        whole = not extra and reasons == 2
        assert ("extra" in told["finished"]) == whole
        kept = told["finished"]["gate"]
        assert kept == {"verdict": "regressed", "reasons": its["reasons"][: len(kept["reasons"])]}
        assert len(kept["reasons"]) == (2 if reasons == 2 else 12)  # of 300 letters; the first ones say most
        if not whole:
            brief = {"en-fr": {"chrf": 61.5123, "numbers": 0.98}}
            assert told["finished"]["scores"] == {"base": brief, "tuned": brief, "published": brief}
    crowded = {"tuned": {f"{number}-fr": {"chrf": 1.0} for number in range(999)}}
    paths.finished.write_text(json.dumps({"scores": crowded, "gate": gate}))
    write_termination_message(Outcome(0, "finished", paths), log)
    assert json.loads(log.read_text())["finished"] == {"gate": {"verdict": "regressed"}}
    write_termination_message(Outcome(2, "donn\udce9es.jsonl: no row", paths), log)  # a file whose name is not UTF-8
    assert json.loads(log.read_bytes())["reason"].endswith("es.jsonl: no row")
    write_termination_message(Outcome(1, "é" * 9000, paths), log)
    assert len(log.read_bytes()) <= 4096 and json.loads(log.read_text())["exit_code"] == 1
