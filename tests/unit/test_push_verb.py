"""`data push` against the real far end: what it may take the place of, and what it says to go on with."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import zstandard

from launcher.cli import main
from mtft import exit_codes
from mtft.sources import content_sha256
from tests.unit.runs_on_disk import MODEL
from tests.unit.tiny_exec import TinyExec, serve


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyExec]:
    """Give the pod that `data push` would start, with the volume in ``volume``, from a folder with mtft.yaml."""
    (tmp_path / "volume" / "data").mkdir(parents=True)
    tiny = TinyExec(tmp_path / "volume")

    @contextmanager
    def runs(*_: Any) -> Iterator[str]:
        yield "mtft-transfer-1"

    monkeypatch.setattr("launcher.transfer_pod.running", runs)
    monkeypatch.chdir(tmp_path)
    cluster = {"image": "example.org/mtft:1.0", "namespace": "team"}
    Path("mtft.yaml").write_text(json.dumps({"cluster": cluster, "storage": {"root": str(tiny.root)}}))
    with serve(tiny) as there:
        monkeypatch.setattr("launcher.cluster.connect", lambda *_: there)
        yield tiny


def push(*arguments: str) -> int:
    return main(["data", "push", *arguments])


def fill(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def test_it_prints_what_to_go_on_with(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    fill(Path(), train="one\n")
    assert push("train.jsonl") == exit_codes.DONE
    out, err = capsys.readouterr()
    target, digest = f"{pod.root}/data/train.jsonl", content_sha256(["train.jsonl"])
    assert f"--data {target} --set data.sha256={digest} -n team`" in err
    assert out == f"data: {{train: {target}, sha256: {digest}}}\n"
    assert push("train.jsonl", "--config", "mtft.yaml", "--set", "cluster.claim=two", "--model", MODEL) == 0
    out, err = capsys.readouterr()
    assert f"`mtft-launch --model {MODEL} --config mtft.yaml --set cluster.claim=two --data {target} --set" in err
    assert out == f"models: {{{MODEL}: {{data: {{train: {target}, sha256: {digest}}}}}}}\n"


def test_one_file_is_one(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    fill(Path(), train="new\n")
    assert push("train.jsonl") == exit_codes.DONE
    assert "1 file sent; every" in capsys.readouterr().err


def test_another_file_of_that_name_stays(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    there = fill(pod.root / "data", train="the old one\n") / "train.jsonl"
    before = content_sha256([there])
    fill(Path(), train="new\n")
    assert push("train.jsonl") == exit_codes.BAD_INPUT
    err = capsys.readouterr().err
    assert (
        f"train.jsonl: there 12 bytes, SHA-256 {before}; here 4 bytes, SHA-256 {content_sha256(['train.jsonl'])}" in err
    )
    assert "--to NAME" in err and "--replace" in err and there.read_text() == "the old one\n"
    assert push("train.jsonl", "--to", "new.jsonl") == exit_codes.DONE
    assert capsys.readouterr().out.startswith(f"data: {{train: {pod.root}/data/new.jsonl,")
    assert there.read_text() == "the old one\n"
    pod.cut_in = [2]  # a push that replaces goes on after a cut, too
    assert push("train.jsonl", "--replace") == exit_codes.DONE
    assert there.read_text() == "new\n" and not pod.cut_in
    assert push("train.jsonl") == exit_codes.DONE  # the same is there already
    assert "0 files sent, 1 were there already" in capsys.readouterr().err
    assert push("s3://bucket/rows.jsonl") == exit_codes.BAD_INPUT
    assert "trainers read an object store themselves; give its address to data.train" in capsys.readouterr().err


def test_the_hash_of_a_folder_is_that_of_what_lies_there(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    there = fill(pod.root / "data" / "news", a="1\n", b="old\n", gone="3\n")
    fill(there / "deep", c="5\n")  # not read as data of the folder
    (there / "link.jsonl").symlink_to(pod.root / "data" / "news" / "deep" / "c.jsonl")
    here = fill(Path("news"), a="1\n", b="new\n", more="4\n")
    assert push("news") == exit_codes.BAD_INPUT
    err = capsys.readouterr().err
    assert "news/b.jsonl: there 4 bytes" in err and "news/gone.jsonl: there 2 bytes; the folder here does not" in err
    assert "news/link.jsonl" in err and "news/a.jsonl: there" not in err and "deep" not in err
    assert not (there / "more.jsonl").exists()  # nothing was sent
    assert push("news", "--replace", "-o", "json") == exit_codes.DONE
    answer = json.loads(capsys.readouterr().out)
    assert answer["data.sha256"] == content_sha256([there]) == content_sha256([here])
    assert (answer["files"], answer["sent"], answer["removed"]) == (3, 2, 2)
    assert (there / "deep" / "c.jsonl").exists()
    fill(here / "deep", d="6\n")
    assert push("news") == exit_codes.DONE
    assert "1 entry of a data folder is not read: news/deep/" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("then", "words"), [("one\ntwo\n", "changed while it was pushed"), (None, "cannot be read: No")]
)
def test_a_file_that_changes_while_the_pod_starts_is_refused(
    then: str | None, words: str, pod: TinyExec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(Path(), train="one\n")

    @contextmanager
    def runs(*_: Any) -> Iterator[str]:
        Path("train.jsonl").unlink()
        if then:
            fill(Path(), train=then)
        yield "mtft-transfer-1"

    monkeypatch.setattr("launcher.transfer_pod.running", runs)
    assert push("train.jsonl") == exit_codes.BAD_INPUT
    out, err = capsys.readouterr()
    assert f"train.jsonl: {words}" in err and not out
    assert not (pod.root / "data" / "train.jsonl").exists()


@pytest.mark.parametrize("what", ["news", "news/a.jsonl", "news/deep"])
def test_what_cannot_be_read_is_told_before_anything_is_sent(
    what: str, pod: TinyExec, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(Path(), train="one\n")
    assert push("train.jsonl") == exit_codes.DONE  # loads what nobody may not even read
    pod.commands.clear()
    with TemporaryDirectory(dir="/var/tmp") as above, as_nobody(Path(above)):
        fill(Path(above, "news", "deep"), b="2\n")
        fill(Path(above, "news"), a="1\n")
        Path(above, what).chmod(0)
        try:
            assert push(f"{above}/news") == exit_codes.BAD_INPUT
            assert f"{above}/{what}: cannot be read: Permission denied" in capsys.readouterr().err
        finally:
            Path(above, what).chmod(0o755)
    assert not pod.commands


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Take root's rights away for a while; the folder is another user's then."""
    if os.geteuid() != 0:
        yield
        return
    os.chown(folder, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_takes_no_file_s_name_nor_a_file_a_folder_s(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    fill(pod.root / "data" / "old.jsonl", a="1\n")
    (pod.root / "data" / "news").write_text("a file")
    fill(Path("news"), a="1\n")
    fill(Path(), old="1\n")
    assert push("news", "--replace") == push("old.jsonl") == exit_codes.BAD_INPUT
    err = capsys.readouterr().err
    assert "data/news is a file on the volume and a folder here; nothing was sent" in err
    assert "data/old.jsonl is a folder on the volume and a file here" in err and err.count("--to NAME") == 2
    assert push("news", "--to", "new") == exit_codes.DONE


def test_a_hidden_file_keeps_its_name_as_any_other(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".train.jsonl").write_text("new\n")
    (pod.root / "data" / ".train.jsonl").write_text("the old one\n")
    assert push(".train.jsonl") == exit_codes.BAD_INPUT
    assert ".train.jsonl: there 12 bytes" in capsys.readouterr().err
    assert push(".train.jsonl", "--replace") == exit_codes.DONE


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", ""])
def test_names_that_lead_elsewhere_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        push("train.jsonl", "--to", name)
    assert "is no name below data/" in capsys.readouterr().err


ROW = json.dumps({"source": "The sea.", "target": "La mer.", "source_lang": "en"}) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.jsonl", b"", "there is no row in this file"),
        ("train.txt", b"\n \n", "there is no row in this file"),
        ("train.jsonl.gz", gzip.compress(b"", mtime=0), "there is no row in this file"),
        ("train.jsonl.gz", gzip.compress(ROW.encode() * 5000, mtime=0)[:-9], "the gzip data end early"),
        ("train.jsonl.gz", gzip.compress(ROW.encode(), mtime=0)[:-8] + b"12345678", "the gzip data are damaged"),
        ("train.jsonl.zst", zstandard.compress(ROW.encode() * 5000)[:-1], "the zstd data end early"),
    ],
    ids=["empty", "blank", "empty gzip", "cut gzip", "damaged gzip", "cut zstd"],
)
def test_data_no_trainer_could_read_are_not_sent(
    name: str, content: bytes, words: str, pod: TinyExec, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (Path(name), Path("folder", name)):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert push(name) == exit_codes.BAD_INPUT
    err = capsys.readouterr().err
    assert f"{name}: {words}" in err and "nothing was sent" in err
    if not name.endswith(".txt"):
        assert push("folder") == exit_codes.BAD_INPUT
        assert f"folder/{name}: {words}" in capsys.readouterr().err
    assert not pod.commands and not list((pod.root / "data").iterdir())


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("train.jsonl", b"hello\n", "line 1 is no row: bad_json"),
        ("train.jsonl", ROW.encode() * 2000 + b"caf\xe9\n", "line 2001 is not UTF-8"),
        ("train.txt", ROW.encode(), "train.txt is none of *.jsonl, *.jsonl.gz, *.jsonl.zst"),
        ("train.jsonl", ROW.encode(), None),
        ("train.jsonl.gz", gzip.compress(ROW.encode() * 2000, mtime=0), None),
    ],
)
def test_what_trainers_will_say_of_data_is_told_when_they_are_pushed(
    name: str, content: bytes, words: str | None, pod: TinyExec, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_bytes(content)
    assert push(name) == exit_codes.DONE
    err = capsys.readouterr().err
    assert ("note: " in err) == (words is not None) and (words or "") in err
    assert ("`mtft-launch data check " in err) == ("line" in (words or ""))
    assert (pod.root / "data" / name).read_bytes() == content


def test_a_folder_without_data_and_one_with_many_bad_files(pod: TinyExec, capsys: pytest.CaptureFixture[str]) -> None:
    Path("model").mkdir()
    Path("model", "weights.bin").write_bytes(b"\xff")
    assert push("model") == exit_codes.DONE
    assert "model has no *.jsonl, *.jsonl.gz, *.jsonl.zst of its own" in capsys.readouterr().err
    fill(Path("bad"), **{f"f{index}": "1\n" for index in range(7)})
    assert push("bad") == exit_codes.DONE
    err = capsys.readouterr().err
    assert (
        err.count("line 1 is no row") == 5 and "note: 2 more files have bad rows; `mtft-launch data check bad`" in err
    )
