"""Tokenised data: built once, found again, named and built anew where damaged."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from mtft import lease
from mtft.config import Config, DataConfig
from mtft.errors import Retry
from mtft.files import sha256_file
from mtft.leakage import Leakage
from mtft.rows import Row
from tests.trainer.preparing import ONE_WAY, Letters, build, config, tree
from trainer.encoding import Encoded
from trainer.prepared_data import MANIFEST, open_prepared, publish


class TestCache:
    def test_a_store_is_built_once_and_reopened(self, corpus: Path, tmp_path: Path) -> None:
        encoder = Letters()
        first = build(config(corpus), tmp_path, encoder)
        calls = encoder.calls
        copy = shutil.copy(corpus, tmp_path / "elsewhere.jsonl")
        second = build(config(Path(copy)), tmp_path, encoder)
        assert (first.folder, calls) == (second.folder, encoder.calls)
        assert open_prepared(first.folder).stats == first.stats
        assert tree(tmp_path) == {first.folder.name}

    @pytest.mark.parametrize("change", ["content", "encoder", "seed", "fraction", "samples", "length", "direction"])
    def test_whatever_matters_makes_another_store(self, corpus: Path, tmp_path: Path, change: str) -> None:
        first = build(config(corpus), tmp_path)
        settings, encoder = config(corpus), Letters()
        if change == "content":
            corpus.write_bytes(corpus.read_bytes().replace(b"Cod number 0.", b"Cod number zero."))
        elif change == "encoder":
            encoder = Letters("others")
        elif change == "seed":
            settings = config(corpus, split_seed=1)
        elif change == "fraction":
            settings = config(corpus, dev_fraction=0.1)
        elif change == "samples":
            settings = config(corpus, max_samples=1900)
        elif change == "length":
            settings = Config.model_validate({**settings.model_dump(), "train": {"max_source_length": 7}})
        else:
            settings = config(corpus, ONE_WAY)
        assert build(settings, tmp_path, encoder).folder != first.folder

    def test_a_setting_that_comes_later_makes_another_store_only_where_it_is_given(
        self, corpus: Path, tmp_path: Path
    ) -> None:
        class Later(DataConfig):
            min_characters: int = 0

        def folder(**later: int) -> Path:
            settings = config(corpus)
            data = Later.model_validate(settings.data.model_dump() | later)
            return build(settings.model_copy(update={"data": data}), tmp_path).folder

        before = build(config(corpus), tmp_path).folder
        assert folder() == before != folder(min_characters=3)
        # Another one here: every store is built anew, and every checkpoint that names one is refused.
        assert before.name.startswith("04b4e0dd860ecfd0")

    def test_the_bytes_are_reproducible(self, corpus: Path, tmp_path: Path) -> None:
        one, two = (build(config(corpus), tmp_path / name).folder for name in ("a", "b"))
        assert {p.name: sha256_file(p) for p in one.iterdir()} == {p.name: sha256_file(p) for p in two.iterdir()}

    def test_a_failed_build_leaves_nothing(self, corpus: Path, tmp_path: Path) -> None:
        class Failing(Letters):
            def encode(self, *_: Any) -> Encoded:
                raise RuntimeError("boom")

        with pytest.raises(RuntimeError, match="boom"):
            build(config(corpus), tmp_path, Failing())
        assert tree(tmp_path) == set()

    @pytest.mark.parametrize(
        ("host", "age_s", "kept"),
        [("here", 0, False), ("elsewhere", 0, True), ("elsewhere", 100_000, False)],
        ids=["of a dead process", "of another machine", "of another machine, long ago"],
    )
    def test_an_abandoned_build_is_cleared_away(
        self, corpus: Path, tmp_path: Path, host: str, age_s: int, kept: bool
    ) -> None:
        name = build(config(corpus), tmp_path).folder.name
        folder = tmp_path / "cache" / "data"
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        owner = lease.machine().replace("/", "-") if host == "here" else "other.example"
        left = (folder / name).rename(folder / f".{name}.{owner}.{dead.pid}.0a1b.tmp")
        for path in (left, *left.iterdir()):
            os.utime(path, (time.time() - age_s,) * 2)
        (folder / f"{name}.lease").write_text('{"owner": "gone", "expires": 1.0}')
        build(config(corpus), tmp_path)
        assert tree(tmp_path) == ({name, left.name} if kept else {name})

    def test_what_a_killed_process_left_of_the_lease_is_in_nobodys_way(self, corpus: Path, tmp_path: Path) -> None:
        name = build(config(corpus), tmp_path).folder.name
        folder = tmp_path / "cache" / "data"
        shutil.rmtree(folder / name)
        young = [folder / f".{name}.lease.0a1b.tmp", folder / f".{name}.lease.{os.getpid()}.0a1b.tmp"]
        old = [folder / f".{name}.lease.2c3d.tmp", folder / ".another.lease.2c3d.tmp", folder / ".x.tmp"]
        for path in (*young, *old):
            path.write_text("{}")
        for path in old:
            os.utime(path, (time.time() - 100_000,) * 2)
        build(config(corpus), tmp_path)
        assert {path.name for path in folder.glob(".*")} == {path.name for path in young}

    def test_two_that_build_at_once_both_end_with_a_complete_store(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The lease of one expires while it works, as on a laptop that slept; another takes over."""
        slept, woke = threading.Event(), threading.Event()
        compare = Leakage.see

        def sleep_once(leakage: Leakage, row: Row) -> None:
            if threading.current_thread().name == "sleeper" and not slept.is_set():
                slept.set()
                woke.wait(60)
            compare(leakage, row)

        monkeypatch.setattr(Leakage, "see", sleep_once)
        sleeper = threading.Thread(target=build, args=(config(corpus), tmp_path), name="sleeper")
        sleeper.start()
        assert slept.wait(60)
        (held,) = (tmp_path / "cache" / "data").glob("*.lease")
        held.write_text('{"owner": "gone", "expires": 1.0}')
        folder = build(config(corpus), tmp_path).folder
        woke.set()
        sleeper.join(60)
        assert tree(tmp_path) == {folder.name}
        assert open_prepared(folder).train.num_rows > 0

    def test_a_volume_that_fails_for_a_moment_is_asked_by_another_start(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = build(config(corpus), tmp_path).folder
        failing = Mock(side_effect=OSError(errno.EIO, "Input/output error"))
        monkeypatch.setattr("trainer.prepared_data.Dataset.from_file", failing)
        with pytest.raises(Retry, match="Input/output error"):
            open_prepared(folder)

    def test_a_store_that_lost_files_is_not_published(self, corpus: Path, tmp_path: Path) -> None:
        folder = build(config(corpus), tmp_path).folder
        (folder / "train.arrow").unlink()
        moved = folder.rename(tmp_path / "built")
        with pytest.raises(Retry, match=r"train\.arrow"):
            publish(moved, folder)
        assert not folder.exists()

    @pytest.mark.parametrize(
        ("name", "damage", "found"),
        [
            ("test.jsonl", "cut", r"test\.jsonl: has not the size"),
            ("train.arrow", "zeroed", r"train\.arrow: has not the SHA-256"),
            ("rejected.jsonl", "gone", r"rejected\.jsonl: is missing"),
            ("stats.json", "zeroed", r"stats\.json: cannot be understood"),
            ("stats.json", "gone", r"stats\.json: is missing"),
            ("stats.json", "earlier", r"stats\.json: does not list the files"),
        ],
    )
    def test_a_damaged_store_is_told_and_built_anew(
        self, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str, found: str
    ) -> None:
        folder = build(config(corpus), tmp_path).folder
        before = {path.name: sha256_file(path) for path in folder.iterdir()}
        if damage == "gone":
            (folder / name).unlink()
        elif damage == "earlier":
            stats = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps({key: its for key, its in stats.items() if key != MANIFEST}))
        else:
            content = (folder / name).read_bytes()
            half = content[: len(content) // 2]
            (folder / name).write_bytes(
                (half + bytes(100) + content[len(half) + 100 :]) if damage == "zeroed" else half
            )
        encoder = Letters()
        with caplog.at_level("WARNING", logger="mtft.data"):
            assert build(config(corpus), tmp_path, encoder).folder == folder
        assert re.search(f"{found}.*; the tokenised data are built anew", caplog.text)
        assert encoder.calls and {path.name: sha256_file(path) for path in folder.iterdir()} == before
        assert tree(tmp_path) == {folder.name}

    def test_a_damaged_store_loses_its_name_before_its_files(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So nobody opens half of it."""
        folder, removed, remove = build(config(corpus), tmp_path).folder, [], shutil.rmtree
        (folder / "test.jsonl").write_text("")

        def noted(path: Path, **options: Any) -> None:
            removed.append(path)
            remove(path, **options)

        monkeypatch.setattr(shutil, "rmtree", noted)
        build(config(corpus), tmp_path)
        assert removed and folder not in removed

    def test_a_rank_does_not_open_a_store_that_was_cut_meanwhile(self, corpus: Path, tmp_path: Path) -> None:
        folder = build(config(corpus), tmp_path).folder
        lines = (folder / "test.jsonl").read_text().splitlines(keepends=True)
        (folder / "test.jsonl").write_text("".join(lines[:2]))
        with pytest.raises(Retry, match=r"test\.jsonl: has not the size .*; the next start builds"):
            open_prepared(folder)
