"""The store of prepared data: what is in it, when it is rebuilt, and which data are refused."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mtft.config import Config
from mtft.errors import NO_ROOM, InputError
from mtft.files import sha256_file
from mtft.models import card
from tests.trainer.preparing import ONE_WAY, Standins, build, config, pair, raw, tree, write
from trainer.building import Inputs
from trainer.encoding import Encoder
from trainer.families import load_tokenizer
from trainer.preparation import copy_rejected


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

    def test_a_file_whose_name_is_not_utf8_is_read_and_told(self, corpus: Path, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        strange = folder / "donn\udce9es.jsonl"
        strange.write_bytes(corpus.read_bytes() + b"{\n")
        settings = config(folder, on_bad_row="skip")
        prepared = build(settings, tmp_path)
        assert [each["file"] for each in prepared.stats["files"]] == [str(strange)]
        copy_rejected(prepared, Inputs.of(settings.data), tmp_path / "rejected.jsonl")
        (dropped,) = (tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(dropped)["file"] == str(strange)

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
        self.refuse(config(corpus), tmp_path, f"1 MiB free, but the tokenised data take about .*; {NO_ROOM}$")

    def test_a_disk_that_fills_up(self, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("trainer.prepared_data.ArrowWriter.write_batch", full)
        self.refuse(config(corpus), tmp_path, f"cannot be written: No space left on device; {NO_ROOM}$")

    def test_a_cache_that_cannot_be_written(self, corpus: Path, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file is in the way")
        self.refuse(config(corpus), tmp_path, "cannot be written: Not a directory|File exists")
