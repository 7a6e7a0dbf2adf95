"""``mtft-launch run`` and the local backend: names, documents, exit codes, signals; nothing is trained here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launcher.backends import local
from launcher.cli import main

ROW = '{"source": "Cod.", "target": "Morue.", "source_lang": "en"}\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text(ROW)
    return tmp_path


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    line = ["--model", "opus_mt_en_fr", "--data", "train.jsonl", "--backend", "local", "--dry-run", "-o", "json"]
    assert main([*line, *arguments]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    shown["job"] = shown["command"][shown["command"].index("--job") + 1]
    return shown


def test_a_dry_run_shows_the_command_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = dry_run(capsys)
    job = shown["job"]
    assert shown["command"] == [
        *(sys.executable, "-m", "trainer", "--config", f"{here}/outputs/opus_mt_en_fr/jobs/{job}.yaml"),
        *("--model", "opus_mt_en_fr", "--job", job, "--root", str(here), "--attended"),
    ]
    assert shown["document"]["data"]["train"] == f"{here}/train.jsonl"
    assert [path.name for path in here.iterdir()] == ["train.jsonl"]


def test_the_job_name_follows_what_is_learned_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = dry_run(capsys)["job"]
    assert first.startswith("opus-mt-en-fr-")
    assert dry_run(capsys, "--processes", "2", "--output", "elsewhere")["job"] == first
    assert dry_run(capsys, "--set", "train.seed=7")["job"] != first
    assert dry_run(capsys, "--rerun")["job"] != dry_run(capsys, "--rerun")["job"] != first
    assert dry_run(capsys, "--job", "mine")["job"] == "mine"
    (here / "train.jsonl").write_text(ROW * 2)
    assert dry_run(capsys)["job"] != first


def test_options_reach_the_document(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "base").mkdir()
    document = dry_run(capsys, "--processes", "3", "--model-path", "base")["document"]
    assert document["cluster"]["processes_per_node"] == 3
    assert document["model"] == {"key": "opus_mt_en_fr", "path": f"{here}/base"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "train.jsonl"], "not built yet; use --backend local"),
        (["--backend", "local"], "data"),
        (["--backend", "local", "--data", "gone.jsonl"], "gone.jsonl: no such file"),
        (["--backend", "local", "--data", "train.jsonl", "--output", "train.jsonl"], "choose another folder"),
    ],
)
def test_bad_usage_is_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", "opus_mt_en_fr", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trainer", "interrupted", "launcher"),
    [
        (0, False, 0),
        (0, True, 0),
        (1, False, 1),
        (2, False, 2),
        (3, False, 1),
        (143, False, 1),
        (143, True, 130),
        (-9, False, 1),
    ],
)
def test_exit_code(trainer: int, interrupted: bool, launcher: int) -> None:
    assert local.exit_code(trainer, interrupted=interrupted) == launcher


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once_and_is_130(number: signal.Signals) -> None:
    trainer = (
        "import signal, sys\n"
        "mask = {signal.SIGINT, signal.SIGTERM}\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, mask)\n"
        "print('ready', flush=True)\n"
        "print(signal.Signals(signal.sigwait(mask)).name, signal.sigpending() & mask, flush=True)\n"
        "sys.exit(143)\n"
    )
    program = (
        f"import sys; from launcher.backends.local import start; sys.exit(start([sys.executable, '-c', {trainer!r}]))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        launcher.send_signal(number)
        assert launcher.stdout.read() == f"{number.name} set()\n"
        assert launcher.wait(timeout=60) == 130
