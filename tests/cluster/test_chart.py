"""Helm 3 and Helm 4 against a real API server: every rendering, and the life of a release."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher.cluster_errors import OPERATOR_INSTALL
from launcher.manifests import as_yaml
from tests.chart.conftest import find_helm
from tests.chart.helm import CHART, VERSIONS, Helm, HelmFailed
from tests.cluster.cluster import Cluster
from tests.cluster.launching import Launcher, end_pod, until_state
from tests.cluster.levels import for_tests, start_bare
from tests.cluster.playing import eventually
from tests.cluster.recipe import blocks, terminal
from tests.cluster.releases import VALUES, Release, newer
from tests.cluster.toolchain import tools
from tests.goldens import CONFIGS, cases

CHANGED = ("--set-json", "train.epochs=0.5")
RENDERED = {path.stem: path for path in [*CONFIGS.glob("*.yaml"), *(CHART / "ci").glob("*-values.yaml")]}
STRICT = ("create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-")


@pytest.fixture(params=VERSIONS)
def helm(request: pytest.FixtureRequest, control_plane: Cluster, tmp_path: Path) -> Helm:
    return find_helm(request.param, tmp_path, control_plane.kubeconfig)


@pytest.fixture(scope="module")
def restricted(control_plane: Cluster) -> str:
    """Give a restricted namespace."""
    return control_plane.namespace("chart", restricted=True)


@pytest.mark.parametrize("name", RENDERED)
def test_the_server_takes_every_rendering(control_plane: Cluster, restricted: str, name: str, tmp_path: Path) -> None:
    helm = find_helm(VERSIONS[-1], tmp_path)  # that both render the same is tests/chart's to show
    objects = helm.template("weekly", "-f", RENDERED[name])
    for each in objects:
        each["metadata"]["namespace"] = restricted
    taken = control_plane.kubectl(*STRICT, text=as_yaml(objects)).splitlines()
    assert len(taken) == len(objects) >= 2
    assert len(RENDERED) >= len(cases())


@pytest.fixture
def release(helm: Helm, control_plane: Cluster) -> Release:
    return Release(helm, control_plane)


def test_the_life_of_a_release(release: Release) -> None:
    notes = release("install", CHART, values=VALUES)
    first = release.running()
    jobs = release.jobs()
    assert {each["metadata"]["labels"]["mtft/model"] for each in jobs.values()} == {"opus_mt_en_fr", "opus_mt_fr_en"}
    assert all(name in notes for name in jobs)

    release("upgrade", CHART, values=VALUES)
    assert release.stored() == first, "the same configuration changes nothing"

    release("upgrade", CHART, *CHANGED, values=VALUES)
    changed = release.jobs()
    assert len(changed) == 2
    assert not set(changed) & set(jobs), "another configuration makes new jobs"
    assert "persistentvolumeclaim/adapters" in release.left()

    release("rollback", "1")
    assert set(release.jobs()) == set(jobs)
    release("upgrade", CHART, values=VALUES)
    assert set(release.jobs()) == set(jobs)

    release("uninstall")
    eventually(lambda: release.left() == {"persistentvolumeclaim/adapters"})


def test_values_taken_over_are_the_same_configuration(release: Release) -> None:
    """Of what `--reuse-values` takes over, Helm drops the parts left empty."""
    empty: dict[str, Any] = {"data": {**VALUES["data"], "sha256": None}, "eval": None, "train": {"max_steps": None}}
    models = {**VALUES["models"], "opus_mt_en_fr": None, "opus_mt_fr_en": {"lora": None, "train": {"max_steps": None}}}
    values = {**VALUES, **empty, "models": models, "cluster": {**VALUES["cluster"], "deadline_minutes": None}}
    release("install", CHART, values=values)
    first = release.running()
    assert len(release.jobs()) == 2
    for verb in ("--reuse-values", "--reuse-values", "--reset-then-reuse-values"):
        release("upgrade", CHART, verb)
        assert release.stored() == first, verb


def test_a_newer_chart_or_another_helm_restarts_nothing(release: Release, tmp_path: Path) -> None:
    release("install", CHART, values=VALUES)
    pods = {name: mark for name, mark in release.running().items() if name.endswith(" uid")}
    chart = newer(tmp_path)
    (other,) = {*VERSIONS} - {release.helm.name}
    for helm in (release.helm, find_helm(other, tmp_path, release.cluster.kubeconfig)):
        helm("upgrade", release.name, chart, "--namespace", release.namespace, values=VALUES)
        assert pods.items() <= release.stored().items()
    versions = {each["metadata"]["labels"]["app.kubernetes.io/version"] for each in release.jobs().values()}
    assert versions == {"99.0.0"}


def _pod_specs(release: Release) -> list[dict[str, Any]]:
    return [each["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"] for each in release.jobs().values()]


@pytest.mark.parametrize("placed", [False, True], ids=["placed by the queue", "placed by values too"])
def test_a_queue_keeps_its_hold_of_a_job(release: Release, placed: bool) -> None:
    own = {"node_selector": {"pool": "gpu"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]} if placed else {}
    values = {**VALUES, "cluster": {**VALUES["cluster"], **own}}
    release("install", CHART, values=values)
    queue = ("--namespace", release.namespace, "--field-manager=kueue", "--type=merge", "-p")
    for name, job in release.jobs().items():
        pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
        pod["nodeSelector"] = {**pod.get("nodeSelector", {}), "flavor": "h100"}
        pod["tolerations"] = [*pod.get("tolerations", []), {"key": "spot", "operator": "Exists"}]
        held = {"runPolicy": {"suspend": True}, "pytorchReplicaSpecs": job["spec"]["pytorchReplicaSpecs"]}
        release.cluster.kubectl("patch", "pytorchjob", name, *queue, json.dumps({"spec": held}))
    before = _pod_specs(release)
    apart = placed and release.helm.name == "helm4"
    if apart:
        with pytest.raises(HelmFailed, match=r'conflicts with "kueue"'):
            release("upgrade", CHART, values=values)
    # As the recipe says where values place the pods too.
    release(
        "upgrade", CHART, "--set", "cluster.labels.team=mt", *(["--server-side=false"] if apart else []), values=values
    )
    jobs = release.jobs().values()
    assert [each["spec"]["runPolicy"]["suspend"] for each in jobs] == [True, True]
    assert _pod_specs(release) == before
    assert {each["metadata"]["labels"]["team"] for each in jobs} == {"mt"}


def test_two_releases_in_a_namespace_do_not_meet(helm: Helm, release: Release) -> None:
    long = "a-release-with-a-very-long-name-for-the-nightly-batch"
    without_claim = VALUES | {"chart": {}}
    others = [Release(helm, release.cluster, long[:-1] + end, release.namespace) for end in "ab"]
    for each in (release, *others):
        each("install", CHART, values=without_claim)
    names = [name for each in (release, *others) for name in each.jobs()]
    assert len(set(names)) == 6
    others[0]("uninstall")
    assert [len(each.jobs()) for each in (release, *others)] == [2, 0, 2]


def test_a_job_that_trains_keeps_its_number_of_pods(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = Launcher(release.cluster.kubeconfig, release.namespace, tmp_path, capsys, monkeypatch)
    release("install", CHART, values=VALUES)
    first = release.running()
    english, french = sorted(release.jobs())
    larger = ("--set", "models.opus_mt_en_fr.cluster.nodes=3")
    for verb in ((), ("--dry-run=server",)):
        with pytest.raises(HelmFailed, match=r"models\.opus_mt_en_fr\.cluster\.nodes: got 3") as refused:
            release("upgrade", CHART, *larger, *verb, values=VALUES)
        text = str(refused.value)
        assert f"job {english} is there with 1 and has not ended" in text and "the values have 1 problem:" in text
        assert "cluster.nodes=1 again" in text and f"kubectl delete pytorchjob {english} -n {release.namespace}" in text
        assert f"mtft-launch suspend {english} -n {release.namespace}" in text
    with pytest.raises(HelmFailed, match=r"the values have 2 problems:\s+cluster\.nodes: got 2"):
        release("upgrade", CHART, "--set", "cluster.nodes=2", values=VALUES)
    assert release.stored() == first

    assert launcher("suspend", english) == 0, launcher.err
    release("upgrade", CHART, *larger, values=VALUES)
    assert launcher("resume", english) == 0, launcher.err
    pods = [f"{english}-master-0", f"{english}-worker-0", f"{english}-worker-1", f"{french}-master-0"]
    eventually(lambda: {f"{pod} uid" for pod in pods} <= set(release.stored()))
    with pytest.raises(HelmFailed, match=f"got 2, but job {english} is there with 3 and has not ended"):
        release("upgrade", CHART, "--set", "models.opus_mt_en_fr.cluster.nodes=2", values=VALUES)
    for job, code, state in ((english, 2, "Failed"), (french, 0, "Succeeded")):
        end_pod(launcher.cluster, f"{job}-master-0", code)
        until_state(launcher.cluster, job, state, eventually)
    release("upgrade", CHART, "--set", "cluster.nodes=2", values=VALUES)
    assert [len(each["spec"]["pytorchReplicaSpecs"]) for each in release.jobs().values()] == [2, 2]


def test_what_is_there_is_looked_up_where_the_jobs_are(release: Release) -> None:
    """The release in its own namespace, its jobs and its claim in that of ``cluster.namespace``."""
    place = release.cluster.namespace("jobs")
    values = VALUES | {"cluster": VALUES["cluster"] | {"namespace": place}}
    release("install", CHART, values=values)
    with pytest.raises(HelmFailed, match=rf"cluster\.nodes: got 2, but job .* -n {place}"):
        release("upgrade", CHART, "--set", "cluster.nodes=2", values=values)
    # The claim is there by now, so the bases are fetched before the jobs are made.
    fetching = ("--set", "chart.prefetch.enabled=true", "--dry-run=server")
    assert "helm.sh/hook: pre-install,pre-upgrade" in release("upgrade", CHART, *fetching, values=values)
    release("uninstall")


@pytest.mark.parametrize("side", ["", " --server-side"], ids=["client", "server"])
def test_the_recipes_line_applies_and_changes_what_helm_renders(release: Release, tmp_path: Path, side: str) -> None:
    (line,) = (line for block in blocks() for line in block.text.splitlines() if line.startswith("helm template"))
    line = line.replace("kubectl apply", f"kubectl apply{side}").replace("nightly", release.name)
    shell = terminal(release.cluster, release.helm, tmp_path / "shell", release.namespace)
    document = VALUES | {"chart": {"claim": {"create": True}, "prefetch": {"enabled": True}}}

    def apply(**cluster: Any) -> str:
        (shell.folder / "night.yaml").write_text(json.dumps(document | {"cluster": VALUES["cluster"] | cluster}))
        return shell.run(line)

    made = apply()
    assert len(made.splitlines()) == 4, "two jobs and what they mount, without hooks and claim"
    first = release.running()
    apply()
    assert release.stored() == first
    apply(image="localhost/none:2", env={"TOKENIZERS_PARALLELISM": "false"}, claim="other")
    (pod, _) = (each["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"] for each in release.jobs().values())
    assert pod["containers"][0]["image"] == "localhost/none:2"
    assert {"name": "TOKENIZERS_PARALLELISM", "value": "false"} in pod["containers"][0]["env"]
    assert {"claimName": "other"} in [each.get("persistentVolumeClaim") for each in pod["volumes"]]


@pytest.fixture(scope="module")
def bare_cluster() -> Iterator[Cluster]:
    """Give a cluster without the training operator."""
    if "MTFT_TEST_KUBECONFIG" in os.environ:
        pytest.skip("the given cluster has the training operator")
    with for_tests(start_bare) as cluster:
        yield cluster


@pytest.mark.parametrize("version", VERSIONS)
def test_without_the_operator_it_says_how_to_install_it(bare_cluster: Cluster, version: str, tmp_path: Path) -> None:
    helm = find_helm(version, tmp_path, bare_cluster.kubeconfig)
    for verb in ("install", "upgrade --install", "install --dry-run=server"):
        with pytest.raises(HelmFailed, match="does not know PyTorchJob") as refused:
            helm(*verb.split(), "weekly", CHART, values=VALUES)
        assert OPERATOR_INSTALL in str(refused.value)
    assert bare_cluster.get("secrets", "-n", "default") == []
    assert helm.template("weekly", values=VALUES)
    # No controller runs here, so a namespace's account is not waited for.
    bare_cluster.kubectl("create", "namespace", version)
    release = Release(helm, bare_cluster, "night", version)
    chart = {**VALUES["chart"], "jobs": False}
    release("install", CHART, values={**VALUES, "chart": chart})
    for more in ({}, {"chart": {**chart, "jobs": True, "schedule": {"cron": "@daily"}}}):
        with pytest.raises(HelmFailed, match=r"1 problem:\n +the cluster does not know PyTorchJob") as refused:
            release("upgrade", CHART, values={**VALUES, **more})
        assert OPERATOR_INSTALL in str(refused.value)
    assert "No job was made" in release("upgrade", CHART, values={**VALUES, "chart": chart})


@contextmanager
def jobs_are_known(cluster: Cluster) -> Iterator[None]:
    """Let the API server know PyTorchJobs for a while."""
    crd = tools().operator_manifests / "crds" / "kubeflow.org_pytorchjobs.yaml"

    def told() -> bool:
        return "pytorchjobs" in cluster.kubectl("api-resources", "--api-group=kubeflow.org")

    cluster.kubectl("apply", "--server-side", "-f", crd)
    eventually(told)
    yield
    cluster.kubectl("delete", "-f", crd)
    eventually(lambda: not told())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_release_is_removed_once_the_operators_crd_is_back(
    bare_cluster: Cluster, version: str, tmp_path: Path
) -> None:
    namespace = f"{version}-crd"
    bare_cluster.kubectl("create", "namespace", namespace)
    release = Release(find_helm(version, tmp_path, bare_cluster.kubeconfig), bare_cluster, "night", namespace)
    with jobs_are_known(bare_cluster):
        release("install", CHART, values=VALUES)
    with pytest.raises(HelmFailed, match="failed to delete release"):
        release("uninstall")
    with jobs_are_known(bare_cluster):
        release("uninstall")
        assert release.left() == {"persistentvolumeclaim/adapters"}
