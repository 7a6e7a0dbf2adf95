"""The store of prepared data: what is in it, when it is rebuilt, and which data are refused."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtft import lease
from mtft.config import Config
from mtft.errors import InputError, Retry
from mtft.files import sha256_file
from mtft.leakage import Leakage
from mtft.models import card
from mtft.rows import Row
from trainer.building import Inputs
from trainer.encoding import Encoded, Encoder
from trainer.families import load_tokenizer
from trainer.preparation import copy_rejected, prepare
from trainer.prepared_data import MANIFEST, Prepared, open_prepared, publish

Standins = Callable[[str], Path]
TWO_WAY, ONE_WAY = "m2m100_418m", "opus_mt_fr_en"


class Letters:
    """An encoder at the edge of the data path: code points, cut to 20, "?" unknown; counts its calls."""

    def __init__(self, fingerprint: str = "letters") -> None:
        self.fingerprint = fingerprint
        self.calls = 0

    def encode(self, sources: list[str], targets: list[str], source_lang: str, target_lang: str) -> Encoded:
        self.calls += 1
        tag = {"en": 1, "fr": 2}
        return Encoded(
            source_ids=[[tag[source_lang], *map(ord, text[:20])] for text in sources],
            target_ids=[[tag[target_lang], *map(ord, text[:20])] for text in targets],
            truncated=sum(max(len(a), len(b)) > 20 for a, b in zip(sources, targets, strict=True)),
            unknown=sum(text.count("?") for text in sources),
            pieces=sum(map(len, sources)),
        )


def config(train: Path | list[Path], key: str = TWO_WAY, **data: Any) -> Config:
    paths = [str(path) for path in train] if isinstance(train, list) else str(train)
    given = {name: str(value) if isinstance(value, Path) else value for name, value in data.items()}
    return Config.model_validate({"model": key, "data": {"train": paths, **given}})


def pair(number: int, source_lang: str = "en", **more: Any) -> str:
    texts = {"en": f"Cod number {number}.", "fr": f"Morue numéro {number}."}
    other = "fr" if source_lang == "en" else "en"
    fields = {"source": texts[source_lang], "target": texts[other], "source_lang": source_lang}
    return json.dumps({**fields, "pub_number": f"D-{number // 5}", **more}, ensure_ascii=False)


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes("".join(f"{text}\n" for text in lines).encode())
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """200 documents of 5 pairs in both directions: 2,000 rows."""
    return write(tmp_path / "train.jsonl", [pair(n, lang) for n in range(1000) for lang in ("en", "fr")])


def build(settings: Config, root: Path, encoder: Any = None) -> Prepared:
    return prepare(settings, card(settings.model.key), encoder or Letters(), Inputs.of(settings.data), root)


def tree(root: Path) -> set[str]:
    """Name what was left below the cache, by store."""
    return {str(path.relative_to(root / "cache" / "data")) for path in root.glob("cache/data/*")}


def raw(prepared: Prepared, name: str) -> list[dict[str, str]]:
    return [json.loads(text) for text in (prepared.folder / f"{name}.jsonl").read_text("utf-8").split("\n")[:-1]]


class TestContent:
    def test_both_directions_split_by_document(self, corpus: Path, tmp_path: Path) -> None:
        prepared = build(config(corpus), tmp_path)
        assert [len(split) for split in (prepared.train, prepared.dev, prepared.test)] == [1900, 50, 50]
        assert prepared.stats["splits"]["train"]["directions"] == {"en-fr": 950, "fr-en": 950}
        documents = {name: {row["pub_number"] for row in raw(prepared, name)} for name in ("dev", "test")}
        assert documents["dev"].isdisjoint(documents["test"])
        assert prepared.stats["leakage"]["dev"]["loose"]["any"] == 0
        assert prepared.stats["sha256"] == sha256_file(corpus)

    def test_arrow_rows_and_raw_rows_are_the_same_rows(self, corpus: Path, tmp_path: Path) -> None:
        prepared = build(config(corpus), tmp_path)
        for tokens, row in zip(prepared.dev, raw(prepared, "dev"), strict=True):
            assert raw(prepared, "dev")[tokens["row"]] == row
            assert tokens["direction"] == (0 if row["source_lang"] == "en" else 1)
            assert "".join(map(chr, tokens["source_ids"][1:])) == row["source"][:20]
            assert "".join(map(chr, tokens["target_ids"][1:])) == row["target"][:20]
        assert prepared.train["row"][:] == list(range(1900))
        assert str(prepared.train.features["source_ids"].feature.dtype) == "int32"
        assert prepared.train.cache_files, "not memory-mapped"

    def test_a_one_way_model_takes_its_source_language(self, corpus: Path, tmp_path: Path) -> None:
        prepared = build(config(corpus, ONE_WAY), tmp_path)
        assert {row["source_lang"] for row in raw(prepared, "dev") + raw(prepared, "test")} == {"fr"}
        assert len(prepared.train) == 950
        assert prepared.stats["read"]["train"]["wrong_direction"] == 1000

    def test_given_dev_and_test_are_taken_as_they_are(self, corpus: Path, tmp_path: Path) -> None:
        dev = write(tmp_path / "dev.jsonl", [pair(n) for n in (5, 3)])
        test = write(tmp_path / "test.jsonl", [pair(5000)])
        prepared = build(config(corpus, dev=dev, test=test), tmp_path)
        assert [len(split) for split in (prepared.train, prepared.dev, prepared.test)] == [2000, 2, 1]
        assert [row["source"] for row in raw(prepared, "dev")] == ["Cod number 5.", "Cod number 3."]
        leaked = prepared.stats["leakage"]
        assert leaked["dev"]["exact"] == {"rows": 2, "source": 2, "target": 2, "swapped": 2, "pair": 2, "any": 2}
        assert leaked["test"]["exact"]["any"] == 0

    @pytest.mark.parametrize(("given", "lengths"), [("dev", [1950, 1, 50]), ("test", [1900, 100, 1])])
    def test_the_missing_set_is_held_out(self, corpus: Path, tmp_path: Path, given: str, lengths: list[int]) -> None:
        one = write(tmp_path / "one.jsonl", [pair(5000)])
        settings = config(corpus, dev=one) if given == "dev" else config(corpus, test=one)
        prepared = build(settings, tmp_path)
        assert [len(split) for split in (prepared.train, prepared.dev, prepared.test)] == lengths

    def test_max_samples_are_spread_over_the_training_rows(self, corpus: Path, tmp_path: Path) -> None:
        prepared = build(config(corpus, max_samples=100), tmp_path)
        assert [len(split) for split in (prepared.train, prepared.dev, prepared.test)] == [100, 50, 50]
        numbers = [int("".join(map(chr, ids[1:])).split()[2].strip(".")) for ids in prepared.train["source_ids"]]
        assert numbers == sorted(numbers)
        assert numbers[0] < 30
        assert numbers[-1] > 970

    def test_everything_dropped_is_listed(self, corpus: Path, tmp_path: Path) -> None:
        with corpus.open("a") as more:
            more.write("{\n" + pair(1, source=" ") + "\n")
        prepared = build(config(corpus), tmp_path)
        listed = [json.loads(text) for text in (prepared.folder / "rejected.jsonl").read_text().splitlines()]
        assert [(item["line"], item["reason"].split(":")[0]) for item in listed] == [
            (2001, "bad_json"),
            (2002, "empty_side"),
        ]
        assert set(listed[0]) == {"file", "line", "reason", "excerpt"}
        assert prepared.stats["read"]["train"]["bad"] == 1

    def test_the_list_of_a_run_names_its_own_files(self, corpus: Path, tmp_path: Path) -> None:
        with corpus.open("a") as more:
            more.write("{\n")
        build(config(corpus), tmp_path)
        other = config(Path(shutil.copy(corpus, tmp_path / "moved.jsonl")))
        copy_rejected(build(other, tmp_path), Inputs.of(other.data), tmp_path / "rejected.jsonl")
        (listed,) = map(json.loads, (tmp_path / "rejected.jsonl").read_text().splitlines())
        assert (listed["file"], listed["line"]) == (str(tmp_path / "moved.jsonl"), 2001)

    def test_counts(self, tmp_path: Path) -> None:
        lines = [pair(n, source="?" + "x" * 9, target="y" * (30 if n == 7 else 5)) for n in range(100)]
        stats = build(config(write(tmp_path / "a.jsonl", lines), max_unknown_fraction=0.1), tmp_path).stats
        assert stats["unknown_fraction"] == 0.1
        assert sum(split["truncated"] for split in stats["splits"].values()) == 1
        assert stats["splits"]["dev"]["mean_source_length"] == 11

    @pytest.mark.parametrize("key", ["m2m100_418m", "mbart50_mmt_fr", "opus_mt_fr_en"])
    def test_with_the_real_encoder(self, corpus: Path, tmp_path: Path, key: str, standins: Standins) -> None:
        tokenizer = load_tokenizer(card(key), standins(key))
        encoder = Encoder(card(key), tokenizer, max_source_length=64, max_target_length=64)
        prepared = build(config(corpus, key, max_samples=50, max_unknown_fraction=1), tmp_path, encoder)
        assert len(prepared.train) == 50
        for tokens, row in zip(prepared.dev, raw(prepared, "dev"), strict=True):
            direction = card(key).directions[tokens["direction"]]
            expected = encoder.encode([row["source"]], [row["target"]], *direction)
            assert direction[0] == row["source_lang"]
            assert (tokens["source_ids"], tokens["target_ids"]) == (expected.source_ids[0], expected.target_ids[0])


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


class TestRefused:
    """Each is one message and exit code 2, and leaves nothing behind."""

    def refuse(self, settings: Config, root: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            build(settings, root)
        assert tree(root) == set()

    def test_a_missing_file(self, tmp_path: Path) -> None:
        self.refuse(config(tmp_path / "none.jsonl"), tmp_path, "none.jsonl: no such file")

    def test_other_content_than_promised(self, corpus: Path, tmp_path: Path) -> None:
        self.refuse(config(corpus, sha256="0" * 64), tmp_path, f"SHA-256 is {sha256_file(corpus)}")
        build(config(corpus, sha256=sha256_file(corpus)), tmp_path)

    def test_nothing_in_the_models_direction(self, tmp_path: Path) -> None:
        only_english = write(tmp_path / "en.jsonl", [pair(n) for n in range(50)])
        self.refuse(config(only_english, ONE_WAY), tmp_path, "no train rows: of 50 rows 50 have another source_lang")

    def test_no_dev_rows(self, corpus: Path, tmp_path: Path) -> None:
        only_english = write(tmp_path / "en.jsonl", [pair(n) for n in range(5000, 5010)])
        self.refuse(config(corpus, ONE_WAY, dev=only_english), tmp_path, "data.dev: no dev rows")

    def test_a_single_document(self, tmp_path: Path) -> None:
        self.refuse(config(write(tmp_path / "a.jsonl", [pair(n) for n in range(5)])), tmp_path, "none can be held out")

    def test_too_many_bad_rows(self, corpus: Path, tmp_path: Path) -> None:
        with corpus.open("a") as more:
            more.write("{\n" * 3)
        self.refuse(config(corpus), tmp_path, r"3 of 2,003 rows are bad(.|\n)*train.jsonl:2001: bad_json")
        assert len(build(config(corpus, on_bad_row="skip"), tmp_path).train) == 1900

    def test_a_truncated_file(self, corpus: Path, tmp_path: Path) -> None:
        cut = tmp_path / "cut.jsonl.gz"
        packed = gzip.compress(corpus.read_bytes())
        cut.write_bytes(packed[: len(packed) * 3 // 4])
        self.refuse(config(cut), tmp_path, "broken_file: the gzip data end early")

    def test_a_damaged_file_whose_rows_look_good(self, corpus: Path, tmp_path: Path) -> None:
        damaged = tmp_path / "damaged.jsonl.gz"
        damaged.write_bytes(
            gzip.compress(corpus.read_bytes(), compresslevel=0).replace(b"Cod number 7.", b"Cod number 9.", 1)
        )
        self.refuse(config(damaged, on_bad_row="skip"), tmp_path, "rows before it may be damaged")

    def test_training_rows_in_the_test_set_are_told(
        self, corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        test = tmp_path / "test.jsonl"
        shutil.copyfile(corpus, test)
        with caplog.at_level("WARNING", logger="mtft.data"):
            build(config(corpus, test=str(test)), tmp_path)
        assert re.search(r"[\d,]+ of [\d,]+ test rows are training rows too", caplog.text)

    def test_one_file_behind_a_link(self, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "link.jsonl").symlink_to(corpus)
        self.refuse(config(corpus, test=str(tmp_path / "link.jsonl")), tmp_path / "root", "used for more than one")

    def test_one_file_for_two_purposes(self, corpus: Path, tmp_path: Path) -> None:
        self.refuse(config(corpus, dev=corpus), tmp_path, "used for more than one of data.train, data.dev")

    def test_unknown_pieces(self, tmp_path: Path) -> None:
        foreign = write(tmp_path / "a.jsonl", [pair(n, source=f"??? {n:016}") for n in range(100)])
        self.refuse(config(foreign), tmp_path, r"maps 300 of 2,000 source pieces \(15.0%\)")

    def test_a_full_disk_is_seen_before_the_work(
        self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1 << 20))
        self.refuse(config(corpus), tmp_path, "1 MiB free, but the tokenised data take about")

    def test_a_disk_that_fills_up(self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("trainer.prepared_data.ArrowWriter.write_batch", full)
        self.refuse(config(corpus), tmp_path, "cannot be written: No space left on device; storage.root")

    def test_a_cache_that_cannot_be_written(self, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file is in the way")
        self.refuse(config(corpus), tmp_path, "cannot be written: Not a directory|File exists")
