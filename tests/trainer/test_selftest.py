"""The self-test tells what is missing, and no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import selftest


@pytest.fixture(autouse=True)
def one_light_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "_IMPORTS", ("torch", "json"))


def test_passes_where_everything_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.self_test(tmp_path / "new") == 0
    said = capsys.readouterr().out
    assert f"write access to {tmp_path / 'new'}: ok" in said
    assert f"UID {os.getuid()}, GID {os.getgid()}" in said
    assert "GB free" in said
    assert said.endswith("self-test: ok\n")
    assert not list((tmp_path / "new").iterdir()), "it leaves nothing behind"


def test_a_folder_that_takes_no_files_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert selftest.self_test(tmp_path / "file") == 2
    said = capsys.readouterr().out
    assert f"write access to {tmp_path / 'file'}: FAILED (File exists)" in said
    assert "self-test: FAILED (1 of 5 checks)" in said


def test_a_library_that_does_not_load_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_library.py").write_text("raise OSError('libbroken.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(selftest, "_IMPORTS", ("json", "broken_library"))
    monkeypatch.setattr(selftest, "_cuda", lambda wanted: True)
    assert selftest.self_test(tmp_path) == 2
    assert "import broken_library: FAILED (OSError: libbroken.so.1" in capsys.readouterr().out


def test_little_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selftest, "_LOW_SPACE", float("inf"))
    monkeypatch.setattr(selftest, "_SHARED_MEMORY", tmp_path / "no-shm")
    assert selftest.self_test(tmp_path) == 0
    said = capsys.readouterr().out
    assert "GB free (LOW)" in said
    assert "shared memory: size of" in said


def test_what_is_asked_for_and_missing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_geheim")
    monkeypatch.setenv("WANDB_API_KEY", "")
    asked = ["HF_TOKEN=hub/token", "WANDB_API_KEY=tracker/api-key"]
    assert selftest.self_test(tmp_path, gpus=64, secrets=asked) == 2
    said = capsys.readouterr().out
    assert "secret HF_TOKEN: ok" in said and "geheim" not in said
    assert "secret WANDB_API_KEY: FAILED (key api-key of Secret tracker is missing or empty in this namespace)" in said
    assert "64 asked for; look at the device plugin" in said
    assert "self-test: FAILED (2 of 7 checks)" in said


def test_secrets_are_named_and_never_shown() -> None:
    environment = {"HF_TOKEN": "hf_geheim", "WANDB_API_KEY": "", "AWS_SECRET_ACCESS_KEY": "geheim", "HOME": "/tmp"}
    line = selftest.secrets_line(environment)
    assert line == "secrets in the environment: AWS_SECRET_ACCESS_KEY, HF_TOKEN, WANDB_API_KEY (empty)"
    assert selftest.secrets_line({"HOME": "/tmp"}).endswith(": none")


@pytest.mark.parametrize(("options", "mask"), [((), "002"), (("--attended",), "022")])
def test_what_a_pod_writes_is_for_its_group(tmp_path: Path, options: tuple[str, ...], mask: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "--self-test", "--root", tmp_path, *options],
        capture_output=True,
        text=True,
        umask=0o022,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"umask {mask}" in done.stdout
