"""One command, every family: the run directory and the deliverable."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mtft.files import damage
from tests.e2e.conftest import Finished
from tests.e2e.readme import run_without_mtft

ONE_OF_EACH = ("m2m100_418m", "mbart50_mmt_en", "opus_mt_en_fr")

FILES = (
    *("config.yaml", "provenance.json", "console_output.txt", "metrics.jsonl", "rejected.jsonl", "report.html"),
    *("config.json", "tokenizer_config.json", "train_results.json", "eval_results.json", "all_results.json"),
    *("trainer_state.json", "finished.json", "lora/adapter_model.safetensors", "lora/adapter_config.json"),
    *("lora/generation_config.json", "lora/tokenizer_config.json", "checkpoints/step-8/manifest.json"),
)


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_run_directory_is_complete(finished: Callable[[str], Finished], model: str) -> None:
    run = finished(model)
    assert [name for name in FILES if not (run.folder / name).is_file()] == []
    assert list((run.folder / "logs").glob("events.out.tfevents*"))
    assert not [path for path in run.folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".tmp")]
    ending = json.loads((run.folder / "finished.json").read_text())
    assert ending["status"] == "finished"
    assert ending["steps"] == 8
    assert "adapter_model.safetensors" in ending["deliverable_files"]
    assert damage(run.folder / "lora", ending["deliverable_files"], hashed=True) is None
    directions = {"m2m100_418m": {"en-fr", "fr-en"}, "mbart50_mmt_en": {"fr-en"}, "opus_mt_en_fr": {"en-fr"}}[model]
    assert set(ending["scores"]["tuned"]) == set(ending["scores"]["base"]) == directions
    for direction in directions:
        assert "version:" in ending["scores"]["tuned"][direction]["signatures"]["chrf"]
        rows = [json.loads(line) for line in (run.folder / f"eval/test.{direction}.jsonl").read_text().splitlines()]
        assert len(rows) == ending["scores"]["tuned"][direction]["n"]
        assert {"source", "reference", "base", "tuned", "base_chrf", "tuned_chrf"} <= set(rows[0])


def test_files_can_be_read_by_the_group(finished: Callable[[str], Finished]) -> None:
    run = finished("opus_mt_en_fr")
    closed = [path for path in run.folder.rglob("*") if path.is_file() and not path.stat().st_mode & 0o040]
    assert closed == []


def test_progress_lines_tell_what_a_person_asks(finished: Callable[[str], Finished]) -> None:
    lines = [json.loads(line) for line in finished("opus_mt_en_fr").output.splitlines() if line.startswith("{")]
    steps = [line for line in lines if line["type"] == "train"]
    assert [line["step"] for line in steps] == [4, 8]
    asked = {"total", "percent", "eta_s", "loss", "lr", "tokens_per_second", "real_token_share", "peak_memory_gib"}
    assert asked <= set(steps[0])


def test_results_speak_for_the_whole_run(finished: Callable[[str], Finished]) -> None:
    folder = finished("opus_mt_en_fr").folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    first, second = (line for line in lines if line["type"] == "train")
    results = json.loads((folder / "train_results.json").read_text())
    tokens = first["target_tokens"] + second["target_tokens"]
    loss = (first["loss"] * first["target_tokens"] + second["loss"] * second["target_tokens"]) / tokens
    assert results["loss"] == pytest.approx(loss, abs=2e-5) and results["last_loss"] == second["loss"]
    shares = first["real_token_share"], second["real_token_share"]
    assert min(shares) <= results["real_token_share"] <= max(shares)
    assert json.loads((folder / "provenance.json").read_text())["precision"] == "fp32"


def test_a_finished_job_is_not_trained_again(finished: Callable[[str], Finished]) -> None:
    run = finished("opus_mt_en_fr")
    before = (run.folder / "finished.json").stat().st_mtime_ns
    again = run.launcher(*run.arguments)
    verdict = json.loads((run.folder / "finished.json").read_text())["gate"]["verdict"]
    assert again.returncode == (0 if verdict == "promoted" else 4)
    assert "finished already" in again.stdout
    assert run.launcher.runs(run.model) == [run.folder]
    assert (run.folder / "finished.json").stat().st_mtime_ns == before


def test_translate_keeps_order_and_empty_lines(finished: Callable[[str], Finished]) -> None:
    run = finished("opus_mt_en_fr")
    text = "The cod stock has recovered.\n\nThe survey covers the Gulf.\nCod.\n"
    done = run.launcher("translate", "--model", run.model, text=text)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert len(lines) == 5
    assert lines[1] == ""
    alone = run.launcher("translate", "--model", run.model, text="The survey covers the Gulf.\n")
    assert alone.stdout.split("\n")[0] == lines[2]


def test_translate_takes_a_run_that_was_copied_and_a_reader_that_leaves(
    finished: Callable[[str], Finished], tmp_path: Path
) -> None:
    run = finished("opus_mt_en_fr")
    shutil.copytree(run.folder, tmp_path / "copy")
    command = shlex.join(run.launcher.command("translate", "--model", run.model, "--run", str(tmp_path / "copy")))
    done = subprocess.run(
        ["bash", "-c", f"(yes 'The cod.' | head -3000; sleep 1) | {command} | head -1"],
        env=run.launcher.environment(),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_translate_reads_rows_of_both_directions(finished: Callable[[str], Finished], tmp_path: Path) -> None:
    run = finished("m2m100_418m")
    rows = [{"source": "Cod.", "source_lang": "en", "id": 7}, {"source": "Morue.", "source_lang": "fr", "id": 8}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = tmp_path / "out.jsonl"
    done = run.launcher("translate", "--model", run.model, str(tmp_path / "in.jsonl"), "--to", str(target))
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["id"] for row in found] == [7, 8]
    assert all("translation" in row for row in found)


FIRST_TOKEN = """
extra = {'forced_bos_token_id': french} if 'french' in dir() else {}
output = model.generate(**batch, generation_config=settings, **extra)
print(tokenizer.convert_ids_to_tokens(int(output[0, 1])))
"""


# OPUS has no language token; test_demo.py loads its adapter.
@pytest.mark.parametrize(("model", "token"), [("m2m100_418m", "__fr__"), ("mbart50_mmt_en", "en_XX")])
def test_readme_loads_the_adapter_without_mtft(
    finished: Callable[[str], Finished], model: str, token: str, tmp_path: Path
) -> None:
    run = finished(model)
    two_way = model == "m2m100_418m"
    printed = run_without_mtft(run.base, run.folder / "lora", tmp_path, two_way=two_way, more=FIRST_TOKEN)
    assert printed[-1] == token
