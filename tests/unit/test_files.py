"""Files that are complete or absent."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtft import files


def test_a_file_is_durable_before_its_name_and_its_name_before_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "a.json", []

    def noted(name: str, step: Callable[..., Any], what: Callable[..., object]) -> None:
        def wrapped(*args: Any) -> Any:
            steps.append((name, what(*args)))
            return step(*args)

        monkeypatch.setattr(os, name, wrapped)

    noted("fsync", os.fsync, lambda descriptor: os.fstat(descriptor).st_ino)
    noted("replace", os.replace, lambda _, target: target)
    files.write_json(path, {"a": 1})
    assert files.read_json(path) == {"a": 1}
    assert steps == [("fsync", path.stat().st_ino), ("replace", path), ("fsync", tmp_path.stat().st_ino)]


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, float("nan"))
    with pytest.raises(RuntimeError), files.replacing(path) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == 1 and list(tmp_path.iterdir()) == [path]
