"""Failed upgrades, hooks that are left, claims that grew, jobs of the launcher: the ways out that the recipe names."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from launcher.manifests import as_yaml
from launcher.surroundings import claim
from mtft.cluster_names import Cron, Size
from tests.chart.conftest import find_helm
from tests.chart.helm import CHART, VERSIONS, Helm, HelmFailed
from tests.cluster.cluster import Cluster, KubectlFailed
from tests.cluster.launching import Launcher
from tests.cluster.playing import eventually
from tests.cluster.recipe import run_lines
from tests.cluster.releases import VALUES, Release

CLAIM = {"create": True, "size": "1Gi", "storage_class": "none"}
SCHEDULE = {"schedule": {"cron": "@daily"}, "jobs": True}
CLAIMED = "persistentvolumeclaim/adapters"
BATCH = {key: value for key, value in VALUES.items() if key != "chart"}


@pytest.fixture(params=VERSIONS)
def helm(request: pytest.FixtureRequest, control_plane: Cluster, tmp_path: Path) -> Helm:
    return find_helm(request.param, tmp_path, control_plane.kubeconfig)


@pytest.fixture
def release(helm: Helm, control_plane: Cluster) -> Release:
    """Give a release of the name that the recipe uses."""
    return Release(helm, control_plane, "night")


def force(release: Release) -> list[str]:
    """Return what Helm 4 needs to take a field that somebody else has written."""
    return ["--force-conflicts"] if release.helm.name == "helm4" else []


def fail_to_upgrade(release: Release, chart: dict[str, Any], seed: int) -> None:
    """Change the configuration together with what no claim that is there can take."""
    claim = {**CLAIM, "storage_class": "other"}
    with pytest.raises(HelmFailed, match="spec is immutable"):
        release("upgrade", CHART, values={**VALUES, "train": {"seed": seed}, "chart": {**chart, "claim": claim}})


def test_what_failed_upgrades_leave_is_removed(release: Release, tmp_path: Path) -> None:
    chart = {"claim": CLAIM, "network_policy": True}
    release("install", CHART, values={**VALUES, "chart": chart})
    first = set(release.jobs())
    for seed in (1, 2):
        fail_to_upgrade(release, {**chart, **SCHEDULE}, seed)
    assert len(release.jobs()) == 3 * len(first)
    if release.helm.name == "helm3":
        with pytest.raises(HelmFailed, match="resourceVersion: Invalid value"):
            release("rollback", "1")
    release("upgrade", CHART, values={**VALUES, "chart": chart})
    run_lines(release, tmp_path, "kubectl delete cronjobs,")
    eventually(lambda: {each for each in release.left() if "helm.release" not in each} == {CLAIMED})
    release("upgrade", CHART, values={**VALUES, "chart": chart})
    assert set(release.jobs()) == first, "the way back"

    fail_to_upgrade(release, {**chart, **SCHEDULE}, 3)
    release("upgrade", CHART, values={**VALUES, "chart": chart})
    run_lines(release, tmp_path / "end", "helm uninstall")
    assert len(release.jobs()) == len(first), "Helm does not know them"
    assert "cronjob.batch/night-launcher" in release.left()
    run_lines(release, tmp_path / "end", "kubectl delete cronjobs,")
    eventually(lambda: release.left() == {CLAIMED})


def test_hooks_of_a_helm_that_was_killed_are_removed(release: Release, tmp_path: Path) -> None:
    values = {**VALUES, "chart": {"prefetch": {"enabled": True}, "jobs": False, "network_policy": True}}
    release("install", CHART, "--no-hooks", values=values)
    hooks = [f"--show-only=templates/chart/{name}.yaml" for name in ("prefetch", "self-test")]
    text = release.helm("template", release.name, CHART, *hooks, values=values)
    assert text.count("kind: NetworkPolicy") == 1
    place = ("--namespace", release.namespace)
    release.cluster.kubectl("create", *place, "-f", "-", text=text)
    release("uninstall")
    assert {each.partition("/")[2] for each in release.left()} >= {"night-self-test", "night-prefetch"}
    run_lines(release, tmp_path, "kubectl delete pods,")
    eventually(lambda: not release.left())


def _fetches(release: Release) -> bool:
    return any(f"pod/{release.name}-prefetch" in each for each in release.left())


def test_a_helm_that_was_killed_leaves_a_lock_that_a_rollback_lifts(release: Release, tmp_path: Path) -> None:
    """It waits for a prefetch, whose pod is not run here."""
    place = ("--namespace", release.namespace)
    release("install", CHART, values=VALUES)
    first = release.jobs()
    changed = tmp_path / "changed.json"
    chart = {**VALUES["chart"], "prefetch": {"enabled": True}}
    changed.write_text(json.dumps({**VALUES, "train": {"seed": 1}, "chart": chart}))
    for verb, name in (("upgrade", release.name), ("install", "other")):
        other = Release(release.helm, release.cluster, name, release.namespace)
        with release.helm.start(
            verb, name, CHART, *place, "-f", changed, "--set", "chart.claim.create=false"
        ) as killed:
            eventually(functools.partial(_fetches, other))
            killed.kill()
        with pytest.raises(HelmFailed, match=r"is in progress|still in use"):
            other(verb, CHART, values=VALUES)
        if verb == "upgrade":
            with contextlib.suppress(HelmFailed):  # Helm 3, which cannot put the first revision back
                other("rollback")
            other("upgrade", CHART, values=VALUES)
            run_lines(release, tmp_path, "kubectl delete pods,")
            eventually(lambda: not any("prefetch" in each for each in release.left()))
        else:
            other("uninstall")
    assert release.jobs().keys() == first.keys() and not other.jobs()


@pytest.fixture
def growing(release: Release) -> Iterator[str]:
    """Give a StorageClass whose claims may grow, with one volume of 1 GiB."""
    name = release.namespace
    storage_class: dict[str, Any] = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
    }
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": name,
        "hostPath": {"path": "/none"},
    }
    volume: dict[str, Any] = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
    made = [storage_class | {"provisioner": "none", "allowVolumeExpansion": True}, volume]
    release.cluster.kubectl("create", "-f", "-", text=as_yaml(made))
    yield name
    release.cluster.kubectl("delete", "--wait=false", f"storageclass/{name}", f"persistentvolume/{name}")


def test_a_claim_that_was_grown_by_hand_does_not_shrink(release: Release, control_plane: Cluster, growing: str) -> None:
    claim = ("persistentvolumeclaim", "adapters", "--namespace", release.namespace)

    def upgrade(size: str, *flags: str) -> str:
        chart = {"claim": {**CLAIM, "size": size, "storage_class": growing}, "jobs": False}
        release("upgrade", CHART, "--install", *flags, values={**VALUES, "chart": chart})
        asked: str = control_plane.get(*claim)["spec"]["resources"]["requests"]["storage"]
        return asked

    assert upgrade("1Gi") == "1Gi"
    eventually(lambda: control_plane.get(*claim)["status"]["phase"] == "Bound")
    # No whole number of bytes: the server stores thousandths.
    grown = json.dumps({"spec": {"resources": {"requests": {"storage": "1.3Gi"}}}})
    control_plane.kubectl("patch", *claim, "--type=merge", "-p", grown)
    assert [upgrade("1Gi"), upgrade("1.3G")] == ["1395864371200m", "1395864371200m"]
    assert upgrade("2Gi", *force(release)) == "2Gi"
    there = json.dumps({"status": {"capacity": {"storage": "2Gi"}}})
    control_plane.kubectl("patch", *claim, "--subresource=status", "--type=merge", "-p", there)
    with pytest.raises(HelmFailed, match=r"less than status\.capacity"):
        release("rollback", "1")
    assert upgrade("1Gi") == "2Gi"


SIZES = ("5", "100k", "0.5Ti", ".5Gi", "1.", "1e12", "1.5E3", "12E", "1e-1", "2e30", "1500M", "007Mi", "1.5Pi")
NO_SIZES = ("0", "0.0Gi", "100K", "1ki", "1Gib", "-1Gi", "1e3Gi", "1e", "much", "Gi", ".", "1 Gi")


CRONS = ("0 2 * * Mon-Fri", "0  2 * Jan\tSun ", "*/100 2 * * 0", "*/05 2 * * 0", "5/15,7 ? * * 0-SAT", "@daily")
NO_CRONS = ("0 2 * * 7", "*/0 2 * * 0", "0 2 * *", "0 2 * * Monday", "@Daily", "0 2 * * 0 0", "", " ")


def cron_job(cron: str) -> dict[str, Any]:
    container = {"name": "c", "image": "localhost/none:1"}
    pod = {"containers": [container], "restartPolicy": "Never"}
    spec = {"schedule": cron, "jobTemplate": {"spec": {"template": {"spec": pod}}}}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": spec}


@pytest.mark.parametrize(
    ("form", "taken", "refused", "asked"),
    [(Size, SIZES, NO_SIZES, lambda size: claim("size", size, None, None)), (Cron, CRONS, NO_CRONS, cron_job)],
    ids=["sizes", "crons"],
)
def test_forms_are_those_of_the_server(
    control_plane: Cluster,
    form: Any,
    taken: Sequence[str],
    refused: Sequence[str],
    asked: Callable[[str], dict[str, Any]],
) -> None:
    place = ("--namespace", control_plane.namespace("forms"))

    def server_takes(text: str) -> bool:
        try:
            control_plane.kubectl("create", "--dry-run=server", *place, "-f", "-", text=as_yaml([asked(text)]))
        except KubectlFailed:
            return False
        return True

    assert [text for text in (*taken, *refused) if server_takes(text) is not (text in taken)] == []
    ours = TypeAdapter(form)
    assert [ours.validate_python(text) for text in taken] == list(taken)
    for text in refused:
        with pytest.raises(ValidationError):
            ours.validate_python(text)


def test_jobs_that_the_launcher_sent_are_taken_over_as_they_run(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Launcher(release.cluster.kubeconfig, release.namespace, tmp_path, capsys, monkeypatch)
    assert launcher("batch", "--all", "--name", release.name, document=BATCH) == 0, launcher.err
    pods = {name: uid for name, uid in release.running().items() if name.endswith(" uid")}
    with pytest.raises(HelmFailed, match="invalid ownership metadata"):
        release("install", CHART, values=BATCH)
    release("install", CHART, "--take-ownership", *force(release), values=BATCH)
    assert pods.items() <= release.stored().items() and len(release.jobs()) == 2
    release("uninstall")
    eventually(lambda: not release.left())
