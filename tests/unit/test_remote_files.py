"""What the far end of a transfer is told and finds: names of any length and kind, folders that cannot be listed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from launcher import remote_files
from launcher.transfer import Remote
from tests.unit.tiny_exec import TinyExec


def test_the_address_of_a_request_gets_through_proxies_whatever_is_asked(pod: TinyExec, remote: Remote) -> None:
    names = [f"{number:03}-{'é' * 100}" for number in range(500)]
    for name in names:
        (pod.root / name).write_text(name)
    assert len(remote.ask_of("digests", str(pod.root), names)) == 500
    assert max(map(len, pod.addresses)) < 2000


def test_names_as_long_and_odd_as_a_file_system_takes_them(pod: TinyExec, remote: Remote, tmp_path: Path) -> None:
    for name in ("語" * 83 + ".jsonl", "b" * 255, os.fsdecode(b"\xff.txt"), "a\nb"):
        here = tmp_path / name
        here.write_text("hello")
        assert remote.push(here, str(pod.root / name))
        here.unlink()
        remote.fetch(str(pod.root / name), here)
        assert here.read_text() == "hello"
        assert [each["path"] for each in remote.ask("list", str(pod.root), name)] == [name]
        remote.ask_of("remove", str(pod.root), [name])
    assert not list(pod.root.iterdir())


def test_a_folder_that_may_not_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "here").touch()
    listed = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name in ("logs", ".hidden"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="logs"):
        list(remote_files.files_below(tmp_path))
    (tmp_path / "logs").rmdir()
    assert list(remote_files.files_below(tmp_path)) == [tmp_path / "here"]
    assert list(remote_files.files_below(tmp_path / "nowhere")) == []
