"""``mtft-launch render``: whole manifests, from the document alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher import cli
from tests.goldens import CONFIGS, GOLDEN, OPTIONS, cases, documents

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rendered(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert cli.main(["render", *arguments]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def config(case: str) -> str:
    return str(CONFIGS / f"{case}.yaml")


class TestGoldenFiles:
    def test_there_are_many_and_none_is_stale(self) -> None:
        assert len(cases()) >= 15
        for path, text in documents().items():
            assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run `make generate`"

    @pytest.mark.parametrize("case", cases())
    def test_are_what_the_verb_prints(self, case: str, capsys: pytest.CaptureFixture[str]) -> None:
        options = [text for name, value in OPTIONS.get(case, {}).items() for text in (f"--{name}", value)]
        assert cli.main(["render", "--config", config(case), *options]) == 0
        assert capsys.readouterr().out == (GOLDEN / f"{case}.yaml").read_text(encoding="utf-8")


class TestSelection:
    def test_every_enabled_model_of_a_batch(self, capsys: pytest.CaptureFixture[str]) -> None:
        manifests = rendered(capsys, "--config", config("batch"), "--batch", "weekly")
        models = [each["metadata"]["labels"]["mtft/model"] for each in manifests]
        named = yaml.safe_load(Path(config("batch")).read_text(encoding="utf-8"))["models"]
        assert models == [key for key in named for _ in range(2)]
        assert len({each["metadata"]["name"] for each in manifests}) == len(named)

    def test_one_model_of_a_batch_is_the_same_job(self, capsys: pytest.CaptureFixture[str]) -> None:
        every = rendered(capsys, "--config", config("batch"), "--batch", "weekly")
        one = rendered(capsys, "--config", config("batch"), "--batch", "weekly", "--model", "opus_mt_en_fr")
        assert one == [each for each in every if each["metadata"]["labels"]["mtft/model"] == "opus_mt_en_fr"]

    def test_flags_and_sets_go_into_the_document(self, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--epochs", "3", "--set", "cluster.cpus=8", "-n", "team"]
        mounted, job = rendered(capsys, "--config", config("minimal"), *flags)
        document = json.loads(mounted["data"]["config.json"])
        assert (document["train"], document["cluster"]["cpus"]) == ({"epochs": 3}, 8)
        assert document["model"] == "opus_mt_en_fr"
        assert job["metadata"]["namespace"] == "team"

    def test_no_file_is_needed(self, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--model", "m2m100_418m", "--data", "/mnt/mtft/data/a.jsonl", "--set", "cluster.image=mtft:1.0"]
        assert [each["kind"] for each in rendered(capsys, *flags)] == ["ConfigMap", "PyTorchJob"]


class TestMore:
    def test_a_claim_for_all_and_a_policy_for_each(self, capsys: pytest.CaptureFixture[str]) -> None:
        more = ["--create-claim", "100Gi", "--storage-class", "nfs", "--network-policy"]
        manifests = rendered(capsys, "--config", config("batch_overrides"), *more)
        kinds = [each["kind"] for each in manifests]
        assert kinds == ["PersistentVolumeClaim"] * 2 + ["ConfigMap", "PyTorchJob", "NetworkPolicy"] * 3
        assert [each["metadata"]["name"] for each in manifests[:2]] == ["mtft", "other"]
        assert manifests[0]["spec"]["storageClassName"] == "nfs"

    @pytest.mark.parametrize("text", ["{}", "cluster: {claim: other}", "models: {opus_mt_en_fr: {}, m2m100_418m: {}}"])
    def test_the_claim_alone_needs_no_model_no_data_and_no_image(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
    ) -> None:
        (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
        asked = ["--claim-only", "50Gi", "--storage-class", "nfs", "-n", "team"]
        (alone,) = rendered(capsys, *asked, "--config", "c.yaml")
        name = "other" if "other" in text else "mtft"
        assert (alone["kind"], alone["metadata"]["name"]) == ("PersistentVolumeClaim", name)
        assert (alone["metadata"]["namespace"], alone["spec"]["storageClassName"]) == ("team", "nfs")
        assert alone["spec"]["resources"]["requests"]["storage"] == "50Gi"
        (named,) = rendered(capsys, *asked, "--config", "c.yaml", "--set", "cluster.claim=third")
        assert named["metadata"]["name"] == "third"

    def test_the_claim_alone_needs_no_file(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert [each["kind"] for each in rendered(capsys, "--claim-only", "1Gi")] == ["PersistentVolumeClaim"]

    @pytest.mark.parametrize("size", ["0Gi", "100", "many", "1 Gi", "-1Gi", "100gb", "100K"])
    def test_sizes(self, size: str) -> None:
        asked = ["render", "--config", config("minimal"), f"--create-claim={size}"]
        if size == "100":
            assert cli.main(asked) == 0  # bytes, as Kubernetes reads it
            return
        with pytest.raises(SystemExit) as stopped:
            cli.main(asked)
        assert stopped.value.code == 2

    def test_json_is_one_list(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["render", "--config", config("batch"), "-o", "json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert (printed["kind"], len(printed["items"])) == ("List", 10)

    def test_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["render", "--config", config("minimal"), "-o", "table"]) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split() == ["KIND", "NAME", "NAMESPACE"]
        assert [row.split()[0] for row in rows] == ["ConfigMap", "PyTorchJob"]

    def test_a_relative_path_gets_a_note(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["render", "--config", config("minimal"), "--data", "rows.jsonl"]) == 0
        assert "note: data.train rows.jsonl: " in capsys.readouterr().err


class TestRefused:
    def test_problems_of_every_model_at_once(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        text = (
            "data: {train: a}\ncluster: {image: a:1}\n"
            "models: {opus_mt_en_fr: {lora: {r: 0}}, m2m100_418m: {epochs: 1}}\n"
        )
        (tmp_path / "b.yaml").write_text(text, encoding="utf-8")
        assert cli.main(["render", "--config", "b.yaml"]) == 2
        error = capsys.readouterr().err
        assert "b.yaml:3: models.m2m100_418m.epochs" in error or "epochs: there is no such field" in error
        assert "lora.r: is too small" in error

    def test_a_batch_without_a_model(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        text = "data: {train: a}\nmodels: {opus_mt_en_fr: {enabled: false}}\n"
        (tmp_path / "b.yaml").write_text(text, encoding="utf-8")
        assert cli.main(["render", "--config", "b.yaml"]) == 2
        assert "models: has no enabled model" in capsys.readouterr().err

    def test_no_image(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["render", "--model", "opus_mt_en_fr", "--data", "/a"]) == 2
        assert "cluster.image: is required in a cluster" in capsys.readouterr().err


_WATCHED = """
import sys
seen = []
sys.addaudithook(lambda event, arguments: seen.append((event, str(arguments[0] if arguments else ""))))
from launcher.cli import main
code = main(sys.argv[1:])
kinds = ("open", "socket", "import")
sys.stderr.write("\\n".join(f"{event} {what}" for event, what in seen if event.split(".")[0] in kinds))
sys.exit(code)
"""


def test_it_opens_no_data_and_no_connection(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("not even JSON", encoding="utf-8")
    command = [sys.executable, "-c", _WATCHED, "render", "--config", config("minimal"), "--data", str(data)]
    environment = {"PATH": "", "KUBECONFIG": str(tmp_path / "absent"), "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path)
    events = [line.partition(" ") for line in done.stderr.splitlines()]
    opened = {what for event, _, what in events if event == "open"}
    assert config("minimal") in opened
    assert str(data) not in opened
    assert not any(event.startswith("socket.connect") for event, _, _ in events)
    imported = {what.partition(".")[0] for event, _, what in events if event == "import"}
    assert "yaml" in imported
    assert imported.isdisjoint({"torch", "transformers", "kubernetes", "kubeflow", "rich"})
