"""``mtft-launch run`` and the local backend: names, documents, exit codes, signals; nothing is trained here."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.backends import local
from launcher.cli import main
from mtft import exit_codes
from mtft.settings import models_of, resolve
from tests.unit.runs_on_disk import make_run
from trainer.outcome import Outcome

ROW = '{"source": "Cod.", "target": "Morue.", "source_lang": "en"}\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text(ROW)
    return tmp_path


def dry_run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    line = ["--model", "opus_mt_en_fr", "--data", "train.jsonl", "--backend", "local", "--dry-run", "-o", "json"]
    assert main([*line, *arguments]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    shown["job"] = shown["command"][shown["command"].index("--job") + 1]
    return shown


def test_what_a_terminal_would_obey_is_shown_as_escapes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.yaml").write_text('data: {train: "a\\0\\e[2Jb.jsonl"}\n')
    assert main(["--model", "opus_mt_en_fr", "--config", "x.yaml", "--backend", "local"]) == exit_codes.BAD_INPUT
    told = capsys.readouterr().err
    assert (
        r'data.train: has a control character in it, such as NUL or a line break; got "a\u0000\u001b[2Jb.jsonl"' in told
        and told.endswith("\n")
    )
    assert r"a\x00b" in Outcome(exit_codes.BAD_INPUT, "a\0b\nc").line()
    assert len(Outcome(exit_codes.BAD_INPUT, "a\0b\nc").line().splitlines()) == 2


def test_a_dry_run_shows_the_command_and_writes_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = dry_run(capsys)
    job = shown["job"]
    assert shown["command"] == [
        *(sys.executable, "-m", "trainer", "--config", f"{here}/outputs/opus_mt_en_fr/jobs/{job}.yaml"),
        *("--model", "opus_mt_en_fr", "--job", job, "--root", str(here), "--attended"),
    ]
    assert shown["document"]["data"]["train"] == f"{here}/train.jsonl"
    assert [path.name for path in here.iterdir()] == ["train.jsonl"]


def test_the_job_name_follows_what_is_learned_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = dry_run(capsys)["job"]
    assert first.startswith("opus-mt-en-fr-")
    assert dry_run(capsys, "--processes", "2", "--output", "elsewhere")["job"] == first
    assert dry_run(capsys, "--set", "train.seed=7")["job"] != first
    assert dry_run(capsys, "--rerun")["job"] != dry_run(capsys, "--rerun")["job"] != first
    assert dry_run(capsys, "--job", "mine")["job"] == "mine"
    (here / "train.jsonl").write_text(ROW * 2)
    assert dry_run(capsys)["job"] != first


def test_options_reach_the_document(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "base").mkdir()
    document = dry_run(capsys, "--processes", "3", "--model-path", "base")["document"]
    assert document["cluster"]["processes_per_node"] == 3
    assert document["model"] == {"key": "opus_mt_en_fr", "path": f"{here}/base"}


@pytest.mark.parametrize("switched", ["opus_mt_en_fr", "m2m100_418m"])
def test_a_model_of_a_batch_can_be_switched_off_by_an_option(
    switched: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mtft.yaml").write_text("models: {opus_mt_en_fr: {train: {epochs: 2}}, m2m100_418m: }\n")
    option = ["--set", f"models.{switched}.enabled=false", "--data", "train.jsonl"]
    assert main(["run", "--backend", "local", "--dry-run", "-o", "json", *option]) == 0
    shown = json.loads(capsys.readouterr().out)
    (left,) = {"opus_mt_en_fr", "m2m100_418m"} - {switched}
    assert shown["command"][shown["command"].index("--model") + 1] == left
    assert models_of(shown["document"]) == [left]
    cluster = ["--set", "cluster.image=example.org/mtft:1", "--set", "data.train=/mnt/mtft/x.jsonl"]
    assert main(["render", *cluster, *option[:2]]) == 0
    jobs = [each for each in yaml.safe_load_all(capsys.readouterr().out) if each["kind"] == "PyTorchJob"]
    assert [each["metadata"]["labels"]["mtft/model"] for each in jobs] == [left]


@pytest.mark.parametrize(
    ("models", "arguments"),
    [
        ("{opus_mt_en_fr: {model: {path: base}}, m2m100_418m: }", []),
        ("{opus_mt_en_fr: , m2m100_418m: }", ["--model-path", "base"]),
        ("{m2m100_418m: {model: {path: other}}}", ["--set", "model.path=base"]),
    ],
)
def test_a_base_folder_goes_with_a_file_of_several_models(
    models: str, arguments: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "base").mkdir()
    alone = dry_run(capsys, "--model-path", "base")
    Path("mtft.yaml").write_text(f"models: {models}\n")
    shown = dry_run(capsys, *arguments)
    assert resolve(shown["document"], model="opus_mt_en_fr").config.model.path == f"{here}/base"
    assert shown["job"] == alone["job"], "the same job as from a file of its own"


def test_the_home_folder_is_spelled_out(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = here / "home"
    home.mkdir()
    (home / "rows.jsonl").write_text(ROW)
    monkeypatch.setenv("HOME", str(home))
    Path("mtft.yaml").write_text("storage: {root: ~/runs}\n")
    for arguments in (["--config", "~/../mtft.yaml"], ["--output=~/runs"]):
        shown = dry_run(capsys, "--data", "~/rows.jsonl", *arguments)
        assert shown["command"][shown["command"].index("--root") + 1] == f"{home}/runs"
        assert shown["command"][shown["command"].index("--config") + 1].startswith(f"{home}/runs/outputs/")
        assert shown["document"]["data"]["train"] == f"{home}/rows.jsonl"


def test_the_only_enabled_model_of_a_batch_is_tuned(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("batch.yaml").write_text("models: {opus_mt_en_fr: {enabled: false}, m2m100_418m: {lora: {r: 8}}}\n")
    line = ["run", "--config", "batch.yaml", "--data", "train.jsonl", "--backend", "local", "--dry-run", "-o", "json"]
    assert main(line) == 0
    command = json.loads(capsys.readouterr().out)["command"]
    assert command[command.index("--model") + 1] == "m2m100_418m"


def test_options_for_a_cluster_are_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["run", "--model", "opus_mt_en_fr", "--data", "train.jsonl", "--backend", "local", "--dry-run"]
    assert main([*line, "--wait", "--timeout", "2h", "-n", "mine"]) == 0
    assert "note: -n, --wait, --timeout are for a cluster and do nothing" in capsys.readouterr().err
    assert main(line) == 0
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "local", "--data", "caf\udce9.jsonl"], "is not UTF-8 text"),
        (["--backend", "local", "--data", "train.jsonl", "--output", "~nobody-here/x"], "no user 'nobody-here'"),
        (["--data", "train.jsonl"], "is a path of this machine, but the pods see only /mnt/mtft"),
        (["--backend", "local"], "data"),
        (["--backend", "local", "--data", "gone.jsonl"], "gone.jsonl: no such file"),
        (["--backend", "local", "--data", "train.jsonl", "--output", "train.jsonl"], "choose another folder"),
        (["--backend", "local", "--data", "train.jsonl", "--set", "cluster.nodes=2"], "add --set cluster.nodes=1"),
        (
            ["--backend", "local", "--data", "train.jsonl", "--set", "train.epochs"],
            "train.epochs: needs a value; allowed",
        ),
    ],
)
def test_bad_usage_is_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", "opus_mt_en_fr", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_job_keeps_its_configuration_but_not_its_placement(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def start(command: list[str]) -> int:
        started.append(command)
        return 0

    monkeypatch.setattr(local, "start", start)
    line = ["run", "--backend", "local", "--model", "opus_mt_en_fr", "--data", "train.jsonl", "--job", "mine"]
    path = here / "outputs/opus_mt_en_fr/jobs/mine.yaml"
    assert main(line) == 0
    first = path.read_text()
    assert main([*line, "--epochs", "9"]) == 2
    error = capsys.readouterr().err
    assert f"{path}: " in error
    assert "(train.epochs was not given, is 9); choose another --job name" in error
    assert path.read_text() == first
    assert main([*line, "--processes", "2"]) == 0
    assert path.read_text() != first
    assert len(started) == 2


@pytest.mark.parametrize(("code", "told"), [(1, True), (130, True), (2, True), (0, False)])
def test_a_rerun_that_did_not_end_is_gone_on_with_by_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, told: bool
) -> None:
    monkeypatch.setattr("launcher.backends.local.start", lambda command: code)
    assert main(["run", "--backend", "local", "--model", "opus_mt_en_fr", "--data", "train.jsonl", "--rerun"]) == code
    (document,) = (here / "outputs" / "opus_mt_en_fr" / "jobs").glob("*.yaml")
    assert (f"the same command with --job {document.stem} in place of --rerun" in capsys.readouterr().err) is told


class TestTranslate:
    LINE = ("translate", "--model", "opus_mt_en_fr", "notes.txt")

    @pytest.fixture(autouse=True)
    def finished(self, here: Path) -> None:
        make_run(here, 1)

    @pytest.mark.parametrize(("trainer", "launcher"), [(0, 0), (2, 2), (3, 1), (143, 1), (-9, 1)])
    def test_the_program_it_starts(self, trainer: int, launcher: int, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(command: list[str], *, check: bool, env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
            assert command[command.index("--beams") + 1] == "64"
            assert env["PYTHONSAFEPATH"] == "1"
            return subprocess.CompletedProcess(command, trainer)

        monkeypatch.setattr(subprocess, "run", run)
        assert main([*self.LINE, "--beams", "64"]) == launcher

    def test_what_it_tells_a_program(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        done = subprocess.CompletedProcess[bytes]([], 0)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
        assert main([*self.LINE, "-o", "json"]) == 2
        assert "name it with --to" in capsys.readouterr().err
        assert main([*self.LINE, "-o", "json", "--to", "out.txt"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["model"], told["base"], told["to"]) == ("opus_mt_en_fr", False, "out.txt")
        done.returncode = 2
        assert main([*self.LINE, "-o", "json", "--to", "out.txt"]) == 2
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("beams", ["0", "65", "-1", "two"])
    def test_a_beam_width_out_of_range(self, beams: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            main([*self.LINE, f"--beams={beams}"])
        assert stopped.value.code == 2
        assert "a whole number from 1 to 64" in capsys.readouterr().err

    def test_without_torch(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert main([*self.LINE]) == 2
        assert "pip install 'mtft[train]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trainer", "interrupted", "launcher"),
    [
        (0, False, 0),
        (0, True, 0),
        (1, False, 1),
        (2, False, 2),
        (3, False, 1),
        (143, False, 1),
        (143, True, 130),
        (-9, False, 1),
    ],
)
def test_exit_code(trainer: int, interrupted: bool, launcher: int) -> None:
    assert local.exit_code(trainer, interrupted=interrupted) == launcher


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_once_and_is_130(number: signal.Signals) -> None:
    trainer = (
        "import signal, sys\n"
        "mask = {signal.SIGINT, signal.SIGTERM}\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, mask)\n"
        "print('ready', flush=True)\n"
        "print(signal.Signals(signal.sigwait(mask)).name, signal.sigpending() & mask, flush=True)\n"
        "sys.exit(143)\n"
    )
    program = (
        f"import sys; from launcher.backends.local import start; sys.exit(start([sys.executable, '-c', {trainer!r}]))"
    )
    # A shell without job control ignores SIGINT for what it starts in the background, and so would all below it.
    heeding = f"import signal; signal.signal({int(number)}, signal.SIG_DFL); {program}"
    with subprocess.Popen([sys.executable, "-c", heeding], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "ready\n"
        launcher.send_signal(number)
        assert launcher.stdout.read() == f"{number.name} set()\n"
        assert launcher.wait(timeout=60) == 130
