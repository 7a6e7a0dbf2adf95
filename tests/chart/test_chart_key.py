"""What only a chart makes, asked for below ``chart``: claim, accounts, policies, schedule, prefetch, self-test."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli import main
from launcher.surroundings import claim, network_policy
from mtft.models import MODELS
from tests.chart.helm import CHART, Helm, HelmFailed, by_name

VALUES: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
    "cluster": {"image": "example.org/mtft:1.0"},
}
WEEKLY = {"schedule": {"cron": "0 2 * * 0"}}
Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture
def volume() -> Iterator[Path]:
    """Give a folder that could be the volume's; /tmp could not, because each pod has one of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def rendered(helm: Helm, chart: dict[str, Any], *arguments: str, release: str = "rel", **more: Any) -> Objects:
    cluster = {**VALUES["cluster"], **more.pop("cluster", {})}
    return by_name(helm.template(release, *arguments, values={**VALUES, **more, "cluster": cluster, "chart": chart}))


def self_test(helm: Helm, chart: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    """Return the pod of ``helm test``."""
    values = {**VALUES, "cluster": {**VALUES["cluster"], **cluster}, "chart": chart}
    text = helm("template", "rel", CHART, "--show-only", "templates/chart/self-test.yaml", values=values)
    pod: dict[str, Any] = yaml.safe_load(text)
    return pod


def kinds(objects: Objects) -> set[str]:
    return {kind for kind, _ in objects}


def pod_specs(objects: Objects) -> list[dict[str, Any]]:
    """Return the pod specifications of everything but the trainers."""
    specs = []
    for (kind, _), each in objects.items():
        if kind == "CronJob":
            specs.append(each["spec"]["jobTemplate"]["spec"]["template"]["spec"])
        elif kind == "Job":
            specs.append(each["spec"]["template"]["spec"])
    return specs


def test_nothing_is_made_that_is_not_asked_for(helm: Helm) -> None:
    assert kinds(rendered(helm, {})) == {"ConfigMap", "PyTorchJob"}
    assert kinds(rendered(helm, {"jobs": False})) == set()


def test_a_part_left_empty_is_its_default(helm: Helm) -> None:
    empty = dict.fromkeys(("jobs", "claim", "schedule", "prefetch", "test"))
    assert rendered(helm, empty) == rendered(helm, {})


def test_the_claim_is_the_launchers_and_kept(helm: Helm) -> None:
    asked = {"create": True, "size": "5Ti", "storage_class": "fast"}
    objects = rendered(helm, {"claim": asked, "jobs": False}, cluster={"claim": "team", "namespace": "mt"})
    (made,) = objects.values()
    assert made["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    wanted = claim("team", "5Ti", "fast", "mt")
    del wanted["metadata"]["labels"]["app.kubernetes.io/managed-by"]
    assert made == wanted


@pytest.mark.parametrize("size", ["100k", "0.5Ti", ".5Gi", "1e12", "12E", "1.5E3"])
def test_the_size_of_a_claim_is_what_kubernetes_reads(helm: Helm, size: str) -> None:
    """tests/cluster asks the server about each."""
    (made,) = rendered(helm, {"claim": {"create": True, "size": size}, "jobs": False}).values()
    assert made["spec"]["resources"]["requests"]["storage"] == size


def test_a_long_name_of_a_claim_is_cut_in_its_label(helm: Helm) -> None:
    name = f"{'a' * 62}.{'b' * 63}"
    (made,) = rendered(helm, {"claim": {"create": True}, "jobs": False}, cluster={"claim": name}).values()
    label = made["metadata"]["labels"]["app.kubernetes.io/instance"]
    assert (made["metadata"]["name"], label) == (name, "a" * 62)
    assert claim(name, "1Gi", None, None)["metadata"]["labels"]["app.kubernetes.io/instance"] == label


def test_each_job_has_the_launchers_network_policy(helm: Helm) -> None:
    objects = rendered(helm, {"network_policy": True}, cluster={"queue": "team", "annotations": {"a": "b"}})
    jobs = [each for (kind, _), each in objects.items() if kind == "PyTorchJob"]
    assert len(jobs) == len(MODELS)
    for job in jobs:
        assert objects["NetworkPolicy", job["metadata"]["name"]] == network_policy(job)
    (helpers,) = (each for (kind, name), each in objects.items() if (kind, name) == ("NetworkPolicy", "rel-helpers"))
    assert "ingress" not in helpers["spec"] and "Ingress" in helpers["spec"]["policyTypes"]


def test_a_schedule_makes_the_jobs_helm_would_make_of_the_same_data(
    helm: Helm, volume: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(volume / "none"))
    train = volume / "train.jsonl"
    train.write_text('{"source": "Cod.", "target": "Morue.", "source_lang": "en"}\n')
    more: dict[str, Any] = {
        "train": {"epochs": 0.5},
        "models": {"m2m100_418m": {"enabled": False}, "opus_mt_en_fr": {"lora": {"r": 8}}},
        "storage": {"root": str(volume)},
    }
    scheduled = rendered(helm, WEEKLY, data={"train": str(train)}, **more)
    assert "PyTorchJob" not in kinds(scheduled)
    (volume / "config.json").write_text(scheduled["ConfigMap", "rel-launcher"]["data"]["config.json"])
    command = pod_specs(scheduled)[0]["containers"][0]["command"]
    arguments = [each.replace("/etc/mtft", str(volume)) for each in command[1:]]
    assert main([*arguments, "--dry-run", "-o", "json"]) == 0
    launched = by_name(json.loads(capsys.readouterr().out)["items"])
    known = {"train": str(train), "sha256": hashlib.sha256(train.read_bytes()).hexdigest()}
    made = rendered(helm, {}, data=known, **more)
    assert len(launched) == 8 and launched.keys() == made.keys()
    assert [each.get("spec") for _, each in sorted(launched.items())] == [
        each.get("spec") for _, each in sorted(made.items())
    ]


def test_a_schedule_takes_data_of_its_own_image(
    helm: Helm, volume: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the image is this machine; its trainers have the same one."""
    monkeypatch.setenv("KUBECONFIG", str(volume / "none"))
    (volume / "train.jsonl").write_text("one\n")
    data = {"train": str(volume / "train.jsonl"), "dev": str(volume / "train.jsonl")}

    def launch(**more: Any) -> int:
        objects = rendered(helm, WEEKLY, data=data, **more)
        (volume / "config.json").write_text(objects["ConfigMap", "rel-launcher"]["data"]["config.json"])
        launcher = pod_specs(objects)[0]["containers"][0]
        for variable in launcher["env"]:
            monkeypatch.setenv(variable["name"], variable["value"])
        return main([*(each.replace("/etc/mtft", str(volume)) for each in launcher["command"][1:]), "--dry-run"])

    assert launch() == 0, capsys.readouterr().err
    assert hashlib.sha256(b"one\n").hexdigest() in capsys.readouterr().out
    another = {"opus_mt_en_fr": {"cluster": {"image": "example.org/mtft:2"}}}
    mounted = {"opus_mt_en_fr": {"storage": {"root": str(volume)}, "cluster": {"claim": "other"}}}
    for models in (another, mounted):
        assert launch(models=models) == 2
        assert f"{volume}/train.jsonl is a path of this machine" in capsys.readouterr().err


def test_a_schedule_mounts_its_data_read_only_and_has_few_rights(helm: Helm) -> None:
    more: dict[str, Any] = {
        "models": {"opus_mt_en_fr": {"storage": {"root": "/mnt/other"}, "cluster": {"claim": "other"}}}
    }
    objects = rendered(helm, WEEKLY, **more)
    cron = objects["CronJob", "rel-launcher"]["spec"]
    assert (cron["concurrencyPolicy"], cron["timeZone"]) == ("Forbid", "Etc/UTC")
    assert "suspend" not in cron
    job = cron["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] == 3600
    pod = job["template"]["spec"]
    mounts = {each["mountPath"]: each for each in pod["containers"][0]["volumeMounts"]}
    claims = {each["name"]: each.get("persistentVolumeClaim", {}).get("claimName") for each in pod["volumes"]}
    for root, name in (("/mnt/mtft", "mtft"), ("/mnt/other", "other")):
        assert mounts[root]["readOnly"] and claims[mounts[root]["name"]] == name
    rules = objects["Role", "rel-launcher"]["rules"]
    verbs = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert verbs == {("pytorchjobs", "get"), ("pytorchjobs", "create")} | {
        ("configmaps", verb) for verb in ("get", "create", "patch", "delete")
    }


def test_what_a_schedule_may_be_told(helm: Helm) -> None:
    told = {"cron": "@weekly", "time_zone": "America/St_Johns", "suspend": True, "wait": True, "keep_failed": 0}
    objects = rendered(helm, {"schedule": {**told, "service_account": "mine"}})
    cron = objects["CronJob", "rel-launcher"]["spec"]
    assert (cron["schedule"], cron["timeZone"], cron["suspend"]) == ("@weekly", "America/St_Johns", True)
    assert cron["failedJobsHistoryLimit"] == 0
    job = cron["jobTemplate"]["spec"]
    assert "activeDeadlineSeconds" not in job
    assert {"--wait", "--accept-not-better"} <= set(job["template"]["spec"]["containers"][0]["command"])
    assert job["template"]["spec"]["serviceAccountName"] == "mine" and "ServiceAccount" not in kinds(objects)
    assert objects["RoleBinding", "rel-launcher"]["subjects"][0]["name"] == "mine"
    bare = rendered(helm, {"rbac": False, **WEEKLY})
    assert not {"Role", "RoleBinding"} & kinds(bare) and ("ServiceAccount", "rel-launcher") in bare


@pytest.mark.parametrize(
    "cron",
    [
        *("*/5 0-23/2 1,15,31 jan-DEC SUN-6", "59 23 ? 12 *", "00 08 * * mon,FRI", "5-5 08-09 * * 0-SAT"),
        *("0 2 * * Mon-Fri", "0  2 * Jan\tSun ", "*/100 2 * * 0"),
    ],
)
def test_cron_may_be_what_kubernetes_reads(helm: Helm, cron: str) -> None:
    """tests/cluster asks the server about such ones."""
    assert rendered(helm, {"schedule": {"cron": cron}})["CronJob", "rel-launcher"]["spec"]["schedule"] == cron


def test_every_pod_is_restricted_and_the_launchers_alone_has_a_token(helm: Helm) -> None:
    objects = rendered(helm, {**WEEKLY, "prefetch": {"enabled": True}}, cluster={"run_as_user": 1234})
    specs = [*pod_specs(objects), self_test(helm, {}, run_as_user=1234)["spec"]]
    assert len(specs) == 3
    for spec in specs:
        names = [each["name"] for each in spec["containers"]]
        assert spec["automountServiceAccountToken"] is (names == ["launcher"])
        assert spec["securityContext"]["runAsUser"] == 1234 and spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"] == container["resources"]["requests"]
            token = [each for each in container["volumeMounts"] if each["name"] == "token"]
            assert bool(token) is (container["name"] == "cluster")


@pytest.mark.parametrize(("create", "event"), [(False, "pre-install,pre-upgrade"), (True, "post-install,post-upgrade")])
def test_prefetch_runs_when_the_claim_is_there(helm: Helm, create: bool, event: str) -> None:
    objects = rendered(helm, {"prefetch": {"enabled": True}, "claim": {"create": create}})
    job, mounted = objects["Job", "rel-prefetch"], objects["ConfigMap", "rel-prefetch"]
    for each in (job, mounted):
        assert each["metadata"]["annotations"]["helm.sh/hook"] == event
    weights = [int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in (mounted, job)]
    assert weights == sorted(set(weights)), "the document is there before the pod"
    (trainer,) = (each for (kind, name), each in objects.items() if kind == "ConfigMap" and "opus-mt-en-fr" in name)
    assert mounted["data"] == trainer["data"]
    (spec,) = pod_specs(objects)
    assert {"name": "HF_HOME", "value": "/mnt/mtft/cache/hub"} in spec["containers"][0]["env"]


def test_the_self_test_asks_for_what_the_jobs_need(helm: Helm) -> None:
    secrets = {
        "HF_TOKEN": {"name": "hub", "key": "token"},
        "WANDB_API_KEY": {"name": "tracker", "key": "key"},
        "OTHER": {"name": "other", "key": "o", "optional": True},
    }
    pod = self_test(helm, {"test": {"gpu": True}}, secrets=secrets, gpu_resource="example.org/gpu")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    trainer = pod["spec"]["containers"][0]
    assert trainer["command"][-2:] == ["--gpus=1", "--secret=HF_TOKEN=hub/token"]
    assert trainer["resources"]["limits"]["example.org/gpu"] == "1"
    sources = {each["name"]: each["valueFrom"] for each in trainer["env"] if "valueFrom" in each}
    given = {name: source["secretKeyRef"] for name, source in sources.items() if "secretKeyRef" in source}
    assert set(given) == set(secrets) and all(each["optional"] for each in given.values())


def test_an_account_for_the_trainers_has_no_token(helm: Helm) -> None:
    objects = rendered(helm, {"service_account": True}, cluster={"service_account": "trainer"})
    assert objects["ServiceAccount", "trainer"]["automountServiceAccountToken"] is False
    assert not {"Role", "RoleBinding"} & kinds(objects)
    models = {"opus_mt_en_fr": {"cluster": {"service_account": "own"}}}
    both = rendered(helm, {"service_account": True}, cluster={"service_account": "trainer"}, models=models)
    assert {name for kind, name in both if kind == "ServiceAccount"} == {"trainer", "own"}


def test_one_root_written_in_two_ways_is_mounted_once(helm: Helm) -> None:
    objects = rendered(helm, WEEKLY, models={"opus_mt_en_fr": {"storage": {"root": "/mnt/mtft/"}}})
    mounts = [each["mountPath"] for each in pod_specs(objects)[0]["containers"][0]["volumeMounts"]]
    assert [each for each in mounts if each.startswith("/mnt")] == ["/mnt/mtft"]


def test_names_of_long_releases_stay_valid_and_apart(helm: Helm) -> None:
    names = [f"{'long-' * 10}{end}" for end in ("ab", "cd")]
    made = [rendered(helm, {**WEEKLY, "prefetch": {"enabled": True}}, release=name) for name in names]
    for objects in made:
        assert all(len(name) <= (52 if kind == "CronJob" else 63) for kind, name in objects)
    assert not made[0].keys() & made[1].keys()


@pytest.mark.parametrize(
    ("chart", "more", "words"),
    [
        ({"service_account": True}, {}, ["chart.service_account", "cluster.service_account names no account"]),
        (
            {"service_account": True},
            {"cluster": {"service_account": "default"}},
            ["  cluster.service_account: got default, which every namespace has already", "1 problem"],
        ),
        (
            {"service_account": True},
            {"models": {"opus_mt_en_fr": {"cluster": {"service_account": "default"}}}},
            ["  models.opus_mt_en_fr.cluster.service_account: got default"],
        ),
        *(
            (
                {"schedule": {field: True}},
                {},
                [f"chart.schedule.{field}: there is no schedule; set chart.schedule.cron"],
            )
            for field in ("suspend", "wait")
        ),
        (
            WEEKLY,
            {"models": {"opus_mt_en_fr": {"cluster": {"claim": "other"}}}},
            ["models.opus_mt_en_fr.cluster.claim: other is mounted at /mnt/mtft", "storage.root"],
        ),
        (
            WEEKLY,
            {"models": {"opus_mt_en_fr": {"cluster": {"claim": "other"}, "storage": {"root": "/mnt/mtft/"}}}},
            ["models.opus_mt_en_fr.cluster.claim: other is mounted at /mnt/mtft"],
        ),
        (
            WEEKLY,
            {"models": {"opus_mt_en_fr": {"cluster": {"service_account": "rel-launcher"}}}},
            ["models.opus_mt_en_fr.cluster.service_account and chart.schedule.service_account: both are rel-launcher"],
        ),
        (
            {"schedule": {"cron": "@daily", "service_account": "t"}},
            {"cluster": {"service_account": "t"}},
            ["  cluster.service_account and chart.schedule.service_account: both are t"],
        ),
        (
            {"schedule": {"cron": "@daily", "service_account": "default"}},
            {},
            ["  cluster.service_account and chart.schedule.service_account: both are default"],
        ),
        *(
            ({"schedule": {"cron": cron}}, {}, ["chart.schedule.cron: range", "goes backwards"])
            for cron in ("5-1 2 * * 0", "0 2 * * FRI-1", "0 09-08/2 * * *", "0 2 * 1,DEC-feb *")
        ),
        *(
            (
                {"schedule": {"cron": cron}},
                {},
                [f'  chart.schedule.cron: has the wrong form; got "{cron}"; allowed: five fields', "1 problem"],
            )
            for cron in ("60 2 * * 0", "0 24 * * 0", "0 2 0 * 0", "0 2 * 13 *", "0 2 * * 7", "*/0 2 * * *", "0 2 * *")
        ),
        ({"schedule": {"cron": "every night-day"}}, {}, ["chart.schedule.cron: has the wrong form", "1 problem"]),
        ({"schedule": {"cron": ""}}, {}, ["chart.schedule.cron: has the wrong form"]),
        ({"schedule": {"cron": "@weekly", "time_zone": "Local"}}, {}, ["chart.schedule.time_zone: got Local"]),
        ({"schedule": {"cron": "0 2 * * 0", "timezone": "UTC"}}, {}, ["timezone"]),
        ({"schedule": "@weekly"}, {}, ["schedule"]),
        *(({"claim": {"create": True, "size": size}}, {}, ["/chart/claim/size"]) for size in ("much", "100K", "0Gi")),
        ({"claim": {"create": "yes"}}, {}, ["create"]),
    ],
)
def test_refusals_name_the_key(helm: Helm, chart: dict[str, Any], more: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(HelmFailed) as refused:
        rendered(helm, chart, **more)
    for word in words:
        assert word in str(refused.value)
