"""A person's mistake: one clear message, exit code 2, no traceback, nothing that looks like a result.

Most launchers here, and the trainers they start, are forks of a process that has loaded everything: a mistake is told
within moments of a start that takes seconds. ``test_hub.py`` has some that are started as people do.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import forks
from tests.e2e.conftest import Launcher

MODEL = "opus_mt_en_fr"
Prepare = Callable[[Path, Path], list[str]]


def wrong_family(folder: Path, base: Path) -> list[str]:
    return ["--model", "mbart50_mmt_fr"]


def no_weights(folder: Path, base: Path) -> list[str]:
    shutil.copytree(base, folder / "hollow", ignore=shutil.ignore_patterns("*.safetensors"))
    return ["--model-path", str(folder / "hollow")]


def pickled_weights(folder: Path, base: Path) -> list[str]:
    shutil.copytree(base, folder / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "pickled" / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    return ["--model-path", str(folder / "pickled")]


def damaged_weights(folder: Path, base: Path) -> list[str]:
    shutil.copytree(base, folder / "damaged")
    weights = folder / "damaged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    return ["--model-path", str(folder / "damaged")]


def no_checkpoint(folder: Path, base: Path) -> list[str]:
    (folder / "empty").mkdir()
    return ["--model-path", str(folder / "empty")]


def other_direction(folder: Path, base: Path) -> list[str]:
    return ["--data", write(folder, [("Le stock croît.", "The stock grows.", "fr")] * 40)]


def one_document(folder: Path, base: Path) -> list[str]:
    return ["--data", write(folder, [(f"Stock {n}.", f"Le stock {n}.", "en") for n in range(40)])]


def unknown_script(folder: Path, base: Path) -> list[str]:
    rows = [("資源量は回復した" * 3 + str(n), "Le stock s'est rétabli.", "en") for n in range(60)]
    return ["--data", write(folder, rows, documents=True)]


def write(folder: Path, rows: list[tuple[str, str, str]], *, documents: bool = False) -> str:
    path = folder / "rows.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as out:
        for number, (source, target, language) in enumerate(rows):
            row = {"source": source, "target": target, "source_lang": language}
            out.write(json.dumps({**row, "pub_number": str(number % 10) if documents else "D"}) + "\n")
    return str(path)


CASES: dict[str, tuple[Prepare, str]] = {
    "wrong key": (lambda *_: ["--model", "opus_mt_en_de"], "did you mean opus_mt_en_fr?"),
    "missing file": (lambda *_: ["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file or folder"),
    "other direction only": (other_direction, "40 have another source_lang than en (what opus_mt_en_fr translates)"),
    "nothing to hold out": (one_document, "the training data hold 1 document(s) (pub_number): none can be held out"),
    "checkpoint of another family": (wrong_family, "is a marian checkpoint; model mbart50_mmt_fr needs mbart"),
    "checkpoint of the other direction": (
        lambda *_: ["--model", "opus_mt_fr_en"],
        "translates en to fr; model opus_mt_fr_en is for fr to en",
    ),
    "LoRA target no layer has": (
        lambda *_: ["--set", "lora.target_modules=[nope]"],
        "names nope, which no encoder or decoder layer has",
    ),
    "checkpoint without weights": (no_weights, "hollow holds no weights: no *.safetensors"),
    "checkpoint as a pickle": (pickled_weights, "only as a pickle (pytorch_model.bin), which is never read"),
    "damaged weights": (damaged_weights, "the base model of opus_mt_en_fr could not be read from"),
    "no checkpoint": (no_checkpoint, "the base model of opus_mt_en_fr could not be read from"),
    "tokenizer of another script": (
        unknown_script,
        "source pieces (26.3%) to the unknown token; data.max_unknown_fraction allows 5.0%",
    ),
    "precision this machine lacks": (
        lambda *_: ["--set", "train.precision=fp16"],
        "is 'fp16', but this process computes on a CPU",
    ),
    "device this machine lacks": (
        lambda *_: ["--set", "train.device=cuda"],
        "is 'cuda', but this machine shows no CUDA device",
    ),
    "unwritable output": (lambda *_: ["--output", "/proc/nowhere"], "choose another folder with --output DIR"),
}


def start(launcher: Launcher, *arguments: str) -> tuple[int, str]:
    """Return exit code and all that is said."""
    forks.preload("tests.e2e.loaded")
    command = launcher.command(*arguments)
    with forks.Fork(command, launcher.environment(), launcher.folder, joined=True) as process:
        said, code = process.communicate(timeout=280)
        return code, said


@pytest.mark.parametrize("case", CASES)
def test_is_refused_in_one_message(
    launcher: Launcher, standins: Callable[[str], Path], training_file: Path, tmp_path: Path, case: str
) -> None:
    prepare, expected = CASES[case]
    base = standins("marian")
    arguments = launcher.local(MODEL, base, training_file, "--max-steps", "2")
    arguments += prepare(tmp_path, base)
    assert expected not in " ".join(arguments)
    code, said = start(launcher, *arguments)
    assert code == 2, said
    assert expected in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("finished.json"))
    assert not list(tmp_path.rglob("lora"))


def test_a_base_below_the_floor_is_refused_at_every_start(
    launcher: Launcher, standins: Callable[[str], Path], training_file: Path
) -> None:
    arguments = launcher.local(MODEL, standins("marian"), training_file, "--set", "eval.min_base_bleu=90")
    for _ in range(2):
        code, said = start(launcher, *arguments, "--max-steps", "2")
        assert code == 2, said
        assert "below eval.min_base_bleu = 90" in said


def test_a_full_disk_is_refused_before_anything_is_written_to_it(
    launcher: Launcher, standins: Callable[[str], Path], training_file: Path, small_volume: Callable[[int], Path]
) -> None:
    volume = small_volume(2)
    done = launcher(*launcher.local(MODEL, standins("marian"), training_file, "--output", str(volume)))
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "free space below storage.root" in said
    assert "Traceback" not in said
    assert list((volume / "cache" / "data").iterdir()) == []
