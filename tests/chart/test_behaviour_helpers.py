"""Launcher, prefetch and self-test go where trainers may go, as the same user, and take no GPU, queue or priority."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mtft.models import MODELS
from tests.chart.helm import Helm
from tests.chart.rendered import SMALL, Objects, Pod, mounted, of_kind, small_pods, trainer_pods, variables, whole

SECRETS = {
    "HF_TOKEN": {"name": "hub", "key": "token"},
    "WANDB_API_KEY": {"name": "tracker", "key": "key"},
    "MLFLOW_TRACKING_PASSWORD": {"name": "tracker", "key": "password", "optional": False},
    "MLFLOW_TRACKING_USERNAME": {"name": "tracker", "key": "user"},
}
VALUES: dict[str, Any] = {
    "data": {"train": "/data/mtft/train.jsonl.gz"},
    "storage": {"root": "/data/mtft"},
    "cluster": {
        "image": "example.org/mtft:1.0",
        "image_pull_policy": "Always",
        "image_pull_secrets": ["registry"],
        "claim": "team",
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"required": {"zone": ["a", "b"]}, "preferred": {"disk": ["ssd"]}},
        "labels": {"team": "nlp", "app": "mt", "kueue.x-k8s.io/queue-name": "scarce-h"},
        "annotations": {"example.org/cost": "42", "kueue.x-k8s.io/podset-required-topology": "scarce-i"},
        "run_as_user": 1234,
        "fs_group": 55,
        "env": {"HTTPS_PROXY": "http://proxy.example.org:3128"},
        "secrets": SECRETS,
        "shared_memory_gib": 0.5,
        # What takes capacity from trainers or lets a pod wait for it.
        "queue": "scarce-a",
        "queue_priority": "scarce-b",
        "priority_class": "scarce-c",
        "scheduler": "scarce-d",
        "gang": {"queue": "scarce-e"},
        "topology": {"preferred": "scarce-f"},
        "service_account": "scarce-g",
    },
    "chart": {
        "jobs": True,
        "schedule": {"cron": "@weekly", "cpus": 1, "memory_gib": 2},
        "prefetch": {"enabled": True, "cpus": 3, "memory_gib": 4, "deadline_minutes": 25},
        "test": {"cpus": 5, "memory_gib": 6.5},
    },
}
SIZES = {
    "launcher": {"cpu": "1", "memory": "2Gi"},
    "prefetch": {"cpu": "3", "memory": "4Gi"},
    "self-test": {"cpu": "5", "memory": "6.5Gi"},
}


@pytest.fixture(scope="module")
def release(helm: Helm) -> Objects:
    return whole(helm, VALUES)


@pytest.fixture(scope="module")
def pods(release: Objects) -> dict[str, Pod]:
    found = small_pods(release)
    assert set(found) == set(SMALL)
    return found


@pytest.fixture(scope="module")
def trainer(release: Objects) -> Pod:
    """Give the pod of one trainer; its own form is held to the launcher's by test_parity.py."""
    return next(iter(trainer_pods(release).values()))


@pytest.mark.parametrize("which", SMALL)
def test_they_go_where_trainers_may_go(pods: dict[str, Pod], trainer: Pod, which: str) -> None:
    for field in ("nodeSelector", "tolerations", "affinity", "imagePullSecrets", "securityContext"):
        assert pods[which]["spec"][field] == trainer["spec"][field], field
    assert pods[which]["spec"]["nodeSelector"] == {"pool": "gpu"}
    assert pods[which]["spec"]["securityContext"]["fsGroup"] == 55


@pytest.mark.parametrize("which", SMALL)
def test_they_take_nothing_a_trainer_waits_for(pods: dict[str, Pod], which: str) -> None:
    text = json.dumps(pods[which])
    assert "scarce" not in text and "kueue" not in text
    for container in pods[which]["spec"]["containers"]:
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}


@pytest.mark.parametrize("which", SMALL)
def test_they_run_the_trainers_image_restricted(pods: dict[str, Pod], trainer: Pod, which: str) -> None:
    spec = pods[which]["spec"]
    (model,) = trainer["spec"]["containers"]
    for container in spec["containers"]:
        for field in ("image", "imagePullPolicy", "securityContext", "terminationMessagePolicy"):
            assert container[field] == model[field], field
    assert spec["containers"][0]["imagePullPolicy"] == "Always"
    assert spec["restartPolicy"] == "Never" and spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is (which == "launcher")


@pytest.mark.parametrize("which", SMALL)
def test_their_end_is_soon_and_their_size_as_given(pods: dict[str, Pod], which: str) -> None:
    first = pods[which]["spec"]["containers"][0]["resources"]
    assert first["requests"] == first["limits"] == SIZES[which]
    assert 0 < pods[which]["spec"]["terminationGracePeriodSeconds"] <= 30


@pytest.mark.parametrize("which", SMALL)
def test_they_carry_the_users_labels_and_ours(pods: dict[str, Pod], which: str) -> None:
    labels, annotations = pods[which]["metadata"]["labels"], pods[which]["metadata"]["annotations"]
    assert labels.items() >= {"team": "nlp", "app": "mt"}.items()
    assert labels["app.kubernetes.io/instance"] == "night" and labels["app.kubernetes.io/part-of"] == "mtft"
    assert annotations["example.org/cost"] == "42"
    # Whoever asks for the pods of the batch asks for trainers.
    assert not any(key.startswith("mtft/") for key in labels)


def test_a_mesh_keeps_out_unless_the_user_wants_it(helm: Helm, pods: dict[str, Pod]) -> None:
    """A sidecar would outlive the container and keep the pod from ever being done."""
    key = "sidecar.istio.io/inject"
    wish = {"labels": {key: "true"}, "annotations": {key: "true"}}
    asked = small_pods(whole(helm, {**VALUES, "cluster": {**VALUES["cluster"], **wish}}))
    for made, value in ((pods, "false"), (asked, "true")):
        found = {(each["metadata"]["labels"][key], each["metadata"]["annotations"][key]) for each in made.values()}
        assert found == {(value, value)}


def test_no_user_is_chosen_where_none_is_given(helm: Helm) -> None:
    """OpenShift gives user and group, and refuses a pod that names its own."""
    cluster = {"image": "example.org/mtft:1.0", "fs_group": None}
    for pod in small_pods(whole(helm, {**VALUES, "cluster": cluster})).values():
        assert pod["spec"]["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert not {"nodeSelector", "tolerations", "affinity", "imagePullSecrets"} & set(pod["spec"])


def test_the_prefetch_fetches_as_a_trainer_would(pods: dict[str, Pod], trainer: Pod, release: Objects) -> None:
    pod = pods["prefetch"]
    (container,) = pod["spec"]["containers"]
    told = variables(container)
    assert told == variables(trainer["spec"]["containers"][0])
    assert told["HTTPS_PROXY"] == VALUES["cluster"]["env"]["HTTPS_PROXY"]
    assert told["HF_TOKEN"] == {"secretKeyRef": {"name": "hub", "key": "token", "optional": False}}
    for tracker in ("WANDB_API_KEY", "MLFLOW_TRACKING_USERNAME"):
        assert told[tracker]["secretKeyRef"]["optional"] is True
    volumes = mounted(pod)
    for path in ("/data/mtft", told["HOME"], told["TMPDIR"]):
        assert not volumes[path]["readOnly"], path
    assert volumes["/data/mtft"]["persistentVolumeClaim"] == {"claimName": "team"}
    assert told["HF_HOME"].startswith("/data/mtft/"), "what it fetches stays"
    assert container["command"] == ["python", "-m", "trainer.prefetch", "--config", "/etc/mtft/config.json"]
    document = release["ConfigMap", volumes["/etc/mtft"]["configMap"]["name"]]["data"]["config.json"]
    assert json.loads(document)["models"].keys() == _models(release)


def test_a_reference_that_only_the_models_complete_is_no_small_pods(helm: Helm) -> None:
    halves = {"HF_TOKEN": {"name": "hub"}, "WANDB_API_KEY": {"key": "k"}, "OTHER": SECRETS["HF_TOKEN"]}
    own = {"secrets": {"HF_TOKEN": {"key": "k"}, "WANDB_API_KEY": {"name": "tracker"}}}
    values: dict[str, Any] = {**VALUES, "cluster": {**VALUES["cluster"], "secrets": halves}, "models": {}}
    for key in MODELS:
        values["models"][key] = {"cluster": own} if key == "opus_mt_en_fr" else {"enabled": False}
    objects = whole(helm, values)
    (trainer,) = trainer_pods(objects).values()
    assert {*halves} <= variables(trainer["spec"]["containers"][0]).keys()
    pods = small_pods(objects)
    for which in ("prefetch", "self-test"):
        told = variables(pods[which]["spec"]["containers"][0])
        assert {*halves} & told.keys() == {"OTHER"}, which
    assert pods["self-test"]["spec"]["containers"][0]["command"][5:] == ["--secret=OTHER=hub/token"]


def _models(release: Objects) -> set[str]:
    return {each["metadata"]["labels"]["mtft/model"] for each in of_kind(release, "PyTorchJob")}


def test_a_prefetch_ends_and_goes_and_shows_why_it_failed(release: Objects) -> None:
    job = release["Job", "night-prefetch"]
    assert job["spec"]["activeDeadlineSeconds"] == 25 * 60
    assert job["spec"]["backoffLimit"] == 1, "a hub that was away for a moment"
    # Helm that was killed removes no hook.
    assert 0 < job["spec"]["ttlSecondsAfterFinished"] <= 24 * 3600
    for each in (job, release["ConfigMap", "night-prefetch"]):
        notes = each["metadata"]["annotations"]
        removed = set(notes["helm.sh/hook-delete-policy"].split(","))
        assert removed == {"before-hook-creation", "hook-succeeded", "hook-failed"}
    assert "hook-failed" in job["metadata"]["annotations"]["helm.sh/hook-output-log-policy"].split(",")


def test_the_self_test_stands_where_a_trainer_would(pods: dict[str, Pod], trainer: Pod) -> None:
    pod = pods["self-test"]
    told, wanted = (variables(each["spec"]["containers"][0]) for each in (pod, trainer))
    assert told.keys() == wanted.keys()
    assert {name: told[name] for name in told if name not in SECRETS} == {
        name: wanted[name] for name in wanted if name not in SECRETS
    }
    seen, has = mounted(pod), mounted(trainer)
    assert seen == {path: volume for path, volume in has.items() if path != "/etc/mtft"}
    assert seen["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "0.5Gi"}
    assert 60 <= pod["spec"]["activeDeadlineSeconds"] <= 3600


def test_the_self_test_names_each_secret_that_a_trainer_must_have(pods: dict[str, Pod]) -> None:
    command = pods["self-test"]["spec"]["containers"][0]["command"]
    assert command[:5] == ["python", "-m", "trainer", "--self-test", "--root=/data/mtft"]
    assert set(command[5:]) == {
        "--secret=HF_TOKEN=hub/token",
        "--secret=MLFLOW_TRACKING_PASSWORD=tracker/password",
    }


def test_the_self_test_asks_the_cluster_with_a_short_token(pods: dict[str, Pod]) -> None:
    pod = pods["self-test"]
    (asking,) = (each for each in pod["spec"]["containers"] if each["name"] == "cluster")
    assert asking["command"] == ["mtft-launch", "doctor", "--operator", "--namespace=home"]
    mounts = {each["mountPath"]: each for each in asking["volumeMounts"]}
    token = mounts["/var/run/secrets/kubernetes.io/serviceaccount"]
    assert token["readOnly"] and set(mounts) == {token["mountPath"], variables(asking)["HOME"]}
    (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == token["name"])
    parts = {kind: part for source in volume["projected"]["sources"] for kind, part in source.items()}
    assert parts["serviceAccountToken"]["path"] == "token"
    assert parts["serviceAccountToken"]["expirationSeconds"] <= 3600
    assert parts["configMap"]["name"] == "kube-root-ca.crt" and parts["downwardAPI"]["items"][0]["path"] == "namespace"


def test_helm_shows_the_self_tests_log_and_removes_the_pod(pods: dict[str, Pod]) -> None:
    notes = pods["self-test"]["metadata"]["annotations"]
    assert notes["helm.sh/hook"] == "test"
    assert set(notes["helm.sh/hook-output-log-policy"].split(",")) == {"hook-succeeded", "hook-failed"}
    removed = {"before-hook-creation", "hook-succeeded", "hook-failed"}
    assert set(notes["helm.sh/hook-delete-policy"].split(",")) == removed
