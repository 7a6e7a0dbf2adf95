"""The chart as a package: it lints, its example values render, its generated files and versions belong together."""

from __future__ import annotations

import io
import json
import re
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from launcher.cluster_errors import OPERATOR_INSTALL
from launcher.pod import OUR_MOUNTS, OUR_PROGRAMS
from mtft.config import Config
from mtft.models import MODELS
from mtft.settings import load_document
from tests.chart.helm import CHART, Helm, HelmFailed, jobs
from tests.conftest import CHECKOUT

EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
MINIMAL = CHART / "ci" / "minimal-values.yaml"


def test_it_lints(helm: Helm) -> None:
    for arguments in ([], *(["-f", str(file)] for file in EXAMPLES)):
        assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", CHART, *arguments)
    for arguments in (
        ["-f", str(EXAMPLES[0]), "--set", "cluster.image=null"],
        ["--set", "models.m2m100_418m.lora.r=8"],
    ):
        with pytest.raises(HelmFailed, match=r"1 chart\(s\) failed") as failed:
            helm("lint", "--strict", CHART, *arguments)
        assert "cluster.image: is required in a cluster" in str(failed.value)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_values_make_two_objects_for_each_model(helm: Helm, file: Path) -> None:
    document = load_document(file)
    off = [key for key, override in (document.get("models") or {}).items() if not override.get("enabled", True)]
    count = 1 if "model" in document else len(MODELS) - len(off)
    kinds = [each["kind"] for each in jobs(helm.template("retrain", "-f", file))]
    assert sorted(kinds) == ["ConfigMap"] * count + ["PyTorchJob"] * count


def test_set_alone_launches_every_model(helm: Helm) -> None:
    sets = "data.train=/mnt/mtft/data/train.jsonl.gz,cluster.image=example.org/mtft:1.0"
    sent = [each for each in jobs(helm.template("retrain", "--set", sets)) if each["kind"] == "PyTorchJob"]
    assert {each["metadata"]["labels"]["mtft/model"] for each in sent} == set(MODELS)
    one_less = helm.template("retrain", "--set", sets, "--set", "models.m2m100_418m.enabled=false")
    assert len(jobs(one_less)) == 2 * (len(MODELS) - 1)


def test_what_a_cluster_knows_may_be_told(helm: Helm) -> None:
    """As Argo CD does; the recipe says so."""
    known = ("--api-versions", "v1", "--api-versions", "apiregistration.k8s.io/v1")
    with pytest.raises(HelmFailed, match="does not know PyTorchJob"):
        helm.template("retrain", "-f", MINIMAL, *known)
    operator = ("--api-versions", "kubeflow.org/v1/PyTorchJob")
    assert helm.template("retrain", "-f", MINIMAL, *known, *operator) == helm.template("retrain", "-f", MINIMAL)
    # Who makes no job needs no operator yet.
    assert helm.template("retrain", "-f", MINIMAL, *known, "--set", "chart.jobs=false") == []
    with pytest.raises(HelmFailed, match="does not know PyTorchJob"):
        helm.template("retrain", "-f", MINIMAL, *known, "--set", "chart.schedule.cron=@weekly")


@pytest.mark.parametrize(("version", "taken"), [("v1.26.15", False), ("v1.27.0", True), ("v1.27.3-gke.100", True)])
def test_a_schedule_needs_a_cluster_that_knows_time_zones(helm: Helm, version: str, taken: bool) -> None:
    """An older server drops the field without a word."""
    names = ("v1", "apiregistration.k8s.io/v1", "kubeflow.org/v1/PyTorchJob")
    known = [part for name in names for part in ("--api-versions", name)]
    arguments: list[str | Path] = ["-f", MINIMAL, *known, "--kube-version", version]
    assert helm.template("retrain", *arguments)
    if taken:
        assert helm.template("retrain", *arguments, "--set", "chart.schedule.cron=@weekly")
    else:
        with pytest.raises(HelmFailed, match=r"chart\.schedule: needs Kubernetes 1\.27.* has v1\.26\.15"):
            helm.template("retrain", *arguments, "--set", "chart.schedule.cron=@weekly")


def test_nothing_is_said_about_suspension_or_lifetime(helm: Helm) -> None:
    for each in jobs(helm.template("retrain", "-f", MINIMAL)):
        text = json.dumps(each)
        assert "suspend" not in text
        assert "ttlSecondsAfterFinished" not in text


def test_it_works_as_a_subchart(helm: Helm, tmp_path: Path) -> None:
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / "mtft").symlink_to(CHART)
    chart = {"apiVersion": "v2", "name": "team", "version": "1.0.0"}
    (tmp_path / "Chart.yaml").write_text(json.dumps(chart))
    values = {"mtft": {**load_document(MINIMAL), "models": {"m2m100_418m": None}}, "global": {"x": 1}}
    text = helm("template", "retrain", tmp_path, values=values)
    inside = [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]
    assert jobs(inside) == jobs(helm.template("retrain", "-f", MINIMAL))


def test_values_uncommented_change_nothing(helm: Helm, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    file.write_text(re.sub(r"(?m)^#(?!#)", "", text), encoding="utf-8")
    image = ("--set", "cluster.image=example.org/mtft:1.0")
    whole, least = (helm.template("retrain", "-f", values, *image) for values in (file, MINIMAL))
    assert set(Config.model_fields) - {"model"} <= set(load_document(file))
    specs = [
        {each["metadata"]["labels"]["mtft/model"]: _placed(each) for each in jobs(objects) if "spec" in each}
        for objects in (whole, least)
    ]
    assert specs[0] == specs[1]
    assert len(specs[0]) == len(MODELS)


def _placed(job: dict[str, Any]) -> Any:
    """Return a job without what its name and its configuration's hash are in."""
    meta = job["metadata"]
    text = json.dumps(job["spec"]).replace(meta["name"], "NAME").replace(meta["labels"]["mtft/run"], "RUN")
    return json.loads(text)


def test_the_schema_is_closed_described_and_valid() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    parts = list(_objects(schema))
    assert len(parts) > 25
    definitions = schema["$defs"]
    by_templates = [definitions["SecretRef"], definitions["ClusterConfig"]["properties"]["secrets"]]
    for part in parts:
        assert part["additionalProperties"] is (part in by_templates), part
        for name, setting in part.get("properties", {}).items():
            described = setting if "$ref" not in setting else setting | schema["$defs"][setting["$ref"][8:]]
            assert described.get("description"), name


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a schema that says which keys an object has."""
    if isinstance(schema, dict):
        if "patternProperties" in schema or isinstance(schema.get("properties"), dict):
            yield schema
        for inside in schema.values():
            yield from _objects(inside)


def test_the_package_holds_what_helm_needs(helm: Helm, tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    (package,) = tmp_path.iterdir()
    assert package.name == f"mtft-{version}.tgz"
    with tarfile.open(fileobj=io.BytesIO(package.read_bytes())) as archive:
        names = {name.removeprefix("mtft/") for name in archive.getnames()}
    files = {"Chart.yaml", "README.md", "values.yaml", "values.schema.json", "files/facts.json"}
    assert {name for name in names if not name.startswith("templates/")} == files
    assert {"templates/jobs.yaml", "templates/NOTES.txt"} <= names
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version


def test_what_templates_repeat_is_what_the_launcher_says() -> None:
    def text(template: str) -> str:
        return (CHART / "templates" / template).read_text(encoding="utf-8")

    assert OPERATOR_INSTALL in text("_live.tpl")
    taken = (*OUR_MOUNTS, *OUR_PROGRAMS)
    assert "list " + " ".join(f'"{each}/"' for each in taken) in text("_job_problems.tpl")
