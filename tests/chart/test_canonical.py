"""Python and both Helms make one canonical text, one hash and one name of the same configuration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtft.naming import canonical, config_hash, job_name
from mtft.settings import load_document
from tests.chart.helm import CHART, Helm

FIXTURE = Path(__file__).parent / "canonical"
TEXT = (FIXTURE / "text.json").read_text(encoding="utf-8").removesuffix("\n")

# What templates are asked; the chart itself takes no such values.
PROBE = """
text: {{ include "mtft.canonical" .Values | include "mtft.json" }}
{{- range $document := .Values.documents }}
---
{{- $override := get (include "mtft.chosen" $document | fromJson) "m2m100_418m" | default dict }}
hash: {{ include "mtft.hash" (list $document "m2m100_418m" $override) }}
{{- end }}
{{- range .Values.names }}
---
name: {{ include "mtft.jobName" (list . "mbart50_mmt_fr" "0123456789") }}
{{- end }}
"""
DOCUMENTS: list[dict[str, Any]] = [
    {"train": {"epochs": 2}, "models": {}},
    {"train": {"epochs": 2, "seed": None}, "models": {"m2m100_418m": {"train": {"epochs": None, "seed": 1}}}},
    {"train": {"epochs": 2}, "models": {"m2m100_418m": {"train": None, "lora": {}}}},
    {"train": None, "models": {"m2m100_418m": {"train": {"epochs": 0, "gradient_checkpointing": False}}}},
    {"data": {"train": ["a", "b"]}, "models": {"m2m100_418m": {"data": {"train": [], "dev": ""}, "enabled": True}}},
    {"model": "m2m100_418m", "models": {"m2m100_418m": {"model": {"path": "/<a>&b"}}}},
    {"cluster": {"nodes": 2}, "storage": {"root": "/x"}, "models": {"m2m100_418m": {"cluster": {"cpus": 1}}}},
]
NAMES = ["weekly", "a", "9lives", "a.b", "x" * 24, "x" * 25, "x" * 53, "x" * 24 + "-y", "9", "a-" * 20 + "a", "0-9-a"]


def test_python_makes_the_pinned_text() -> None:
    assert canonical(load_document(FIXTURE / "values.yaml")) == TEXT
    assert json.loads(TEXT)["numbers"]["fractions"][0] == 0.1


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a chart of the real helpers and a template that asks them."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: probe, version: 0.0.1}")
    shutil.copytree(CHART / "templates", folder / "templates", ignore=lambda _, names: {*names} - {*_helpers(names)})
    (folder / "templates" / "probe.yaml").write_text(PROBE)
    return folder


def _helpers(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("_")]


def asked(helm: Helm, probe: Path, *arguments: str | Path, values: dict[str, Any] | None = None) -> list[Any]:
    return list(yaml.safe_load_all(helm("template", "r", probe, *arguments, values=values)))


def test_helm_makes_the_pinned_text(helm: Helm, probe: Path) -> None:
    assert asked(helm, probe, "-f", FIXTURE / "values.yaml") == [{"text": TEXT}]


def test_helm_keeps_nulls_of_every_origin(helm: Helm, probe: Path) -> None:
    values = {"data": {"dev": 1, "test": None}, "lora": {"r": 4}}
    sets = ("--set", "data.dev=null,train.seed=null", "--set-json", "eval.every=null", "--set-json", "lora=null")
    (shown,) = asked(helm, probe, *sets, values=values)
    want = {"data": {"dev": None, "test": None}, "eval": {"every": None}, "lora": None, "train": {"seed": None}}
    assert json.loads(shown["text"]) == want


def test_helm_makes_the_launchers_hashes_and_names(helm: Helm, probe: Path) -> None:
    _, *shown = asked(helm, probe, values={"documents": DOCUMENTS, "names": NAMES})
    hashes, names = shown[: len(DOCUMENTS)], shown[len(DOCUMENTS) :]
    assert [each["hash"] for each in hashes] == [config_hash(one, "m2m100_418m") for one in DOCUMENTS]
    assert [each["name"] for each in names] == [job_name(one, "mbart50_mmt_fr", "0123456789") for one in NAMES]
    assert len({each["name"] for each in names}) == len(NAMES)
