"""The chart as a part of another: what becomes of its nulls."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, Helm, HelmFailed

VALUES: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
    "cluster": {"image": "example.org/mtft:1.0"},
    "model": "opus_mt_en_fr",
}
NULL = {"cluster": {"deadline_minutes": None}}
_ABSENT = "absent"


@pytest.mark.parametrize("condition", ["training.enabled", "mtft.enabled"])
def test_a_condition_outside_its_key_switches_the_chart(helm: Helm, tmp_path: Path, condition: str) -> None:
    """As the chart's README says: one within the chart's own values is refused, because they are closed."""
    chart = tmp_path / "umbrella"
    shutil.copytree(CHART, chart / "charts" / "mtft")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    about = {"apiVersion": "v2", "name": "umbrella", "version": "0.1.0"}
    dependency = {"name": "mtft", "version": version, "condition": condition}
    (chart / "Chart.yaml").write_text(json.dumps({**about, "dependencies": [dependency]}))
    (chart / "values.yaml").write_text(json.dumps({"mtft": VALUES}))

    def kinds(value: str) -> set[str]:
        text = helm("template", "rel", chart, "--skip-tests", "--set", f"{condition}={value}")
        return {each["kind"] for each in yaml.safe_load_all(text) if each}

    assert kinds("false") == set()
    if condition == "training.enabled":
        assert kinds("true") == {"ConfigMap", "PyTorchJob"}
    else:
        with pytest.raises(HelmFailed, match="'enabled' not allowed"):
            kinds("true")


@pytest.mark.parametrize("parent", [_ABSENT, 5, None])
def test_a_null_over_an_umbrella_chart_arrives_but_not_always_one_in_it(
    helm: Helm, tmp_path: Path, parent: int | str | None
) -> None:
    """As the chart's README says: the null in the parent's own values.yaml is lost with Helm 4."""
    chart = tmp_path / "umbrella"
    shutil.copytree(CHART, chart / "charts" / "mtft")
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: umbrella, version: 0.1.0}\n")
    own = {} if parent == _ABSENT else {"deadline_minutes": parent}
    (chart / "values.yaml").write_text(json.dumps({"mtft": {**VALUES, "cluster": VALUES["cluster"] | own}}))
    file = tmp_path / "null.yaml"
    file.write_text(json.dumps({"mtft": NULL}))

    def deadline(*arguments: str | Path) -> Any:
        text = helm("template", "rel", chart, "--skip-tests", *arguments)
        (config,) = (each for each in yaml.safe_load_all(text) if each["kind"] == "ConfigMap")
        return json.loads(config["data"]["config.json"])["cluster"].get("deadline_minutes", _ABSENT)

    assert deadline("-f", file) is None and deadline("--set", "mtft.cluster.deadline_minutes=null") is None
    assert deadline() == (_ABSENT if parent is None and helm.name == "helm4" else parent)
