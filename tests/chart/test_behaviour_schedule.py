"""What a schedule does over weeks: which launch is tried again or ended, what is kept of it, what it may touch."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from mtft import exit_codes
from mtft.paths import overlay
from tests.chart.helm import Helm
from tests.chart.rendered import Objects, mounted, of_kind, small_pods, variables, whole

VALUES: dict[str, Any] = {
    "data": {"train": "/data/mtft/train.jsonl.gz"},
    "storage": {"root": "/data/mtft"},
    "cluster": {
        "image": "example.org/mtft:1.0",
        "namespace": "mt",
        "claim": "team",
        "secrets": {"HF_TOKEN": {"name": "hub", "key": "token"}},
    },
    "chart": {"schedule": {"cron": "0 2 * * 0"}},
}
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}
KILLED = 137


def scheduled(helm: Helm, **schedule: Any) -> Objects:
    values = copy.deepcopy(VALUES)
    overlay(values, {"chart": {"schedule": schedule}})
    return whole(helm, values)


def cron_job(objects: Objects) -> dict[str, Any]:
    """Return the specification of the one CronJob."""
    (cron,) = of_kind(objects, "CronJob")
    spec: dict[str, Any] = cron["spec"]
    return spec


@pytest.fixture(scope="module")
def weekly(helm: Helm) -> Objects:
    return scheduled(helm)


@pytest.fixture(scope="module")
def waiting(helm: Helm) -> Objects:
    return scheduled(helm, wait=True, deadline_minutes=90, keep_succeeded=7, keep_failed=1, cpus=2, memory_gib=3)


def action(policy: dict[str, Any], container: str, code: int, *conditions: dict[str, str]) -> str:
    """Return what Kubernetes does with a pod that failed: the first rule that fits, else it counts."""
    for rule in policy["rules"]:
        codes = rule.get("onExitCodes")
        if codes and codes.get("containerName", container) == container:
            assert codes["operator"] == "In"
            if code in codes["values"]:
                return str(rule["action"])
        if any(each in conditions for each in rule.get("onPodConditions", [])):
            return str(rule["action"])
    return "Count"


def test_a_launch_is_tried_again_only_where_that_helps(weekly: Objects) -> None:
    job = cron_job(weekly)["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    policy, name = job["podFailurePolicy"], container["name"]
    final = (exit_codes.FAILED, exit_codes.BAD_INPUT, exit_codes.WAIT_TIMED_OUT)
    assert {action(policy, name, code) for code in final} == {"FailJob"}
    passing = (exit_codes.CLUSTER_REFUSED, exit_codes.INTERRUPTED, KILLED)
    assert {action(policy, name, code) for code in passing} == {"Count"}
    assert 2 <= job["backoffLimit"] <= 6
    assert job["template"]["spec"]["restartPolicy"] == "Never", "Kubernetes takes a podFailurePolicy with no other"


@pytest.mark.parametrize("code", [exit_codes.FAILED, exit_codes.INTERRUPTED, KILLED])
def test_a_drained_node_uses_up_no_try(weekly: Objects, code: int) -> None:
    policy = cron_job(weekly)["jobTemplate"]["spec"]["podFailurePolicy"]
    assert action(policy, "launcher", code, DISRUPTED) == "Ignore"
    assert action(policy, "launcher", KILLED, {**DISRUPTED, "status": "False"}) == "Count"


def test_a_missed_launch_is_made_up_for_soon_or_not_at_all(weekly: Objects) -> None:
    """Below 10 s Kubernetes may never start one; without a limit, 100 missed starts end the schedule for good."""
    assert 60 <= cron_job(weekly)["startingDeadlineSeconds"] < 24 * 3600


def test_launches_are_kept_as_asked(weekly: Objects, waiting: Objects) -> None:
    kept = [
        (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"])
        for spec in (cron_job(weekly), cron_job(waiting))
    ]
    assert kept == [(3, 3), (7, 1)]


def test_a_launch_ends_when_it_was_told_to(helm: Helm, weekly: Objects, waiting: Objects) -> None:
    patient = scheduled(helm, wait=True)
    quick = scheduled(helm, deadline_minutes=5)
    seconds = [
        cron_job(each)["jobTemplate"]["spec"].get("activeDeadlineSeconds") for each in (weekly, waiting, patient, quick)
    ]
    assert seconds == [3600, 5400, None, 300]


def test_the_command_reads_the_document_and_goes_where_the_objects_are(weekly: Objects, waiting: Objects) -> None:
    pod = small_pods(weekly)["launcher"]
    common = ["mtft-launch", "batch", "--config=/etc/mtft/config.json", "--name=night", "--namespace=mt"]
    assert pod["spec"]["containers"][0]["command"] == common
    waits = small_pods(waiting)["launcher"]["spec"]["containers"][0]["command"]
    assert waits == [*common, "--wait", "--accept-not-better"]
    config = mounted(pod)["/etc/mtft"]
    document = json.loads(weekly["ConfigMap", config["configMap"]["name"]]["data"]["config.json"])
    assert document["data"] == VALUES["data"] and document["cluster"] == VALUES["cluster"] and len(document["models"])
    assert "chart" not in document


def test_the_launcher_sees_the_data_and_no_secret(weekly: Objects) -> None:
    pod = small_pods(weekly)["launcher"]
    volumes = mounted(pod)
    data = volumes["/data/mtft"]
    assert data["persistentVolumeClaim"] == {"claimName": "team"} and data["readOnly"]
    assert volumes["/tmp"]["emptyDir"] == {} and not volumes["/tmp"]["readOnly"]
    assert set(volumes) == {"/data/mtft", "/tmp", "/etc/mtft"} and len(pod["spec"]["volumes"]) == 3
    (container,) = pod["spec"]["containers"]
    assert "envFrom" not in container and "initContainers" not in pod["spec"]
    known = {"HOME": "/tmp", "MTFT_IMAGE": container["image"]}
    assert variables(container) == known, "the one folder it may write to, and whose files it sees beside the volumes"


def granted(objects: Objects) -> set[tuple[str, str, str]]:
    (role,) = of_kind(objects, "Role")
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in role["rules"])
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_waiting_adds_the_right_to_watch_and_nothing_more(weekly: Objects, waiting: Objects) -> None:
    least = {("kubeflow.org", "pytorchjobs", verb) for verb in ("get", "create")}
    least |= {("", "configmaps", verb) for verb in ("get", "create", "patch", "delete")}
    assert granted(weekly) == least
    watch = {("kubeflow.org", "pytorchjobs", "list"), ("kubeflow.org", "pytorchjobs", "watch"), ("", "pods", "list")}
    assert granted(waiting) == least | watch


def test_the_rights_are_those_of_the_pods_account(weekly: Objects) -> None:
    spec = small_pods(weekly)["launcher"]["spec"]
    account = weekly["ServiceAccount", spec["serviceAccountName"]]
    assert spec["automountServiceAccountToken"] and not account["automountServiceAccountToken"]
    (binding,) = of_kind(weekly, "RoleBinding")
    (role,) = of_kind(weekly, "Role")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }
    subject = {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": "mt"}
    assert binding["subjects"] == [subject]
    assert role["metadata"]["namespace"] == account["metadata"]["namespace"] == "mt"


def test_launches_do_not_overlap_and_are_found_by_release(weekly: Objects) -> None:
    cron = cron_job(weekly)
    assert cron["concurrencyPolicy"] == "Forbid" and "suspend" not in cron
    labels = cron["jobTemplate"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/instance"] == "night" and labels["app.kubernetes.io/component"] == "launcher"


def test_a_launch_has_the_size_it_was_given(weekly: Objects, waiting: Objects) -> None:
    sizes = [small_pods(each)["launcher"]["spec"]["containers"][0]["resources"] for each in (weekly, waiting)]
    assert [each["limits"] for each in sizes] == [{"cpu": "0.5", "memory": "1Gi"}, {"cpu": "2", "memory": "3Gi"}]
    assert all(each["requests"] == each["limits"] for each in sizes)
