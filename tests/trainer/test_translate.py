"""``python -m trainer.translate``: what it reads, what it writes, and what it says of a user's mistakes."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard

from demo.corpus import Pair
from mtft import files
from mtft.config import Config
from mtft.provenance import base_identity
from mtft.runs import RunPaths
from mtft.settings import load_document, resolve, to_yaml
from mtft.store import FILES
from tests.trainer.helpers import build
from trainer import translate, translating
from trainer.generation import Decoding, Hypothesis, Segment

KEY = "opus_mt_en_fr"
LENGTH = 16


@pytest.fixture(scope="module")
def finished(
    standins: Callable[[str], Path], short_text: list[Pair], tmp_path_factory: pytest.TempPathFactory
) -> RunPaths:
    """Give a finished run with an untrained adapter, made with a precision that no CPU has."""
    paths = RunPaths.at(tmp_path_factory.mktemp("root"), KEY, "one")
    setup = build(KEY, standins("marian"), short_text[:2])
    setup.model.save_pretrained(str(paths.lora))  # type: ignore[operator]
    train = {"precision": "fp16", "device": "cuda", "max_source_length": LENGTH}
    values = setup.config.model_dump(mode="json")
    config = Config.model_validate(values | {"train": values["train"] | train, "eval": {"beams": 1}})
    paths.config.write_text(to_yaml(config), encoding="utf-8")
    paths.finished.write_text('{"deliverable": "lora"}', encoding="utf-8")
    return paths


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> list[Decoding]:
    """Let every translation be its source; give what the search was asked for."""
    asked: list[Decoding] = []

    def answer(model: Any, encoder: Any, segments: list[Segment], decoding: Decoding, world: Any) -> list[Hypothesis]:
        asked.append(decoding)
        return [Hypothesis(segment.source, False) for segment in segments]

    monkeypatch.setattr(translating, "translate", answer)
    return asked


def refused(paths: RunPaths, *arguments: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        translate.main([*map(str, arguments), "--run-dir", str(paths.folder)])
    assert stopped.value.code == 2


def test_a_real_search_in_fp32_on_this_machine(
    finished: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "in.txt").write_text("The cod.\n\nThe sea.\n", encoding="utf-8")
    translate.main([f"{tmp_path}/in.txt", "--output", f"{tmp_path}/out.txt", "--run-dir", str(finished.folder)])
    lines = (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n")
    assert (len(lines), lines[1], lines[3]) == (4, "", "")


@pytest.mark.parametrize("name", ["in.txt", "in.txt.gz"])
def test_lines(finished: RunPaths, tmp_path: Path, echo: list[Decoding], name: str) -> None:
    content = "\ufeffThe cod.\r\nA\u2028B\n\nlast".encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    translate.main([f"{tmp_path}/{name}", "--output", f"{tmp_path}/out", "--run-dir", str(finished.folder)])
    assert (tmp_path / "out").read_bytes() == "The cod.\nA\u2028B\n\nlast\n".encode()
    assert echo[0].beams == 1
    assert torch.cuda.is_available() or echo[0].dtype == torch.float32


def test_gzip_jsonl_and_the_count_of_cut_sentences(
    finished: RunPaths, tmp_path: Path, echo: list[Decoding], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.jsonl.gz"
    rows = [{"source": text, "id": number} for number, text in enumerate(["The cod.", "cod " * 50, "sea " * 50])]
    path.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    translate.main([str(path), "--run-dir", str(finished.folder)])
    printed = capsys.readouterr()
    assert [json.loads(line)["id"] for line in printed.out.splitlines()] == [0, 1, 2]
    assert f"2 of 3 sentences were longer than {LENGTH} tokens and were cut" in printed.err


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress, bytes])
def test_compression_is_known_by_the_first_bytes(
    finished: RunPaths, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "in").write_bytes(pack("été\r\n\nb".encode()))
    translate.main([f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--run-dir", str(finished.folder)])
    assert (tmp_path / "out").read_text(encoding="utf-8") == "été\n\nb\n"


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("name", "unpack"),
    [
        ("out.gz", gzip.decompress),
        ("out.zst", lambda packed: zstandard.ZstdDecompressor().decompressobj().decompress(packed)),
        ("out", bytes),
    ],
)
def test_output_is_compressed_as_its_name_says(
    finished: RunPaths, tmp_path: Path, name: str, unpack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "in").write_text("été\nb\n", encoding="utf-8")
    translate.main([f"{tmp_path}/in", "--output", f"{tmp_path}/{name}", "--run-dir", str(finished.folder)])
    assert unpack((tmp_path / name).read_bytes()) == "été\nb\n".encode()


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"source": "a"}\n{"source": "\\ud800"}', "a.jsonl:2: U+D800 is half a character"),
        ("a.jsonl", b'{"source": "a", "note": "\\udfff"}', "a.jsonl:1: U+DFFF is half a character"),
        ("a.jsonl", b'{"source": "a", "source_lang": ["en"]}', "a.jsonl:1: source is str"),
        ("a.txt", b"a\n\xff", "a.txt:2: not UTF-8 text"),
        ("a.txt.gz", gzip.compress(b"a\n" * 9, mtime=0)[:-9], "cannot be read"),
        ("folder", None, "folder: "),
        ("gone.txt", None, "gone.txt: cannot be read: No such file or directory"),
    ],
)
def test_unreadable_input(
    finished: RunPaths,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refused(finished, tmp_path / name, "--output", tmp_path / "out")
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_input_without_permission(
    finished: RunPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mtft.sources._open", deny)
    refused(finished, tmp_path / "in.gz")
    assert "in.gz: cannot be read: Permission denied" in capsys.readouterr().err


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize("output", ["folder", "in.txt/out.txt"])
def test_unwritable_output(finished: RunPaths, tmp_path: Path, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.txt").write_text("a\n")
    refused(finished, tmp_path / "in.txt", "--output", tmp_path / output)
    assert f"{output}: cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("echo")
def test_output_in_place_of_a_device(finished: RunPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "in.txt").write_text("a\n")
    refused(finished, tmp_path / "in.txt", "--output", tmp_path / "pipe")
    assert "pipe: is no regular file, and would be replaced; - is standard output" in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("changed", [True, False])
def test_the_adapter_goes_on_the_base_it_was_trained_on(
    finished: RunPaths, tmp_path: Path, changed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config = resolve(load_document(finished.config)).config
    base = tmp_path / "base"
    shutil.copytree(str(config.model.path), base)
    moved = RunPaths.at(tmp_path / "root", KEY, "one")
    shutil.copytree(finished.folder, moved.folder)
    model = config.model.model_copy(update={"path": str(base)})
    moved.config.write_text(to_yaml(config.model_copy(update={"model": model})), encoding="utf-8")
    files.write_json(moved.provenance, {"base": base_identity("", str(base), None)})
    (tmp_path / "in.txt").write_text("The cod.\n", encoding="utf-8")
    if changed:
        (base / "generation_config.json").write_text("{}", encoding="utf-8")
        refused(moved, tmp_path / "in.txt", "--output", tmp_path / "out.txt")
        assert "is not the base that run one was trained on" in capsys.readouterr().err
    else:
        translate.main([f"{tmp_path}/in.txt", "--output", f"{tmp_path}/out.txt", "--run-dir", str(moved.folder)])
    assert (tmp_path / "out.txt").exists() is not changed
    if changed:
        return
    # Brought to a machine where the base lies elsewhere.
    base.rename(tmp_path / "here")
    refused(moved, tmp_path / "in.txt", "--output", tmp_path / "again.txt")
    assert "--model-path DIR" in capsys.readouterr().err
    known = ["--run-dir", str(moved.folder), "--model-path", str(tmp_path / "here")]
    translate.main([f"{tmp_path}/in.txt", "--output", f"{tmp_path}/again.txt", *known])
    assert (tmp_path / "again.txt").read_text() == (tmp_path / "out.txt").read_text()


def test_only_safetensors_are_read(finished: RunPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = finished.lora / "adapter_model.safetensors"
    (tmp_path / "in.txt").write_text("a\n")
    aside = weights.rename(finished.lora / "adapter_model.bin")
    other = finished.lora / "other.safetensors"
    try:
        refused(finished, tmp_path / "in.txt")
        assert "holds no safetensors" in capsys.readouterr().err
        other.touch()
        refused(finished, tmp_path / "in.txt")
    finally:
        other.unlink()
        aside.rename(weights)
    assert "adapter_model.safetensors is missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_adapter_is_one_message(
    finished: RunPaths, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished.lora / name
    whole = path.read_bytes()
    (tmp_path / "in.txt").write_text("a\n")
    path.write_bytes(whole[: len(whole) // 3])
    try:
        refused(finished, tmp_path / "in.txt")
    finally:
        path.write_bytes(whole)
    assert "the adapter cannot be loaded" in capsys.readouterr().err


def test_an_adapter_with_changed_bytes_is_not_used(
    finished: RunPaths, tmp_path: Path, echo: list[Decoding], capsys: pytest.CaptureFixture[str]
) -> None:
    copy = RunPaths.at(tmp_path, KEY, "two")
    shutil.copytree(finished.folder, copy.folder)
    files.write_json(copy.finished, {"deliverable": "lora", FILES: files.listing(copy.lora)})
    (tmp_path / "in.txt").write_text("a\n")
    translate.main([f"{tmp_path}/in.txt", "--run-dir", str(copy.folder)])
    assert capsys.readouterr().out == "a\n"
    weights = copy.lora / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(copy, tmp_path / "in.txt")
    assert f"{weights}: has not the SHA-256 it was written with; the run is damaged" in capsys.readouterr().err
    translate.main([f"{tmp_path}/in.txt", "--run-dir", str(copy.folder), "--base"])
    assert capsys.readouterr().out == "a\n"
