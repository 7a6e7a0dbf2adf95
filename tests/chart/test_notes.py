"""What Helm says after an install names what was made and the next commands, and every name is a name to YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtft.models import MODELS
from tests.chart.conftest import find_helm
from tests.chart.helm import CHART, VERSIONS, Helm
from tests.chart.test_chart_key import WEEKLY

VALUES: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
    "cluster": {"image": "example.org/mtft:1.0", "claim": "shared", "service_account": "trainers"},
    "models": {"m2m100_418m": {"cluster": {"claim": "own"}, "storage": {"root": "/mnt/own"}}},
}
EVERYTHING = {
    "claim": {"create": True},
    "service_account": True,
    "network_policy": True,
    "prefetch": {"enabled": True},
}


def notes(folder: Path, chart: dict[str, Any], **more: Any) -> str:
    helm = find_helm(VERSIONS[-1], folder)  # Helm 3 renders no notes without a cluster
    text = helm("install", "night", CHART, "--dry-run=client", "-n", "mt", values={**VALUES, **more, "chart": chart})
    return text.rpartition("NOTES:")[2]


def objects(helm: Helm, *arguments: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    text = helm("template", "night", CHART, "-n", "123", *arguments, values=values)
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize("jobs", [None, True], ids=["schedule", "both"])
def test_a_schedule_names_what_was_made_and_what_to_do_next(tmp_path: Path, jobs: bool | None) -> None:
    chart = {**EVERYTHING, **WEEKLY, "jobs": jobs}
    said = notes(tmp_path, chart)
    made = objects(find_helm(VERSIONS[-1], tmp_path), values={**VALUES, "chart": chart})
    named = {each["metadata"]["name"] for each in made if each["kind"] != "Pod"}
    assert len(named) >= 6
    assert [name for name in named if name not in said] == []
    for kind in {each["kind"] for each in made} - {"Pod", "PyTorchJob"}:
        assert kind in said, kind
    for verb in (
        "Watch    kubectl get pytorchjobs -n mt -l mtft/batch=night",
        "Wait     kubectl",
        "Fetch    mtft-launch",
    ):
        assert verb in said


def test_the_claim_that_was_made_is_named(tmp_path: Path) -> None:
    said = notes(tmp_path, EVERYTHING)
    assert "PersistentVolumeClaim shared, which stays" in said
    assert "PersistentVolumeClaim" not in notes(tmp_path, {})


def test_what_has_to_be_there_already_is_named(tmp_path: Path) -> None:
    said = notes(tmp_path, {})
    assert "Claims own, shared must be there" in said and "kubectl get persistentvolumeclaim own -n mt" in said
    assert "must be there" not in notes(tmp_path, EVERYTHING, models={}) and "Jobs of several pods" not in said
    alone = {key: {"enabled": False} for key in MODELS} | {"m2m100_418m": {"cluster": {"claim": "own"}}}
    said = notes(tmp_path, EVERYTHING | {"claim": {"create": True, "access_mode": "ReadWriteOnce"}}, models=alone)
    assert "Claim own must be there before a pod can start, ReadWriteOnce" in said
    assert "jobs of earlier data" not in said
    said = notes(tmp_path, WEEKLY, models={"opus_mt_en_fr": {"cluster": {"nodes": 2}}})
    assert "kubectl delete pytorchjobs -n mt -l mtft/batch=night\n" in said
    assert "Claim shared must be there" in said and "-n mt --field-selector reason=FailedCreatePod" in said


@pytest.mark.parametrize("chart", [{}, {**WEEKLY}], ids=["plain", "schedule"])
def test_what_removes_the_release_is_always_told(tmp_path: Path, chart: dict[str, Any]) -> None:
    said = notes(tmp_path, chart)
    assert "Remove   helm uninstall night -n mt\n" in said
    line = r"kubectl delete (\S+) -n mt -l app\.kubernetes\.io/part-of=mtft,app\.kubernetes\.io/instance=night\n"
    (kinds,) = re.findall(line, said)
    values = {**VALUES, "chart": {**EVERYTHING, **WEEKLY, "jobs": True}}
    made = objects(find_helm(VERSIONS[-1], tmp_path), values=values)
    ours = {each["kind"] for each in made if "helm.sh/hook" not in each["metadata"].get("annotations", {})}
    named = {kind.lower().replace("policy", "policie") + "s" for kind in ours - {"PersistentVolumeClaim"}}
    assert set(kinds.split(",")) == named


def test_what_helm_test_and_the_prefetch_do_not_see_is_named(tmp_path: Path) -> None:
    said = notes(tmp_path, {"prefetch": {"enabled": True}})
    assert "nor used by the prefetch" in said and "storage.root of m2m100_418m, cluster.claim of m2m100_418m." in said
    assert "Not looked at" not in notes(tmp_path, {}, models={})
    half = {**VALUES["cluster"], "secrets": {"HF_TOKEN": {"name": "hub"}}}
    models = {key: {"enabled": False} for key in MODELS}
    models["opus_mt_en_fr"] = {"cluster": {"secrets": {"HF_TOKEN": {"key": "k"}}}}  # type: ignore[dict-item]
    said = notes(tmp_path, {}, cluster=half, models=models)
    assert (
        "Not looked at by `helm test`, which knows the shared settings alone: cluster.secrets of opus_mt_en_fr." in said
    )


def test_names_that_read_as_something_else_stay_texts(helm: Helm) -> None:
    """``true``, ``123``, ``1e5`` and ``on`` are names to Kubernetes, but no texts to YAML."""
    odd = {"namespace": "true", "service_account": "123", "claim": "1e5", "image_pull_secrets": ["007"]}
    secret = {"HF_TOKEN": {"name": "12", "key": "on"}}
    schedule = {"cron": "0 2 * * 0", "service_account": "456"}
    values = {
        "data": VALUES["data"],
        "cluster": {"image": "example.org/mtft:1.0", **odd, "secrets": secret},
        "chart": {**EVERYTHING, "jobs": True, "schedule": schedule},
    }
    for place, at in ((values, "true"), ({**values, "cluster": {**values["cluster"], "namespace": None}}, None)):
        made = objects(helm, values=place)
        assert {each["metadata"].get("namespace") for each in made} == {at}
        named = list(_names(made))
        assert len(named) > 100
        assert [name for name in named if not isinstance(name, str)] == []
        (binding,) = (each for each in made if each["kind"] == "RoleBinding")
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "456", "namespace": at or "123"}]


def _names(value: Any) -> Iterator[Any]:
    """Yield whatever stands where Kubernetes wants a name."""
    if isinstance(value, list):
        for inside in value:
            yield from _names(inside)
    elif isinstance(value, dict):
        for key, inside in value.items():
            if key == "namespace" or key.lower().endswith("name"):
                yield inside
            else:
                yield from _names(inside)
