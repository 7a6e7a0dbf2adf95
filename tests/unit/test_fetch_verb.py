"""`fetch` against the real far end: where it writes, what it brings again, and what it does not mix."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.cli import main
from launcher.cluster import Cluster
from launcher.fetching import MARK
from launcher.pytorchjob import render
from launcher.resources import JOBS
from launcher.transfer_bar import Bar
from mtft import exit_codes
from mtft.files import listing
from mtft.store import FILES
from tests.unit.tiny_exec import TinyExec, serve

MODEL = "opus_mt_en_fr"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyExec]:
    """Give the pod that `fetch` would start, in a folder with mtft.yaml; no job of the model is left."""
    tiny = TinyExec(tmp_path / "volume")

    @contextmanager
    def runs(*_: Any) -> Iterator[str]:
        tiny.commands.append(["started"])
        yield "mtft-transfer-1"

    monkeypatch.setattr("launcher.transfer_pod.running", runs)
    monkeypatch.setattr("launcher.transfer._PAUSE", 0.01)
    monkeypatch.setattr(Cluster, "list", lambda *_, **__: SimpleNamespace(items=[]))
    monkeypatch.chdir(tmp_path)
    cluster = {"image": "example.org/mtft:1.0", "namespace": "team"}
    Path("mtft.yaml").write_text(json.dumps({"cluster": cluster, "storage": {"root": str(tiny.root)}}))
    finish(tiny, "1", config="{}", weights="one" * 100, extra="of the first run")
    finish(tiny, "2", config="{}", weights="two" * 100)
    with serve(tiny) as there:
        monkeypatch.setattr("launcher.cluster.connect", lambda *_: there)
        yield tiny


def finish(tiny: TinyExec, run: str, **files: str) -> Path:
    folder = tiny.root / "outputs" / MODEL / "runs" / run
    (folder / "lora").mkdir(parents=True)
    for name, text in files.items():
        (folder / "lora" / f"{name}.safetensors").write_text(text)
    (folder / "report.html").write_text(f"report of {run}")
    (folder / "finished.json").write_text('{"deliverable": "lora"}')
    return folder


def fetch(run: str, *more: str) -> int:
    return main(["fetch", MODEL, "--run", run, "--to", "to", *more])


def held() -> dict[str, str]:
    return {path.stem: path.read_text()[:3] for path in Path("to").iterdir() if path.name != MARK}


def test_two_runs_are_not_mixed(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    first = {"config": "{}", "weights": "one", "extra": "of "}
    assert fetch("1") == exit_codes.DONE and held() == first
    assert fetch("2") == exit_codes.BAD_INPUT and held() == first
    err = capsys.readouterr().err
    assert "another run, team:" in err and "/runs/1: extra.safetensors, weights.safetensors; nothing was fetched" in err
    assert "--to DIR" in err and "--replace" in err
    assert fetch("1", "--what", "report") == exit_codes.DONE  # more of the same run is welcome
    assert fetch("2", "--what", "report") == exit_codes.BAD_INPUT
    Path("to", "mine.txt").write_text("mine")
    assert fetch("2", "--replace") == exit_codes.DONE
    assert held() == {"config": "{}", "weights": "two", "mine": "min"}


@pytest.mark.parametrize("mark", [None, "[]", '{"run": 1, "files": 7}', '{"run": "x", "files": ["../volume"]}'])
def test_files_of_another_origin_stay(mark: str | None, pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    Path("to").mkdir()
    Path("to", "weights.safetensors").write_text("by hand")
    if mark:
        Path("to", MARK).write_text(mark)
    assert fetch("1") == exit_codes.BAD_INPUT and held() == {"weights": "by "}
    assert "nothing was fetched" in capsys.readouterr().err or mark


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_deliverable_is_refused(damage: str, pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    run = finish(pod, "3", config="{}", weights="three" * 100)
    (run / "finished.json").write_text(json.dumps({"deliverable": "lora", FILES: listing(run / "lora")}))
    assert fetch("3") == exit_codes.DONE
    weights = run / "lora" / "weights.safetensors"
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_text("THREE" * 100 if damage == "changed" else "three")
    assert fetch("3", "--to", "other") == exit_codes.BAD_INPUT and not Path("other").exists()
    err = capsys.readouterr().err
    assert f"{weights}: is not as it was written; the run is damaged" in err and "--rerun" in err
    assert fetch("3", "--what", "report", "--to", "other") == exit_codes.DONE


def test_what_is_here_is_not_sent_again(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch("1") == exit_codes.DONE
    Path("to", "weights.safetensors").write_text("x" * 300)  # as long, and damaged
    pod.commands.clear()
    assert fetch("1", "-o", "json") == exit_codes.DONE and held()["weights"] == "one"
    assert [Path(command[1]).stem for command in pod.commands if command[0] == "send"] == ["weights"]
    answer = json.loads(capsys.readouterr().out.partition("{")[2].join(("{", "")))
    assert (answer["files"], answer["sent"]) == (3, 1)


def test_a_cut_leaves_what_the_same_run_goes_on_with(
    pod: TinyExec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launcher.transfer._TRIES", 0)
    pod.cut_out = [
        10_000,
        10_000,
        10_000,
        10_000,
        10_000,
        100,
    ]  # run, sound, list, files: in the last one
    assert fetch("1") == exit_codes.CLUSTER_REFUSED
    pod.cut_out = []
    assert fetch("2") == exit_codes.BAD_INPUT  # nothing of the second beside what there is of the first
    assert fetch("1") == exit_codes.DONE and held()["weights"] == "one"


def test_where_it_cannot_write_is_told_before_a_pod_starts(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    for to in ("file", "file/below", "dangling", "/proc/new"):
        assert main(["fetch", MODEL, "--to", to]) == exit_codes.BAD_INPUT
        assert f"{to}: cannot be written: " in capsys.readouterr().err
    assert not pod.commands
    Path("to", "weights.safetensors").mkdir(parents=True)
    assert fetch("1", "--replace") == exit_codes.BAD_INPUT
    assert "to: cannot be written: Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["adapter", "report", "run"])
def test_a_job_without_a_run_is_told_with_its_state(
    what: str, pod: TinyExec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {"data": {"train": "/mnt/mtft/x.jsonl"}, "cluster": {"image": "example.org/mtft:1.0"}}
    job = render(document, MODEL, name="data1", namespace="team")[-1]
    job["metadata"] |= {"uid": "job-1", "creationTimestamp": "2030-01-02T03:04:05Z"}
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "message": "bad row"}]}
    monkeypatch.setattr(Cluster, "list", lambda _, kind, **__: SimpleNamespace(items=[job] if kind == JOBS else []))
    monkeypatch.setattr(Cluster, "find", lambda *_: job)
    monkeypatch.setattr("launcher.transfer_pod.root_of", lambda _: str(pod.root))
    assert main(["fetch", "data1", "--what", what]) == exit_codes.BAD_INPUT
    said = "data1 has no run yet: it is Failed: bad row; `mtft-launch status data1 -n team`\n"
    assert capsys.readouterr().err == f"mtft-launch: {said}"
    monkeypatch.setattr(Cluster, "find", lambda *_: None)  # deleted meanwhile
    assert main(["fetch", "data1", "--what", what]) == exit_codes.BAD_INPUT
    assert "data1 left no run on the volume, and is no job of namespace team any more" in capsys.readouterr().err


def test_names_of_files_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, screen = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with os.fdopen(screen, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        with Bar("pushing", 10) as bar:
            bar.file("a[red]b[/]c\x1b[2J.jsonl", 10)(10)
        drawn = ""
        while "jsonl" not in drawn:  # a terminal gives what it has, in pieces
            assert select.select([seen], [], [], 30)[0], drawn
            drawn += os.read(seen, 100_000).decode()
    os.close(seen)
    assert "a[red]b[/]c\\x1b[2J.jsonl" in drawn
