"""Jobs of a release that cannot start, have failed or were retried: what upgrades, rollbacks and applies do then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.resources import PODS
from mtft.runs import RETRIED_FILE
from tests.chart.conftest import find_helm
from tests.chart.helm import CHART, VERSIONS, Helm
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launcher, end_pod, until_state
from tests.cluster.playing import eventually
from tests.cluster.recipe import run_lines
from tests.cluster.releases import VALUES, Release, newer

ANOTHER = ("--set", "cluster.image=localhost/none:2")


@pytest.fixture(params=VERSIONS)
def release(request: pytest.FixtureRequest, control_plane: Cluster, tmp_path: Path) -> Release:
    """Give a release of the name that the recipe uses."""
    helm: Helm = find_helm(request.param, tmp_path, control_plane.kubeconfig)
    return Release(helm, control_plane, "night")


@pytest.fixture
def launcher(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Launcher:
    return Launcher(release.cluster.kubeconfig, release.namespace, tmp_path, capsys, monkeypatch)


def images(release: Release) -> set[str]:
    """Return the images that new pods of the jobs would have."""
    pods = (each["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"] for each in release.jobs().values())
    return {pod["containers"][0]["image"] for pod in pods}


def pod_images(release: Release) -> dict[str, str]:
    """Return the image of each pod that is not going."""
    pods = release.cluster.get("pods", "-n", release.namespace, "-l", f"mtft/batch={release.name}")
    there = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return {pod["metadata"]["name"]: pod["spec"]["containers"][0]["image"] for pod in there}


def budgets(release: Release) -> set[str]:
    """Return when the jobs were retried."""
    maps = release.cluster.get("configmaps", "-n", release.namespace, "-l", f"mtft/batch={release.name}")
    return {each["data"][RETRIED_FILE] for each in maps}


def fail(launcher: Launcher, name: str) -> None:
    pod = f"{name}-master-0"
    eventually(lambda: launcher.cluster.find(PODS, pod))
    end_pod(launcher.cluster, pod, 2)
    until_state(launcher.cluster, name, "Failed", eventually)


def test_pods_that_wait_and_a_failed_job_get_what_an_upgrade_puts_right(
    release: Release, launcher: Launcher, tmp_path: Path
) -> None:
    release("install", CHART, values=VALUES)
    release.running()
    failed, waits = sorted(release.jobs())
    fail(launcher, failed)
    way_on = f"kubectl delete pytorchjob {failed} -n {release.namespace}\n"
    said = release("upgrade", CHART, *ANOTHER, values=VALUES)
    assert way_on in said and f"pytorchjob {waits}" not in said
    assert (images(release), set(pod_images(release).values())) == ({"localhost/none:2"}, {"localhost/none:1"})

    run_lines(release, tmp_path, "kubectl delete pods -n")
    eventually(lambda: pod_images(release).get(f"{waits}-master-0") == "localhost/none:2")
    assert pod_images(release)[f"{failed}-master-0"] == "localhost/none:1", "no restart helps it"

    run_lines(release, tmp_path, "kubectl delete pytorchjobs -n")
    assert set(release.jobs()) == {waits}
    assert way_on not in release("upgrade", CHART, *ANOTHER, values=VALUES)
    eventually(lambda: pod_images(release).get(f"{failed}-master-0") == "localhost/none:2")
    assert set(release.jobs()) == {failed, waits}


def test_a_larger_budget_makes_no_other_job(release: Release, launcher: Launcher, tmp_path: Path) -> None:
    release("install", CHART, values=VALUES)
    jobs = release.jobs()
    for name in jobs:
        fail(launcher, name)
    run_lines(release, tmp_path, "kubectl delete pytorchjobs -n")
    more = ("--set", "cluster.max_restarts=30,cluster.deadline_minutes=600")
    release("upgrade", CHART, *more, values=VALUES)
    assert release.jobs().keys() == jobs.keys()
    for text in release.texts().values():
        assert (
            json.loads(text)["cluster"] | {"max_restarts": 30, "deadline_minutes": 600} == json.loads(text)["cluster"]
        )


def test_a_retried_job_keeps_its_fresh_budget(release: Release, launcher: Launcher, tmp_path: Path) -> None:
    release("install", CHART, values=VALUES)
    release.running()
    for name in release.jobs():
        fail(launcher, name)
        assert launcher("retry", name) == 0, launcher.err
    retried, pods, fresh = release.texts(), release.running().keys(), budgets(release)
    assert len(fresh) == 2
    held = release.cluster.get("configmaps", "-n", release.namespace, "-l", "app.kubernetes.io/part-of=mtft")
    assert len(held) == 2 and not any(each["metadata"].get("ownerReferences") for each in held), "Helm's own"
    release("upgrade", CHART, values=VALUES)
    assert (release.texts(), release.stored().keys()) == (retried, pods)

    # Whatever changes the jobs meets no conflict with what retry has made.
    release.helm("upgrade", release.name, newer(tmp_path), "--namespace", release.namespace, values=VALUES)
    release("upgrade", CHART, *ANOTHER, values=VALUES)
    assert images(release) == {"localhost/none:2"}
    release("rollback", "1")
    assert images(release) == {"localhost/none:1"} and release.stored().keys() == pods
    assert budgets(release) == fresh


@pytest.mark.parametrize("side", [(), ("--server-side",)], ids=["client", "server"])
def test_a_retried_job_takes_what_is_applied(release: Release, launcher: Launcher, side: tuple[str, ...]) -> None:
    def apply(*settings: str) -> None:
        values = {**VALUES, "chart": {}}
        text = release.helm("template", release.name, CHART, "--skip-tests", *settings, values=values)
        release.cluster.kubectl("apply", *side, "-n", release.namespace, "-f", "-", text=text)

    apply()
    for name in release.jobs():
        fail(launcher, name)
        assert launcher("retry", name) == 0, launcher.err
    fresh = budgets(release)
    apply(*ANOTHER)
    assert images(release) == {"localhost/none:2"} and budgets(release) == fresh


def test_the_recipes_line_removes_all_that_was_applied(release: Release, tmp_path: Path) -> None:
    applied = Release(release.helm, release.cluster, "nightly", release.namespace)
    everything = {"jobs": True, "network_policy": True, "service_account": True, "schedule": {"cron": "@daily"}}
    values = {**VALUES, "cluster": {**VALUES["cluster"], "service_account": "trainers"}, "chart": everything}
    text = release.helm("template", applied.name, CHART, "--no-hooks", values=values)
    release.cluster.kubectl("apply", "-n", release.namespace, "-f", "-", text=text)
    assert {each.partition("/")[0] for each in applied.left()} >= {"cronjob.batch", "serviceaccount"}
    run_lines(applied, tmp_path, "kubectl delete cronjobs,")
    eventually(lambda: not applied.left())
