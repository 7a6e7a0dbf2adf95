"""What Helm says after an install fits the release: names, sizes and namespaces of what was made, and no other."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.chart.conftest import find_helm
from tests.chart.helm import CHART, VERSIONS, Helm
from tests.chart.rendered import Objects, of_kind, whole

VALUES: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
    "cluster": {"image": "example.org/mtft:1.0", "claim": "shared", "namespace": "mt"},
    "models": {
        "m2m100_418m": {
            "cluster": {"nodes": 2, "gpus_per_node": 4, "claim": "own"},
            "storage": {"root": "/mnt/own"},
        },
        "mbart50_mmt_fr": {"enabled": False},
        "mbart50_mmt_en": {"enabled": False},
        "opus_mt_en_fr": {"enabled": False},
    },
}
ONE = {key: {"enabled": False} for key in VALUES["models"]}
WEEKLY = {"cron": "0 2 * * 0", "time_zone": "Europe/Paris"}
CLIENT = re.compile(r" (?:kubectl|mtft-launch) .*")


@pytest.fixture(scope="module")
def helm4(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Give the Helm that renders notes without a cluster; Helm 3 does not."""
    return find_helm(VERSIONS[-1], tmp_path_factory.mktemp("notes"))


def told(helm: Helm, chart: dict[str, Any], **more: Any) -> tuple[str, Objects]:
    """Return the notes of a release in namespace home, whose jobs go to mt, and its objects."""
    values = {**VALUES, **more, "chart": chart}
    text = helm("install", "night", CHART, "--dry-run=client", "--namespace", "home", values=values)
    return text.rpartition("NOTES:")[2], whole(helm, values)


def jobs(objects: Objects) -> dict[str, str]:
    """Return the name of each model's job."""
    return {
        each["metadata"]["labels"]["mtft/model"]: each["metadata"]["name"] for each in of_kind(objects, "PyTorchJob")
    }


def test_each_job_is_named_with_its_pods_and_gpus(helm4: Helm) -> None:
    said, objects = told(helm4, {})
    names = jobs(objects)
    assert "\n2 jobs in namespace mt, with a ConfigMap of the same name:\n" in said
    assert f"\n  {names['m2m100_418m']}  m2m100_418m, 2 pods of 4 GPUs\n" in said
    assert f"\n  {names['opus_mt_fr_en']}  opus_mt_fr_en, 1 pod of 1 GPU\n" in said
    assert "On claims own, shared adapters lie in" in said
    assert "An upgrade with the same configuration changes nothing" in said
    assert "Another `cluster` or `storage` keeps the jobs" in said
    assert "kubectl delete pods -n mt -l mtft/batch=night --field-selector status.phase=Pending\n" in said
    assert "\nFailed" not in said
    assert "Made in namespace" not in said and "CronJob" not in said
    first = names["m2m100_418m"]
    assert f"mtft-launch logs {first} --follow -n mt\n" in said and f"mtft-launch fetch {first} -n mt\n" in said
    assert f"training.kubeflow.org/job-name={first},training.kubeflow.org/replica-type=master" in said


def test_one_job_is_no_more_than_one(helm4: Helm) -> None:
    said, _ = told(helm4, {}, models=ONE)
    assert "\n1 job in namespace mt" in said and "On claim shared adapters lie in" in said


def test_a_schedule_says_when_and_how_to_launch_at_once(helm4: Helm) -> None:
    said, objects = told(helm4, {"schedule": WEEKLY})
    assert not jobs(objects)
    assert "CronJob night-launcher makes 2 jobs in namespace mt, 0 2 * * 0 Europe/Paris. At once:\n" in said
    (run,) = re.findall(r"kubectl create job -n mt (\S+) --from=cronjob/night-launcher\n", said)
    assert f"kubectl logs -n mt -f job/{run}\n" in said
    before = said.partition("kubectl create job")[0]
    assert f"kubectl delete job -n mt {run} --ignore-not-found" in before, "the name is taken the second time"
    assert not of_kind(objects, "Job") and "No job was made" not in said
    assert "An upgrade with the same configuration" not in said
    # The names of its jobs are not known yet.
    assert "-l mtft/batch=night,training.kubeflow.org/replica-type=master" in said
    assert "mtft-launch fetch m2m100_418m -n mt\n" in said and "mtft-launch logs" not in said
    assert "ServiceAccount night-launcher\n" in said
    assert "Role and RoleBinding night-launcher, for ServiceAccount night-launcher\n" in said


def test_a_suspended_schedule_with_an_account_of_the_users_says_so(helm4: Helm) -> None:
    chart = {"schedule": {**WEEKLY, "suspend": True, "service_account": "mine"}}
    said, _ = told(helm4, chart)
    assert "Europe/Paris, but is suspended. At once:" in said
    assert "Role and RoleBinding night-launcher, for ServiceAccount mine\n" in said
    assert "ServiceAccount night-launcher" not in said
    assert "Role" not in told(helm4, {**chart, "rbac": False})[0]


def test_a_release_that_makes_no_job_says_so(helm4: Helm) -> None:
    said, _ = told(helm4, {"jobs": False, "claim": {"create": True}})
    assert "No job was made: chart.jobs is false." in said
    assert "PersistentVolumeClaim shared, which stays after `helm uninstall`" in said
    for word in ("Watch", "Follow", "Wait", "Fetch", "An upgrade"):
        assert word not in said


def test_what_else_was_made_is_named_as_it_is(helm4: Helm) -> None:
    chart = {"jobs": True, "service_account": True, "network_policy": True, "schedule": WEEKLY}
    chart["prefetch"] = {"enabled": True}
    said, objects = told(helm4, chart, cluster={**VALUES["cluster"], "service_account": "trainers"})
    made = said.partition("Made in namespace mt:\n")[2].partition("\n\n")[0]
    for kind in ("ServiceAccount", "ConfigMap", "NetworkPolicy", "Role", "RoleBinding"):
        for each in of_kind(objects, kind):
            name = each["metadata"]["name"]
            assert name in jobs(objects).values() or any(kind in line and name in line for line in made.split("\n"))
    assert "a NetworkPolicy for each job" in made and "Job, NetworkPolicy and ConfigMap night-prefetch" in made
    assert "PersistentVolumeClaim" not in made
    said, _ = told(helm4, {"prefetch": {"enabled": True}})
    assert "Job and ConfigMap night-prefetch" in said


@pytest.mark.parametrize("chart", [{}, {"schedule": WEEKLY}], ids=["jobs", "schedule"])
def test_every_command_names_the_right_namespace(helm4: Helm, chart: dict[str, Any]) -> None:
    """The release lies in Helm's namespace, its jobs in that of ``cluster.namespace``."""
    said, _ = told(helm4, chart)
    commands = CLIENT.findall(said)
    assert len(commands) >= 8
    assert [each for each in commands if " -n mt" not in each] == []
    assert "Test     helm test night -n home\n" in said and "Remove   helm uninstall night -n home\n" in said
