"""What every object of a release says of itself, where it is made, and the claim that outlives it."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.pytorchjob import render
from mtft.models import MODELS
from tests.chart.helm import Helm
from tests.chart.rendered import Objects, of_kind, small_pods, trainer_pods, whole

VALUES: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
    "cluster": {"image": "example.org/mtft:1.0", "claim": "team", "service_account": "trainers"},
    "model": "opus_mt_en_fr",
}
EVERYTHING: dict[str, Any] = {
    "jobs": True,
    "claim": {"create": True, "size": "2Ti", "access_mode": "ReadWriteOnce"},
    "service_account": True,
    "network_policy": True,
    "schedule": {"cron": "@weekly"},
    "prefetch": {"enabled": True},
}
KINDS = {
    *("ConfigMap", "PyTorchJob", "PersistentVolumeClaim", "ServiceAccount", "NetworkPolicy", "Role", "RoleBinding"),
    *("CronJob", "Job", "Pod"),
}
INSTANCE, COMPONENT = "app.kubernetes.io/instance", "app.kubernetes.io/component"


@pytest.fixture(scope="module")
def release(helm: Helm) -> Objects:
    return whole(helm, {**VALUES, "chart": EVERYTHING})


@pytest.fixture(scope="module")
def placed(helm: Helm) -> Objects:
    return whole(helm, {**VALUES, "cluster": {**VALUES["cluster"], "namespace": "mt"}, "chart": EVERYTHING})


def test_all_of_it_is_made_in_one_namespace(release: Objects, placed: Objects) -> None:
    assert {kind for kind, _ in release} == KINDS
    assert {each["metadata"].get("namespace") for each in release.values()} == {None}
    assert {each["metadata"].get("namespace") for each in placed.values()} == {"mt"}
    for objects, place in ((release, "home"), (placed, "mt")):
        (binding,) = of_kind(objects, "RoleBinding")
        assert [each["namespace"] for each in binding["subjects"]] == [place]
        asked = [each["command"] for pod in small_pods(objects).values() for each in pod["spec"]["containers"]]
        assert sum(f"--namespace={place}" in command for command in asked) == 2


def test_every_object_says_what_it_is_a_part_of(release: Objects) -> None:
    trainer = render(VALUES, "opus_mt_en_fr", batch="night")[1]["metadata"]["labels"]
    version = trainer["app.kubernetes.io/version"]
    for (kind, name), each in release.items():
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == labels["app.kubernetes.io/part-of"] == "mtft", name
        assert labels["app.kubernetes.io/version"] == version and labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels[INSTANCE] == ("team" if kind == "PersistentVolumeClaim" else "night"), name
        if kind != "Pod":
            assert labels["helm.sh/chart"] == f"mtft-{version}", (kind, name)


def test_each_component_is_told_from_the_others(release: Objects) -> None:
    found = {(kind, each["metadata"]["labels"][COMPONENT]) for (kind, _), each in release.items()}
    wanted = {
        *((kind, "launcher") for kind in ("ConfigMap", "ServiceAccount", "Role", "RoleBinding", "CronJob")),
        *((kind, "trainer") for kind in ("ConfigMap", "PyTorchJob", "ServiceAccount", "NetworkPolicy")),
        *((kind, "prefetch") for kind in ("ConfigMap", "Job", "NetworkPolicy")),
        *(
            ("NetworkPolicy", "launcher"),
            ("NetworkPolicy", "prefetch"),
            ("PersistentVolumeClaim", "storage"),
            ("Pod", "self-test"),
        ),
    }
    assert found == wanted


def test_a_newer_chart_changes_no_pod(release: Objects) -> None:
    pods = {**small_pods(release), **trainer_pods(release)}
    assert len(pods) == 4
    assert not [name for name, pod in pods.items() if "helm.sh/chart" in pod["metadata"]["labels"]]


def test_a_batch_is_its_jobs_and_not_the_schedule(release: Objects) -> None:
    batch = {key for key, each in release.items() if each["metadata"]["labels"].get("mtft/batch") == "night"}
    (job,) = of_kind(release, "PyTorchJob")
    assert batch == {(kind, job["metadata"]["name"]) for kind in ("ConfigMap", "PyTorchJob", "NetworkPolicy")}


def test_what_mounts_the_volume_mounts_the_claim_that_is_made(release: Objects) -> None:
    (claim,) = of_kind(release, "PersistentVolumeClaim")
    pods = [*small_pods(release).values(), *trainer_pods(release).values()]
    for pod in pods:
        used = [each["persistentVolumeClaim"] for each in pod["spec"]["volumes"] if "persistentVolumeClaim" in each]
        assert used == [{"claimName": claim["metadata"]["name"]}]


@pytest.mark.parametrize(("mode", "storage_class"), [("ReadWriteMany", None), ("ReadWriteOnce", "fast")])
def test_the_claim_asks_for_what_it_was_told(helm: Helm, mode: str, storage_class: str | None) -> None:
    asked = {"create": True, "size": "2Ti", "access_mode": mode, "storage_class": storage_class}
    (claim,) = of_kind(whole(helm, {**VALUES, "chart": {"claim": asked}}), "PersistentVolumeClaim")
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": "2Ti"}}}
    # An empty class would be no class at all, not the cluster's default.
    assert claim["spec"] == (spec if storage_class is None else {**spec, "storageClassName": storage_class})
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_accounts_that_are_made_are_those_the_pods_run_under(helm: Helm, release: Objects) -> None:
    assert {name for kind, name in release if kind == "ServiceAccount"} == {"trainers", "night-launcher"}
    assert all(each["automountServiceAccountToken"] is False for each in of_kind(release, "ServiceAccount"))
    (pod,) = trainer_pods(release).values()
    assert pod["spec"]["serviceAccountName"] == "trainers"
    assert of_kind(whole(helm, VALUES), "ServiceAccount") == []


def test_image_and_namespace_may_be_given_to_models_alone(helm: Helm) -> None:
    one = {"cluster": {"image": "example.org/own:2.0", "namespace": "mt"}}
    others = [each for each in MODELS if each != "opus_mt_en_fr"]
    models = {"opus_mt_en_fr": one} | {each: {"enabled": False} for each in others}
    objects = whole(helm, {"data": VALUES["data"], "models": models, "chart": {**EVERYTHING, "service_account": False}})
    assert {each["metadata"].get("namespace") for each in objects.values()} == {"mt"}
    images = [each["image"] for pod in small_pods(objects).values() for each in pod["spec"]["containers"]]
    assert images == ["example.org/own:2.0"] * 4
