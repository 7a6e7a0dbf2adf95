"""The chart makes the very objects that mtft-launch makes of the same document, on both Helms."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.pytorchjob import render
from mtft.models import MODELS
from mtft.settings import load_document
from tests.chart.helm import CHART, Helm, by_name, jobs
from tests.goldens import CONFIGS, cases

FILES = sorted([*CONFIGS.glob("*.yaml"), *(CHART / "ci").glob("*-values.yaml")])
BATCHES = [file for file in FILES if "model" not in load_document(file)]
# What a batch, or one model of it, does not say.
APART = ("model", "models", "chart")
SINGLE = [case for case in cases() if CONFIGS / f"{case}.yaml" not in BATCHES and case != "restricted"]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


def launched(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """Return the objects mtft-launch prints."""
    capsys.readouterr()
    assert main([*arguments, "-o", "json"]) == 0, capsys.readouterr().err
    objects: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["items"]
    return objects


def whole(file: Path, folder: Path) -> Path:
    """Return a case as a file in which a batch names every model there is, as the chart's values do."""
    document = dict(load_document(file))
    if document.get("models"):
        document["models"] = {key: {"enabled": False} for key in MODELS} | document["models"]
    (folder / "case.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    return folder / "case.json"


@pytest.mark.parametrize("case", cases())
def test_it_renders_what_the_launcher_renders(
    helm: Helm, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = whole(CONFIGS / f"{case}.yaml", tmp_path)
    wanted = launched(capsys, "render", "--config", str(file), "--batch", "weekly")
    assert by_name(jobs(helm.template("weekly", "-f", file))) == by_name(wanted)


@pytest.mark.parametrize("file", BATCHES, ids=lambda file: file.stem)
def test_it_renders_what_a_batch_of_all_models_sends(
    helm: Helm, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = whole(file, tmp_path)
    wanted = launched(capsys, "batch", "--config", str(file), "--all", "--name", "weekly", "--dry-run")
    assert by_name(jobs(helm.template("weekly", "-f", file))) == by_name(wanted)


def test_overrides_of_a_model_reach_every_field(helm: Helm) -> None:
    """The cases once more, each as one model's overrides over another case."""
    documents = {case: dict(load_document(CONFIGS / f"{case}.yaml")) for case in SINGLE}
    rest = [*SINGLE[1:], SINGLE[0]]
    for shared, own in zip(SINGLE, rest, strict=True):
        parts = [{key: documents[case][key] for key in documents[case] if key not in APART} for case in (shared, own)]
        batch = {**parts[0], "models": {key: parts[1] if key == "m2m100_418m" else {} for key in MODELS}}
        wanted = [each for model in MODELS for each in render(batch, model, batch="weekly")]
        assert by_name(jobs(helm.template("weekly", values=batch))) == by_name(wanted), (shared, own)


@pytest.mark.parametrize(
    "cluster",
    [
        {"tolerations": [{"key": "a", "value": None, "effect": None, "tolerationSeconds": None}]},
        {"ttl_minutes": 0},
    ],
    ids=lambda cluster: next(iter(cluster)),
)
def test_empty_values_of_placement_mean_the_same(helm: Helm, cluster: dict[str, Any]) -> None:
    cluster = {**cluster, "image": "example.org/mtft:1.0"}
    document = {"model": "opus_mt_en_fr", "data": {"train": "/mnt/mtft/data"}, "cluster": cluster}
    objects = jobs(helm.template("weekly", values=document))
    assert by_name(objects) == by_name(render(document, "opus_mt_en_fr", batch="weekly"))


def test_the_digest_of_an_image_reaches_the_pod(helm: Helm) -> None:
    image = f"example.org:5000/mtft:1.0@sha256:{hashlib.sha256(b'an image').hexdigest()}"
    document = {"model": "opus_mt_en_fr", "data": {"train": "/mnt/mtft/data"}, "cluster": {"image": image}}
    objects = jobs(helm.template("weekly", values=document))
    assert by_name(objects) == by_name(render(document, "opus_mt_en_fr", batch="weekly"))
    assert image.partition("@")[2] in json.dumps(objects[-1]["spec"]).replace(image, "")
