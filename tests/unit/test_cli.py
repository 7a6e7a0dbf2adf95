"""The launcher's frame: start-up, verbs, errors as messages, and the verbs that need no machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from launcher import cli
from launcher.arguments import add_config_arguments, resolve_arguments
from mtft.errors import InputError
from mtft.models import MODELS
from mtft.settings import load_document, resolve

HEAVY = ("torch", "transformers", "kubernetes", "kubeflow", "pydantic", "yaml", "rich", "numpy")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTFT_DEBUG", raising=False)
    return tmp_path


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a function that makes the verb `models` raise an error."""

    def use(error: BaseException) -> None:
        def run(args: object) -> int:
            raise error

        verb = SimpleNamespace(add_arguments=lambda parser: None, run=run)
        monkeypatch.setattr("importlib.import_module", lambda path: verb)

    return use


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "launcher.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(cli.__file__).parents[1])
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert {"launcher", "mtft"} <= imported
    assert imported.isdisjoint(HEAVY)
    assert all(verb in done.stdout for verb in cli.VERBS)


class TestDispatch:
    def test_unknown_verb(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["validat"]) == 2
        assert "did you mean validate?" in capsys.readouterr().err

    def test_no_arguments_show_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main([]) == 0
        assert "verbs:" in capsys.readouterr().out

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("mtft ")

    def test_options_alone_mean_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        imported = []

        def add_arguments(parser: Any) -> None:
            parser.add_argument("--model")

        def verb(path: str) -> SimpleNamespace:
            imported.append(path)
            return SimpleNamespace(add_arguments=add_arguments, run=lambda args: len(args.model))

        monkeypatch.setattr("importlib.import_module", verb)
        assert cli.main(["--model", "four"]) == 4
        assert imported == ["launcher.verbs.run"]

    def test_wrong_options_exit_2(self) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["models", "--nonsense"])
        assert stopped.value.code == 2


class TestErrors:
    def test_an_error_for_people_is_one_message(self, failing: Any, capsys: pytest.CaptureFixture[str]) -> None:
        failing(InputError("no such model"))
        assert cli.main(["models"]) == 2
        assert capsys.readouterr().err == "mtft-launch: no such model\n"

    def test_the_traceback_on_request(
        self, failing: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MTFT_DEBUG", "1")
        failing(InputError("no such model"))
        assert cli.main(["models"]) == 2
        assert "Traceback" in capsys.readouterr().err

    def test_interrupted(self, failing: Any) -> None:
        failing(KeyboardInterrupt())
        assert cli.main(["models"]) == 130

    def test_a_reader_that_has_seen_enough(self) -> None:
        command = f"{sys.executable} -m launcher validate --model opus_mt_en_fr --data a -o json | head -n 1"
        shell = ["bash", "-c", f"set -o pipefail; {command}"]
        done = subprocess.run(shell, capture_output=True, text=True, check=False, cwd=Path(cli.__file__).parents[1])
        assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


class TestStreams:
    """Standard output that is closed, full, or of another encoding."""

    def shell(self, command: str, encoding: str = "utf-8", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command.replace("mtft-launch", f"{sys.executable} -m launcher")],
            env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[1]), "PYTHONUNBUFFERED": "", **environment},
            capture_output=True,
            encoding=encoding,
            check=False,
        )

    @pytest.fixture
    def flawed(self, empty_folder: Path) -> Path:
        path = empty_folder / "rows.jsonl"
        path.write_text('{"source": "' + "déjà 🐟 " * 100, encoding="utf-8")
        return path

    @pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
    @pytest.mark.parametrize("form", ["table", "json", "yaml"])
    def test_another_encoding(self, encoding: str, form: str, flawed: Path) -> None:
        command = f"mtft-launch data check {flawed} -o {form}"
        done = self.shell(command, encoding=encoding if form == "table" else "utf-8", PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr, "bad_json" in done.stdout) == (2, "", True)
        if form != "table":
            shown = yaml.safe_load(done.stdout) if form == "yaml" else json.loads(done.stdout)
            assert shown["rejected"][0]["excerpt"].startswith('{"source": "déjà 🐟 déjà')

    def test_a_manifest_is_never_written_with_other_letters(self) -> None:
        line = "mtft-launch render --model opus_mt_en_fr --set cluster.image=a/b:1 --set cluster.env.NAME=déjà"
        done = self.shell(f"{line} --data /mnt/mtft/data/été.jsonl -n one", PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        config, job = yaml.safe_load_all(done.stdout)
        assert json.loads(config["data"]["config.json"])["data"]["train"] == "/mnt/mtft/data/été.jsonl"
        (container,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
        assert {"name": "NAME", "value": "déjà"} in container["env"]

    def test_the_c_locale(self, flawed: Path) -> None:
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = self.shell(f"mtft-launch data check {flawed}", **plain)
        assert (done.returncode, done.stderr) == (2, "")
        assert "bad_json" in done.stdout

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_a_full_disk(self, unbuffered: str) -> None:
        done = self.shell("mtft-launch models > /dev/full", PYTHONUNBUFFERED=unbuffered)
        assert (done.returncode, done.stderr) == (
            2,
            "mtft-launch: the output cannot be written: No space left on device\n",
        )

    def test_help_on_a_full_disk(self) -> None:
        done = self.shell("mtft-launch models --help > /dev/full")
        assert (done.returncode, done.stderr) == (
            2,
            "mtft-launch: the output cannot be written: No space left on device\n",
        )

    def test_closed(self) -> None:
        done = self.shell("mtft-launch models >&-")
        assert done.returncode == 2
        assert done.stderr.startswith("mtft-launch: standard output is closed")
        assert done.stderr.count("\n") == 1
        assert self.shell("mtft-launch models pin nonsense 2>&-").stdout == ""


class TestModels:
    def test_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["models"]) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split()[:3] == ["KEY", "BASE", "DIRECTION"]
        assert [row.split()[0] for row in rows] == list(MODELS)

    @pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
    def test_for_programs(self, form: str, read: Any, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["models", "-o", form]) == 0
        rows = read(capsys.readouterr().out)
        assert [row["key"] for row in rows] == list(MODELS)
        assert {row["key"]: row["learning_rate"] for row in rows}["m2m100_418m"] == 2e-4


class TestValidate:
    def test_value_and_origin_of_every_field(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("mtft.yaml").write_text("model: opus_mt_en_fr\ndata: {train: a}\nlora_r: 8\n", encoding="utf-8")
        assert cli.main(["validate", "-o", "json", "--epochs", "2", "--set", "train.seed=3"]) == 0
        captured = capsys.readouterr()
        shown = json.loads(captured.out)
        assert shown["model"] == "opus_mt_en_fr"
        assert shown["fields"]["lora.r"] == {"value": 8, "origin": "mtft.yaml:3"}
        assert shown["fields"]["train.epochs"] == {"value": 2.0, "origin": "--epochs"}
        assert shown["fields"]["train.seed"] == {"value": 3, "origin": "--set"}
        assert "lora_r is an old name" in captured.err

    def test_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["validate", "--model", "opus_mt_en_fr", "--data", "rows.jsonl"]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["data.train", "rows.jsonl", "--data"] in lines

    @pytest.mark.parametrize(
        ("given", "value"),
        [
            (["a"], "a"),
            (["a", "b"], ["a", "b"]),
            (["a", "--data", "b", "c"], ["b", "c"]),
            (["a", "b", "--data", "c"], "c"),
        ],
    )
    def test_several_data_may_be_named_after_one_flag_and_the_last_flag_counts(
        self, given: list[str], value: object, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["validate", "--model", "opus_mt_en_fr", "-o", "json", "--data", *given]) == 0
        assert json.loads(capsys.readouterr().out)["fields"]["data.train"] == {"value": value, "origin": "--data"}

    def test_a_long_value_is_shortened_for_people_alone(self, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["validate", "--model", "opus_mt_en_fr", "--data", "a" * 100]
        assert cli.main(arguments) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["data.train", "a" * 79 + "…", "--data"] in lines
        assert cli.main([*arguments, "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["fields"]["data.train"]["value"] == "a" * 100

    def test_all_problems_and_exit_2(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["validate", "--model", "opus", "--set", "train.epoch=1", "--set", "lora.r=0"]) == 2
        error = capsys.readouterr().err
        for part in ("4 problems", "there is no such model", "train.epochs?", "lora.r: is too small", "data.train"):
            assert part in error

    def test_every_model_of_a_batch(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("b.json").write_text('{"data": {"train": "a"}, "models": {"opus_mt_en_fr": {}, "m2m100_418m": {}}}')
        assert cli.main(["validate", "--config", "b.json", "-o", "json"]) == 0
        assert [one["model"] for one in json.loads(capsys.readouterr().out)] == ["opus_mt_en_fr", "m2m100_418m"]

    def test_missing_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["validate", "--config", "absent.yaml"]) == 2
        assert "absent.yaml: there is no such file" in capsys.readouterr().err


class TestInit:
    def test_the_written_file_validates(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["init", "--model", "opus_mt_en_fr", "--data", "my rows.jsonl"]) == 0
        assert cli.main(["validate"]) == 0
        resolved = resolve(load_document(Path("mtft.yaml")))
        assert (resolved.config.model.key, resolved.config.data.train) == ("opus_mt_en_fr", "my rows.jsonl")

    def test_the_namespace_is_set_in_the_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["init", "-n", "team-mt", "-o", "json"]) == 0
        told = {"file": "mtft.yaml", "model": "m2m100_418m", "namespace": "team-mt"}
        assert json.loads(capsys.readouterr().out) == told
        assert resolve(load_document(Path("mtft.yaml"))).config.cluster.namespace == "team-mt"

    def test_it_replaces_nothing_unless_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("mtft.yaml").write_text("mine", encoding="utf-8")
        assert cli.main(["init"]) == 2
        assert "--force" in capsys.readouterr().err
        assert Path("mtft.yaml").read_text(encoding="utf-8") == "mine"
        assert cli.main(["init", "--force"]) == 0

    @pytest.mark.parametrize("arguments", [["--model", "opus"], ["config.json"]])
    def test_refusals_write_nothing(self, arguments: list[str], empty_folder: Path) -> None:
        assert cli.main(["init", *arguments]) == 2
        assert list(empty_folder.iterdir()) == []


class TestArguments:
    def parse(self, *arguments: str) -> Any:
        import argparse

        parser = argparse.ArgumentParser()
        add_config_arguments(parser)
        return parser.parse_args(arguments)

    def test_flags_alone_make_a_document_that_stands_alone(self) -> None:
        document, resolved = resolve_arguments(self.parse("--model", "opus_mt_en_fr", "--data", "a", "--output", "."))
        assert document == {"model": {"key": "opus_mt_en_fr"}, "data": {"train": "a"}, "storage": {"root": "."}}
        assert resolve(document).config == resolved.config

    def test_every_setting_with_a_flag_has_its_argument(self) -> None:
        from mtft.fields import fields
        from mtft.settings import FLAGS

        assert set(FLAGS) <= set(fields())
        assert set(FLAGS) <= set(vars(self.parse()))


def test_sigterm_cleans_up_as_ctrl_c_does() -> None:
    program = """
import sys, time, types
from launcher import cli

def run(_):
    try:
        print("there", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)

sys.modules["slow"] = types.SimpleNamespace(add_arguments=lambda _: None, run=run)
cli.VERBS["slow"] = ("slow", "take long")
sys.exit(cli.main(["slow"]))
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == "there\n"
        launcher.terminate()
        assert launcher.stdout.read() == "cleaned up\n"
        assert launcher.wait(timeout=60) == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("apart", "cleaned"), [(3600.0, "cleaned up\n"), (0.0, "")], ids=["one press", "a later one"])
def test_a_second_signal_changes_no_exit_code(number: signal.Signals, apart: float, cleaned: str) -> None:
    program = f"""
import atexit, os, signal, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell may have had ignored
from launcher import cli

def press():
    os.kill(os.getpid(), {int(number)})

def run(_):
    try:
        press()
    finally:
        press()
        print("cleaned up", flush=True)

atexit.register(press)
cli._ONE_PRESS_SECONDS = {apart}
sys.modules["slow"] = types.SimpleNamespace(add_arguments=lambda _: None, run=run)
cli.VERBS["slow"] = ("slow", "take long")
sys.argv = ["mtft-launch", "slow"]
sys.exit(cli.main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, cleaned, "mtft-launch: interrupted\n")


def test_little_is_loaded_before_ctrl_c_is_heeded() -> None:
    names = ["argparse", "difflib", "dataclasses", "inspect", "json", "re", "threading", "traceback", "typing"]
    program = f"import sys; was = {{*sys.modules}}; import launcher.cli; print(({{*sys.modules}} - was) & {{*{names}}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("module", ["mtft.errors", "launcher.verbs.models"])
def test_ctrl_c_while_modules_load_is_a_word(module: str) -> None:
    program = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from launcher import cli

class Slow:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Slow())
sys.argv = ["mtft-launch", "models"]
sys.exit(cli.main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "mtft-launch: interrupted\n")


def test_a_caller_gets_its_signals_back() -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert cli.main(["--version"]) == 0
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "-n", "a/b?x=1"],
        ["delete", "-n", "../../../api/v1/namespaces/w", "x"],
        ["logs", "x", "--rank", "-1"],
        ["logs", "x", "--tail", "-1"],
    ],
)
def test_what_is_no_name_or_number_goes_nowhere(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        cli.main(arguments)
    assert refused.value.code == 2
    assert re.search("is not a (namespace|whole number)", capsys.readouterr().err)
