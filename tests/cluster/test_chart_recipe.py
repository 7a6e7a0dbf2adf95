"""What only the chart does, on a real API server: the recipe's own commands, rights, hooks, and what is left."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.manifests import as_yaml
from mtft.models import MODELS
from tests.chart.conftest import find_helm
from tests.chart.helm import CHART, VERSIONS, Helm, HelmFailed
from tests.cluster.cluster import Cluster, KubectlFailed, write_kubeconfig
from tests.cluster.playing import FINISHED, Played, eventually
from tests.cluster.recipe import blocks, terminal
from tests.cluster.registry import registry
from tests.conftest import CHECKOUT

KINDS = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,pytorchjobs,cronjobs,jobs"
GIVEN = ("kube-root-ca.crt", "default")  # every namespace has these
IMAGE = {"image": "localhost/none:1", "gpus_per_node": 0}


@pytest.fixture(params=VERSIONS)
def helm(request: pytest.FixtureRequest, control_plane: Cluster, tmp_path: Path) -> Helm:
    return find_helm(request.param, tmp_path / "helm-home", control_plane.kubeconfig)


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    name = control_plane.namespace("chart", restricted=True)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def volume() -> Iterator[Path]:
    """Give a folder that could be the volume's; /tmp could not, because each pod has one of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        (Path(folder) / "train.jsonl").write_text('{"source": "Cod.", "target": "Morue.", "source_lang": "en"}\n')
        yield Path(folder)


@pytest.fixture
def charts(tmp_path: Path) -> Iterator[str]:
    with registry(tmp_path / "registry") as address:
        yield address


def jobs(cluster: Cluster, namespace: str) -> list[str]:
    return sorted(each["metadata"]["name"] for each in cluster.get("pytorchjobs", "-n", namespace))


def left(cluster: Cluster, namespace: str) -> list[str]:
    """Return what is in a namespace besides what every one has, and the claim."""
    found = cluster.kubectl("get", KINDS, "-n", namespace, "-o", "name", "--ignore-not-found").split()
    return [each for each in found if each.partition("/")[2] not in GIVEN]


def finish(cluster: Cluster, namespace: str, **message: Any) -> None:
    """Play the end of every job's pod, as a trainer would report it."""
    for name in jobs(cluster, namespace):
        played = Played(cluster, namespace, name)
        eventually(played.pods)
        played.ends(0, {"exit_code": 0, "finished": FINISHED, **message})


def account(cluster: Cluster, namespace: str, name: str, folder: Path) -> Path:
    """Return a kubeconfig with a real token of a service account."""
    token = cluster.kubectl("create", "token", name, "-n", namespace).strip()
    view = cluster.kubeconfig_content()
    view["users"] = [{"name": name, "user": {"token": token}}]
    view["contexts"][0]["context"].update(user=name, namespace=namespace)
    write_kubeconfig(folder / "kubeconfig", view)
    return folder / "kubeconfig"


def launch(
    cluster: Cluster,
    namespace: str,
    folder: Path,
    *,
    job: str = "",
    release: str = "weekly",
    also: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    """Run the command of the launcher's pod here, with the rights of its account and the document it mounts."""
    name = f"{release}-launcher"
    if job:
        eventually(lambda: cluster.get("pods", "-n", namespace, "-l", f"job-name={job}"))
        (pod,) = cluster.get("pods", "-n", namespace, "-l", f"job-name={job}")
        command, who = pod["spec"]["containers"][0]["command"], pod["spec"]["serviceAccountName"]
        assert who == name
    else:
        cron = cluster.get("cronjob", name, "-n", namespace)
        command = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    document = cluster.get("configmap", name, "-n", namespace)["data"]["config.json"]
    (folder / "config.json").write_text(document)
    arguments = [each.replace("/etc/mtft", str(folder)) for each in command[1:]]
    return subprocess.run(
        [sys.executable, "-m", "launcher", *arguments, *also],
        env={
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "KUBECONFIG": str(account(cluster, namespace, name, folder)),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_recipe(control_plane: Cluster, helm: Helm, charts: str, tmp_path: Path) -> None:
    namespace = f"recipe-{secrets.token_hex(3)}"
    # Only a registry without TLS needs the flag.
    shell = terminal(
        control_plane,
        helm,
        tmp_path / "shell",
        namespace,
        replaced={"oci://example.org/charts": f"--plain-http oci://{charts}/charts"},
    )
    said: dict[str, str] = {}
    try:
        for block in blocks():
            if block.needs_pods:
                continue
            before = jobs(control_plane, namespace) if "oci://" in block.text else None
            if "--for=condition=Succeeded" in block.text:
                finish(control_plane, namespace)
            printed = shell.run(block.text)
            said[block.text.strip().splitlines()[-1]] = printed
            assert before is None or jobs(control_plane, namespace) == before
            if "create job weekly-now" in block.text:
                done = launch(control_plane, namespace, tmp_path, job="weekly-now")
                assert done.returncode == 0, done.stdout + done.stderr
                assert len(jobs(control_plane, namespace)) == 4 + 5
            if "helm template" in block.text:
                assert printed.count(" created") == 2 * 4 and printed.count(" deleted") == 2 * 4, printed
        history = next(printed for command, printed in said.items() if "history" in command)
        assert "Rollback to" in history
        rights = next(printed for command, printed in said.items() if "--list" in command)
        assert "secrets" not in rights and "pods " not in rights
        assert eventually(lambda: not left(control_plane, namespace))
    finally:
        control_plane.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")


def install(helm: Helm, namespace: str, root: Path, **schedule: Any) -> None:
    values = {
        "data": {"train": f"{root}/train.jsonl"},
        "storage": {"root": str(root)},
        "cluster": IMAGE,
        "models": {key: {"enabled": False} for key in ("m2m100_418m", "mbart50_mmt_en", "mbart50_mmt_fr")},
        "chart": {"schedule": {"cron": "0 2 * * 0", **schedule}},
    }
    helm("upgrade", "weekly", CHART, "--install", "-n", namespace, values=values)


def test_new_data_make_new_jobs_and_unchanged_data_none(
    control_plane: Cluster, namespace: str, volume: Path, tmp_path: Path
) -> None:
    helm = find_helm("helm3", tmp_path / "home", control_plane.kubeconfig)
    install(helm, namespace, volume)
    assert jobs(control_plane, namespace) == []
    first = launch(control_plane, namespace, tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    made = jobs(control_plane, namespace)
    assert len(made) == 2
    again = launch(control_plane, namespace, tmp_path)
    assert again.returncode == 0 and again.stdout.count("already there") == 2, again.stdout + again.stderr
    assert jobs(control_plane, namespace) == made
    with (volume / "train.jsonl").open("a") as train:
        train.write('{"source": "Herring.", "target": "Hareng.", "source_lang": "en"}\n')
    assert launch(control_plane, namespace, tmp_path).returncode == 0
    assert len(jobs(control_plane, namespace)) == 4 and set(made) < set(jobs(control_plane, namespace))
    # The release goes, what the schedule made stays until somebody removes it.
    helm("uninstall", "weekly", "-n", namespace, "--wait")
    assert len(jobs(control_plane, namespace)) == 4


def test_a_launch_that_waits_takes_no_gain_for_success(
    control_plane: Cluster, namespace: str, volume: Path, tmp_path: Path
) -> None:
    helm = find_helm("helm4", tmp_path / "home", control_plane.kubeconfig)
    install(helm, namespace, volume, wait=True)
    helm("upgrade", "weekly", CHART, "-n", namespace, "--reuse-values", "--set", "chart.schedule.wait=false")
    assert launch(control_plane, namespace, tmp_path).returncode == 0
    finish(control_plane, namespace, verdict="not better")
    helm("rollback", "weekly", "1", "-n", namespace)
    cron = control_plane.get("cronjob", "weekly-launcher", "-n", namespace)
    assert "--wait" in cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    done = launch(control_plane, namespace, tmp_path, also=("--timeout", "60s"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("not better") == 2


def test_the_launcher_may_no_more_than_its_role_says(
    control_plane: Cluster, namespace: str, volume: Path, tmp_path: Path
) -> None:
    install(find_helm("helm4", tmp_path / "home", control_plane.kubeconfig), namespace, volume)
    assert launch(control_plane, namespace, tmp_path).returncode == 0
    config = str(account(control_plane, namespace, "weekly-launcher", tmp_path))
    (name, *_) = jobs(control_plane, namespace)
    for refused in (
        ("delete", "pytorchjob", name, "-n", namespace),
        ("get", "secrets", "-n", namespace),
        ("get", "pods", "-n", namespace),
        ("create", "configmap", "x", "--from-literal=a=b", "-n", "default"),
    ):
        with pytest.raises(KubectlFailed, match="orbidden"):
            control_plane.kubectl(*refused, "--kubeconfig", config)
    assert name in control_plane.kubectl("get", "pytorchjob", name, "-n", namespace, "--kubeconfig", config)


def end_prefetch(cluster: Cluster, namespace: str, phase: str) -> None:
    """Play the end of a prefetch pod that has not ended yet."""

    def running() -> list[str]:
        pods = cluster.get("pods", "-n", namespace, "-l", "app.kubernetes.io/component=prefetch")
        return [each["metadata"]["name"] for each in pods if each["status"].get("phase") in (None, "Pending")]

    name = eventually(running)[0]
    code = 0 if phase == "Succeeded" else 2
    container = {"name": "prefetch", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    state = {"terminated": {"exitCode": code, "reason": "Completed", "finishedAt": "2026-01-01T00:00:00Z"}}
    status = {"phase": phase, "containerStatuses": [{**container, "state": state}]}
    text = json.dumps({"status": status})
    cluster.kubectl("patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", text)


def test_jobs_are_made_after_the_prefetch_and_not_without_it(
    control_plane: Cluster, helm: Helm, namespace: str, tmp_path: Path
) -> None:
    values = tmp_path / "values.json"
    chart = {"prefetch": {"enabled": True}, "network_policy": True, "service_account": True}
    document = {"data": {"train": "/mnt/mtft/train.jsonl"}, "cluster": {**IMAGE, "service_account": "t"}}
    values.write_text(json.dumps({**document, "chart": chart}))

    def start() -> subprocess.Popen[str]:
        return helm.start("install", "night", CHART, "-n", namespace, "-f", values, "--timeout", "60s")

    def policies() -> list[Any]:
        return list(control_plane.get("networkpolicies", "-n", namespace))

    failing = start()
    for _ in range(2):  # one try more
        end_prefetch(control_plane, namespace, "Failed")
    _, errors = failing.communicate(timeout=90)
    assert failing.returncode == 1 and "pre-install" in errors
    assert jobs(control_plane, namespace) == []
    helm("uninstall", "night", "-n", namespace, "--wait")
    assert left(control_plane, namespace) == []

    fetching = start()
    eventually(lambda: control_plane.get("pods", "-n", namespace))
    assert jobs(control_plane, namespace) == []
    assert [each["metadata"]["name"] for each in policies()] == ["night-prefetch"], "of the release none is there yet"
    end_prefetch(control_plane, namespace, "Succeeded")
    _, errors = fetching.communicate(timeout=90)
    assert fetching.returncode == 0, errors
    assert len(jobs(control_plane, namespace)) == len(MODELS)
    assert not control_plane.get("jobs", "-n", namespace), "the hook is gone"
    assert "night-prefetch" not in [each["metadata"]["name"] for each in policies()]
    helm("uninstall", "night", "-n", namespace, "--wait")
    assert eventually(lambda: not left(control_plane, namespace))
    assert control_plane.get("persistentvolumeclaim", "mtft", "-n", namespace)


def test_the_claim_it_made_stays_and_is_taken_over_again(control_plane: Cluster, helm: Helm, namespace: str) -> None:
    values: dict[str, Any] = {
        "data": {"train": "/mnt/mtft/train.jsonl"},
        "cluster": {**IMAGE, "claim": "own"},
        "chart": {"jobs": False, "claim": {"create": True, "size": "1Gi"}},
    }
    for _ in range(2):
        helm("install", "night", CHART, "-n", namespace, values=values)
        claim = control_plane.get("persistentvolumeclaim", "own", "-n", namespace)
        helm("uninstall", "night", "-n", namespace, "--wait")
    again = control_plane.get("persistentvolumeclaim", "own", "-n", namespace)
    assert again["metadata"]["uid"] == claim["metadata"]["uid"]
    with pytest.raises(HelmFailed, match="own"):
        helm("install", "other", CHART, "-n", namespace, values=values)


def test_the_server_takes_everything_and_restricted_every_pod(
    control_plane: Cluster, helm: Helm, namespace: str
) -> None:
    chart = {
        "claim": {"create": True},
        "service_account": True,
        "network_policy": True,
        "schedule": {"cron": "0 2 * * 0", "time_zone": "America/St_Johns", "wait": True},
        "prefetch": {"enabled": True},
        "test": {"gpu": True},
    }
    cluster = {**IMAGE, "claim": "own", "service_account": "t", "secrets": {"HF_TOKEN": {"name": "hub", "key": "k"}}}
    values = {"data": {"train": "/mnt/mtft/train.jsonl"}, "cluster": cluster, "chart": chart}
    objects = [each for each in yaml.safe_load_all(helm("template", "night", CHART, values=values)) if each]
    for each in objects:
        found = each["spec"] if each["kind"] in ("CronJob", "Job") else {}
        template = found.get("jobTemplate", {}).get("spec", found).get("template")
        if template:
            metadata = {**template["metadata"], "name": f"pod-of-{each['metadata']['name']}"}
            objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
    # The accounts that pods name have to be there.
    accounts = [each for each in objects if each["kind"] == "ServiceAccount"]
    control_plane.kubectl("apply", "-n", namespace, "-f", "-", text=as_yaml(accounts))
    strict = ("create", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-")
    sent = [each for each in objects if each["kind"] != "ServiceAccount"]
    printed = control_plane.kubectl(*strict, text=as_yaml(sent)).splitlines()
    assert len(printed) == len(sent)
    assert sum(each["kind"] == "Pod" for each in sent) == 3
