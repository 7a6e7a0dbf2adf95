"""``mtft-launch data check`` and ``data split``."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import yaml

from launcher.cli import main


def line(number: int, document: int, **more: object) -> str:
    fields = {"source": f"Cod {number}.", "target": f"Morue {number}.", "source_lang": "en", **more}
    return json.dumps({**fields, "pub_number": f"D-{document}"}, ensure_ascii=False)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(line(number, number // 10, id=number) for number in range(400)).encode()))
    return path


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    path = tmp_path / "flawed.jsonl"
    rows = [line(0, 0), "{", line(1, 1, source=" "), *(line(number, number) for number in range(2, 40))]
    path.write_text("\n".join(rows))
    return path


class TestCheck:
    def test_good_data(self, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "check", str(good), "-o", "json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["rows"], report["accepted"], report["rejected"]) == (400, 400, [])
        assert report["source_lang"] == {"en": 400}
        assert report["ignored_fields"] == {"id": 400}

    @pytest.mark.parametrize("form", ["json", "yaml"])
    def test_every_flaw_is_listed(self, flawed: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "check", str(flawed), "-o", form]) == 2
        report = yaml.safe_load(capsys.readouterr().out)
        assert (report["rows"], report["accepted"], report["bad"], report["dropped_empty"]) == (41, 39, 1, 1)
        assert [(item["file"], item["line"]) for item in report["rejected"]] == [(str(flawed), 2), (str(flawed), 3)]
        assert report["rejected"][0]["reason"].startswith("bad_json:")
        assert report["rejected"][0]["excerpt"] == "{"
        assert report["rejected"][1]["reason"].startswith("empty_side:")

    def test_the_table_for_people(self, flawed: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "check", str(flawed)]) == 2
        text = capsys.readouterr().out
        assert "empty_side: source is blank" in text
        assert "\x1b" not in text

    def test_what_is_not_read_in_a_folder_is_named(self, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = good.parent
        (folder / "older").mkdir()
        (folder / "notes.txt").touch()
        (folder / ".hidden").touch()
        assert main(["data", "check", str(folder), "-o", "json"]) == 0
        shown = capsys.readouterr()
        assert json.loads(shown.out)["passed_over"] == [f"{folder}/notes.txt", f"{folder}/older/"]
        assert f"note: 2 entries of data folders are not read: {folder}/notes.txt, {folder}/older/; of a" in shown.err
        assert main(["data", "check", str(good)]) == 0
        assert not capsys.readouterr().err

    def test_a_missing_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "check", str(tmp_path / "none.jsonl")]) == 2
        assert "none.jsonl: no such file" in capsys.readouterr().err

    def test_an_empty_path_is_not_the_current_folder(
        self, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (good.parent / "rows.jsonl").write_text(line(1, 1))
        monkeypatch.chdir(good.parent)
        assert main(["data", "check", ""]) == 2
        assert "a data path is empty" in capsys.readouterr().err


class TestSplit:
    def test_lines_are_moved_unchanged_and_documents_stay_whole(
        self, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        assert main(["data", "split", str(good), "--dev-fraction", "0.1", "--out", str(out), "-o", "json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["splits"] == {"train": 360, "dev": 20, "test": 20}
        written = {name: (out / f"{name}.jsonl").read_text().splitlines() for name in report["splits"]}
        assert {name: len(lines) for name, lines in written.items()} == report["splits"]
        every = [text for lines in written.values() for text in lines]
        assert sorted(every) == sorted(gzip.decompress(good.read_bytes()).decode().split("\n"))
        documents = [{json.loads(text)["pub_number"] for text in lines} for lines in written.values()]
        assert sum(map(len, documents)) == len(set.union(*documents))
        assert (out / "rejected.jsonl").read_text() == ""

    def test_what_is_dropped_is_listed(self, flawed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert main(["data", "split", str(flawed), "--out", str(out)]) == 0
        assert "2 rows were dropped" in capsys.readouterr().err
        assert [json.loads(text)["line"] for text in (out / "rejected.jsonl").read_text().splitlines()] == [2, 3]

    def test_a_truncated_file_is_refused(self, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
        good.write_bytes(good.read_bytes()[:-20])
        out = good.parent / "out"
        assert main(["data", "split", str(good), "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert f"{good}:" in error
        assert "the gzip data end early" in error
        assert not out.exists()

    def test_nothing_is_overwritten(self, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "train.jsonl").write_text("mine")
        assert main(["data", "split", str(good), "--out", str(tmp_path)]) == 2
        assert "train.jsonl exists already" in capsys.readouterr().err
        assert {path.name for path in tmp_path.iterdir()} == {"good.jsonl.gz", "train.jsonl"}

    @pytest.mark.parametrize("seed", ["-3", "9007199254740993"])
    def test_a_seed_out_of_range(self, good: Path, seed: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["data", "split", str(good), "--seed", seed, "--out", str(good.parent / "out")]) == 2
        assert f"--seed is {seed}; allowed: a whole number from 0" in capsys.readouterr().err
        assert not (good.parent / "out").exists()

    def test_a_name_that_is_not_utf8(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        strange = tmp_path / "caf\udce9.jsonl"
        strange.write_text("\n".join([*(line(number, number) for number in range(40)), "{"]))
        out = tmp_path / "out"
        assert main(["data", "split", str(strange), "--out", str(out)]) == 0
        (rejected,) = (out / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(rejected)["file"] == str(strange)
        capsys.readouterr()
        assert main(["data", "check", str(strange), "-o", "json"]) == 2
        assert json.loads(capsys.readouterr().out)["rejected"][0]["file"] == str(strange)

    @pytest.mark.parametrize("fraction", ["0", "1", "-0.1", "nan"])
    def test_a_fraction_out_of_range(self, good: Path, tmp_path: Path, fraction: str) -> None:
        assert main(["data", "split", str(good), f"--dev-fraction={fraction}", "--out", str(tmp_path / "out")]) == 2
        assert not (tmp_path / "out").exists()
