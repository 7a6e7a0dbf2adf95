"""The chart on a cluster whose pods run: hooks, jobs, schedule and self-test, with helm and kubectl alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.corpus import generate, write_jsonl
from mtft.naming import config_hash
from mtft.sources import content_sha256
from tests.chart.conftest import find_helm
from tests.chart.helm import CHART, Helm, HelmFailed
from tests.cluster.cluster import Cluster, KubectlFailed
from tests.cluster.recipe import Terminal, blocks, terminal
from tests.cluster.test_chart_recipe import account
from tests.conftest import require
from tests.e2e.cluster.test_jobs import BASE, EVAL, POD, base, finished
from tests.e2e.cluster.test_jobs import image as image

# Building and importing the image takes many minutes the first time.
pytestmark = pytest.mark.timeout(1800)

PAGE_IMAGE = "example.org/mtft:0.1.0"
TRAINED = ("opus_mt_en_fr", "m2m100_418m")
OTHERS = ("mbart50_mmt_en", "mbart50_mmt_fr", "opus_mt_fr_en")


@pytest.fixture
def helm(request: pytest.FixtureRequest, full_cluster: Cluster, tmp_path: Path) -> Helm:
    return find_helm(request.param, tmp_path / "helm-home", full_cluster.kubeconfig)


@pytest.fixture
def namespace(full_cluster: Cluster) -> Iterator[str]:
    name = full_cluster.namespace("chart", restricted=True)
    yield name
    full_cluster.kubectl("delete", "pytorchjobs", "--all", "-n", name, "--wait=false")


@pytest.fixture
def volume(full_cluster: Cluster, namespace: str, standins: Callable[[str], Path]) -> Path:
    """Put the stand-ins of two models on the claim; give its folder on this machine."""
    if full_cluster.volumes is None:
        require("own-cluster", "the volumes of a cluster that was given cannot be looked into")
    folder = full_cluster.volumes / namespace
    for model in TRAINED:
        shutil.copytree(standins(BASE[model]), folder / "data" / BASE[model])
    (folder / "data").chmod(0o2775)
    return folder


@pytest.fixture
def shell(full_cluster: Cluster, helm: Helm, namespace: str, tmp_path: Path, image: str) -> Terminal:
    shell = terminal(full_cluster, helm, tmp_path / "shell", namespace, {PAGE_IMAGE: image})
    write_jsonl(shell.folder / "train.jsonl.gz", generate("assessment", 600, seed=3))
    return shell


def document(image: str, **chart: Any) -> dict[str, Any]:
    return {
        "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
        "train": {"max_steps": 8, "learning_rate": 0.01},
        "eval": EVAL,
        "tracking": {"tensorboard": False},
        "cluster": {"image": image, **POD},
        "models": {
            **{model: {"model": {"path": base(model)["path"]}} for model in TRAINED},
            **{model: {"enabled": False} for model in OTHERS},
        },
        "chart": chart,
    }


def page(words: str) -> str:
    """Return the one block of the recipe that needs pods and has these words."""
    (found,) = (block.text for block in blocks() if block.needs_pods and words in block.text)
    return found


def jobs(cluster: Cluster, namespace: str) -> dict[str, str]:
    """Return name -> uid and version of every job's specification."""
    found = cluster.get("pytorchjobs", "-n", namespace)
    return {
        each["metadata"]["name"]: f"{each['metadata']['uid']} {each['metadata'].get('generation')}" for each in found
    }


@pytest.mark.parametrize("helm", ["helm4"], indirect=True)
def test_from_install_to_adapters(
    full_cluster: Cluster, helm: Helm, shell: Terminal, namespace: str, volume: Path, image: str
) -> None:
    (shell.folder / "night.yaml").write_text(json.dumps(document(image, prefetch={"enabled": True})))
    shell.run("helm install night helm/mtft -n mtft -f night.yaml --set chart.jobs=false --timeout 5m")
    assert jobs(full_cluster, namespace) == {}
    tested = shell.run(page("helm test").strip() + " 2>&1")
    assert "self-test: ok" in tested and "PyTorchJob is known" in tested, tested
    shell.run(page("kubectl cp"))
    shell.run("helm upgrade night helm/mtft -n mtft -f night.yaml --timeout 5m")
    made = jobs(full_cluster, namespace)
    assert len(made) == 2
    shell.run("kubectl wait -n mtft --for=condition=Succeeded pytorchjob -l mtft/batch=night --timeout=9m")
    for model in TRAINED:
        run = finished(volume, model)
        assert (run["folder"] / "lora" / "adapter_model.safetensors").is_file()
    assert "finished" in shell.run(page("kubectl logs"))
    shell.run("helm upgrade night helm/mtft -n mtft -f night.yaml --timeout 5m")
    assert jobs(full_cluster, namespace) == made
    shell.run("helm uninstall night -n mtft --wait")
    assert full_cluster.get("persistentvolumeclaim", "mtft", "-n", namespace)
    assert finished(volume, TRAINED[0])["status"] == "finished"


@pytest.mark.parametrize("helm", ["helm3"], indirect=True)
def test_a_launch_in_the_cluster(
    full_cluster: Cluster, helm: Helm, shell: Terminal, namespace: str, volume: Path, image: str, tmp_path: Path
) -> None:
    train = volume / "data" / "train.jsonl.gz"
    shutil.copy(shell.folder / "train.jsonl.gz", train)
    values = document(image, schedule={"cron": "0 2 * * 0", "wait": True})
    (shell.folder / "weekly.yaml").write_text(json.dumps(values))
    shell.run("helm install weekly helm/mtft -n mtft -f weekly.yaml")
    assert jobs(full_cluster, namespace) == {}
    for launch in ("now", "again"):
        shell.run(f"kubectl create job {launch} -n mtft --from=cronjob/weekly-launcher")
        shell.run(f"kubectl wait -n mtft --for=condition=Complete job/{launch} --timeout=9m")
        made = jobs(full_cluster, namespace)
        values["data"]["sha256"] = content_sha256([train])
        wanted = {config_hash({**values, "chart": {}}, model) for model in TRAINED}
        assert {name.rpartition("-")[2] for name in made} == wanted
    for model in TRAINED:
        assert (finished(volume, model)["folder"] / "lora" / "adapter_model.safetensors").is_file()
    config = account(full_cluster, namespace, "weekly-launcher", tmp_path)
    with pytest.raises(KubectlFailed, match="orbidden"):
        full_cluster.kubectl("delete", "pytorchjob", min(made), "-n", namespace, "--kubeconfig", config)


@pytest.mark.parametrize("helm", ["helm3"], indirect=True)
def test_the_self_test_names_what_is_missing(full_cluster: Cluster, helm: Helm, namespace: str, image: str) -> None:
    values = document(image, jobs=False, test={"gpu": True})
    values["cluster"]["secrets"] = {"HF_TOKEN": {"name": "hub", "key": "token"}}
    helm("install", "night", CHART, "-n", namespace, values=values)
    with pytest.raises(HelmFailed) as failed:
        helm("test", "night", "-n", namespace, "--timeout", "5m")
    said = str(failed.value)
    assert "secret HF_TOKEN: FAILED (key token of Secret hub is missing or empty in this namespace)" in said, said
    assert "CUDA: FAILED (none visible, 1 asked for" in said
    helm("uninstall", "night", "-n", namespace, "--wait")
    assert not full_cluster.get("pods", "-n", namespace)


@pytest.mark.parametrize("helm", ["helm4"], indirect=True)
def test_a_base_that_cannot_be_fetched_stops_the_install(
    full_cluster: Cluster, helm: Helm, namespace: str, image: str
) -> None:
    values = document(image, prefetch={"enabled": True})
    values["cluster"]["env"] = {"HF_HUB_OFFLINE": "1"}
    values["models"]["opus_mt_en_fr"] = {}
    with pytest.raises(HelmFailed) as failed:
        helm("install", "night", CHART, "-n", namespace, "--timeout", "5m", values=values)
    said = str(failed.value)
    assert "Helsinki-NLP/opus-mt-tc-big-en-fr is neither in the hub cache nor can it be downloaded" in said, said
    assert jobs(full_cluster, namespace) == {}
