"""`reproduce`: the job that made a run comes out again from what the run's folder says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli import main
from launcher.manifests import as_yaml
from launcher.pytorchjob import render
from mtft import exit_codes, provenance
from mtft.cluster_config import POD_FACTS
from mtft.models import card
from mtft.naming import config_hash
from mtft.runs import RunPaths
from mtft.settings import load_document, models_of, resolve
from tests.goldens import CONFIGS, OPTIONS, cases
from trainer.ingredients import Ingredients

MODEL = "opus_mt_en_fr"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def leave_run(root: Path, model: str, objects: list[dict[str, Any]], told: pytest.MonkeyPatch) -> RunPaths:
    """Write the record that the first pod of these objects writes, from what a kubelet would hand it."""
    mounted, job = objects
    pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    facts = {"metadata.namespace": "night", "metadata.name": "x-master-0", "metadata.uid": "1-2-3"} | {
        f"metadata.labels['{key}']": value for key, value in pod["metadata"]["labels"].items()
    }
    for entry in pod["spec"]["containers"][0]["env"]:
        if entry["name"] in POD_FACTS:
            told.setenv(entry["name"], facts.get(entry["valueFrom"]["fieldRef"]["fieldPath"], ""))
    document = json.loads(mounted["data"]["config.json"])
    told.setattr(provenance, "data_identity", lambda *_, **__: "d" * 64)
    told.setattr(provenance, "base_identity", lambda *_: {"checkpoint": "x", "revision": REVISION, "sha256": None})
    config = resolve(document, model=model).config
    found, record = Ingredients(config, card(model), provenance.request(document, model, "9-9")).of_new_job(
        job["metadata"]["name"], config_hash(document, model)
    )
    paths = RunPaths.at(root, model, found.run_id)
    paths.folder.mkdir(parents=True)
    paths.provenance.write_text(json.dumps(record), encoding="utf-8")
    return paths


@pytest.mark.parametrize("name", cases())
def test_every_job_comes_out_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    document = load_document(CONFIGS / f"{name}.yaml")
    for model in models_of(document):
        sent = render(document, model, namespace="night", **OPTIONS.get(name, {}))
        paths = leave_run(tmp_path, model, sent, monkeypatch)
        assert main(["reproduce", str(paths.folder)]) == exit_codes.DONE
        assert list(yaml.safe_load_all(capsys.readouterr().out)) == list(yaml.safe_load_all(as_yaml(sent)))


def one_run(root: Path, told: pytest.MonkeyPatch) -> tuple[RunPaths, list[dict[str, Any]]]:
    document = {
        "models": {MODEL: {"train": {"epochs": 2}}, "m2m100_418m": {}},
        "data": {"train": "/mnt/mtft/data/a.jsonl"},
        "cluster": {"image": "example.org/mtft:1.0"},
    }
    sent = render(document, MODEL, batch="weekly", namespace="night")
    return leave_run(root, MODEL, sent, told), sent


def test_a_run_is_named_by_model_and_run_id_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    paths, sent = one_run(tmp_path, monkeypatch)
    assert main(["reproduce", f"{MODEL}/{paths.run_id}", "--output", str(tmp_path), "-o", "json"]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out)["items"] == sent
    assert "example.org/mtft:1.0 is a tag" in answer.err and "the code of mtft" not in answer.err
    record = json.loads(paths.provenance.read_text(encoding="utf-8"))
    paths.provenance.write_text(json.dumps({**record, "earlier_code": ["v1"]}), encoding="utf-8")
    assert main(["reproduce", f"{MODEL}/{paths.run_id}", "--output", str(tmp_path)]) == 0
    assert "the code of mtft changed while the run was made" in capsys.readouterr().err


def test_a_rerun_is_another_job_held_to_the_same_data_and_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    paths, sent = one_run(tmp_path, monkeypatch)
    assert main(["reproduce", str(paths.folder), "--rerun", "-n", "other"]) == 0
    mounted, job = yaml.safe_load_all(capsys.readouterr().out)
    document = json.loads(mounted["data"]["config.json"])
    assert document["data"] == {"train": "/mnt/mtft/data/a.jsonl", "sha256": "d" * 64}
    assert document["model"] == {"key": MODEL, "revision": REVISION}
    assert document["train"] == {"epochs": 2}
    assert job["metadata"]["name"] != sent[1]["metadata"]["name"]
    assert job["metadata"]["namespace"] == "other"


def test_a_run_without_a_cluster_gives_its_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in POD_FACTS:
        monkeypatch.delenv(name, raising=False)
    document = {"model": MODEL, "data": {"train": "/data/a.jsonl"}}
    paths = RunPaths.at(tmp_path, MODEL, "20300102T030405Z-0a1b2c3d")
    paths.folder.mkdir(parents=True)
    record = {"job": "x", "request": provenance.request(document, MODEL, None)}
    paths.provenance.write_text(json.dumps(record), encoding="utf-8")
    assert main(["reproduce", str(paths.folder)]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == document


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ("{", "cannot be understood"),
        ('{"job": "x"}', "did not keep its document"),
        ('{"job": "x", "request": {"model": "m", "document": 3, "pod": null}}', "request cannot be understood"),
        ('{"job": "x", "request": {"model": "m", "document": {}, "pod": {"namespace": "A;B"}}}', "A;B"),
        ('{"job": "x", "data": [], "request": {}}', "request cannot be understood"),
        ('{"job": "x", "data": [1], "request": {}}', "data cannot be understood: it is no mapping"),
    ],
)
def test_a_damaged_record_is_one_message(record: str, told: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "provenance.json").write_text(record, encoding="utf-8")
    assert main(["reproduce", str(tmp_path)]) == exit_codes.BAD_INPUT
    assert told in capsys.readouterr().err


def test_no_such_run(tmp_path: Path, capsys: Any) -> None:
    assert main(["reproduce", f"{MODEL}/../../secret", "--output", str(tmp_path)]) == exit_codes.BAD_INPUT
    assert "is not a run-id" in capsys.readouterr().err
    assert main(["reproduce", "opus_mt_en_f", "--output", str(tmp_path)]) == exit_codes.BAD_INPUT
    assert "opus_mt_en_fr" in capsys.readouterr().err
