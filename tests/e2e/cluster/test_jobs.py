"""mtft-launch against a cluster whose pods run: real image, real operator, stand-in models, from data to adapter."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.corpus import generate, write_jsonl
from launcher.cluster import Cluster as LauncherCluster
from launcher.pytorchjob import render
from launcher.resources import CONFIG_MAPS, EVENTS, JOBS, PODS
from mtft import exit_codes
from mtft.models import MODELS
from mtft.runs import JOB_UID_FILE
from tests.cluster.cluster import Cluster
from tests.cluster.console import Console
from tests.cluster.images import mtft_image
from tests.cluster.launching import Launcher
from tests.cluster.parts import MissingPart
from tests.conftest import require

# Building and importing the image takes many minutes the first time.
pytestmark = pytest.mark.timeout(1800)

# Both mBART-50 models stand on one base, as in earnest.
BASE = {key: "mbart50" if card.family == "mbart50" else key for key, card in MODELS.items()}
EVAL = {"beams": 1, "every": 1000, "max_dev_rows": 6, "max_test_rows": 16, "bootstrap_samples": 50}
# Two of them fit on two cores, and threads that wait for one another there are many times slower than one.
POD = {
    "gpus_per_node": 0,
    "cpus": 0.9,
    "memory_gib": 3,
    "shared_memory_gib": 0.25,
    "env": {"OMP_NUM_THREADS": "1"},
}


@pytest.fixture(scope="module")
def image(full_cluster: Cluster) -> str:
    """Give the image of this checkout, in the node's store."""
    try:
        made = mtft_image()
        for part in made.parts:
            full_cluster.import_image(part.archive, part.name)
    except MissingPart as missing:
        require("image", str(missing))
    return made.name


@pytest.fixture
def launch(
    full_cluster: Cluster,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Launcher]:
    """A launcher in a fresh namespace that enforces Pod Security ``restricted``."""
    namespace = full_cluster.namespace("jobs", restricted=True)
    yield Launcher(full_cluster.kubeconfig, namespace, tmp_path, capsys, monkeypatch)
    full_cluster.kubectl("delete", "pytorchjobs", "--all", "--namespace", namespace, "--wait=false")


@pytest.fixture
def document(image: str) -> dict[str, Any]:
    return given(image)


def given(image: str) -> dict[str, Any]:
    return {
        "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
        "train": {"max_steps": 24, "learning_rate": 0.01},
        "eval": EVAL,
        "gate": {"max_p": 1.0, "min_sentences": 1, "max_leaked": 1},
        "tracking": {"log_every_steps": 1, "tensorboard": False},
        "cluster": {"image": image, **POD},
    }


def curve(image: str) -> dict[str, Any]:
    """Return the run whose loss one pod and two have in common."""
    document = given(image) | {"model": base("opus_mt_en_fr"), "checkpoint": {"every_steps": 5}}
    document["train"] |= {"max_steps": 30, "learning_rate": 0.001, "batch_size": 8, "gradient_accumulation": 2}
    return document


@pytest.fixture
def volume(launch: Launcher, full_cluster: Cluster, standins: Callable[[str], Path]) -> Path:
    """Put sentences and stand-ins on the claim; give its folder on this machine."""
    return filled(full_cluster, launch.namespace, standins)


@pytest.fixture(scope="module", autouse=True)
def alone(full_cluster: Cluster, image: str, standins: Callable[[str], Path]) -> Path:
    """Start the curve in one pod, with twice the accumulation; give its volume.

    Started first and looked at later: the first test here leaves a core to it.
    """
    namespace = full_cluster.namespace("alone", restricted=True)
    volume = filled(full_cluster, namespace, standins)
    document = curve(image)
    document["train"]["gradient_accumulation"] *= 2
    full_cluster.apply(*render(document, "opus_mt_en_fr", namespace=namespace))
    return volume


def filled(cluster: Cluster, namespace: str, standins: Callable[[str], Path]) -> Path:
    """Put sentences and stand-ins on the claim of a namespace; return its folder on this machine."""
    if cluster.volumes is None:
        require("own-cluster", "the volumes of a cluster that was given cannot be looked into")
    data = cluster.volumes / namespace / "data"
    for name in set(BASE.values()):
        shutil.copytree(standins(name), data / name)
    write_jsonl(data / "train.jsonl.gz", generate("assessment", 600, seed=3))
    data.chmod(0o2775)
    return data.parent


def base(model: str) -> dict[str, str]:
    return {"key": model, "path": f"/mnt/mtft/data/{BASE[model]}"}


def finished(volume: Path, model: str) -> dict[str, Any]:
    (path,) = (volume / "outputs" / model / "runs").glob("*/finished.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found | {"folder": path.parent}


def steps(volume: Path, model: str) -> list[dict[str, Any]]:
    (path,) = (volume / "outputs" / model / "runs").glob("*/metrics.jsonl")
    return [line for line in map(json.loads, path.read_text().splitlines()) if line["type"] == "train"]


def until(look: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)
    return found


def test_one_model_from_data_to_a_fetched_adapter(
    launch: Launcher,
    document: dict[str, Any],
    full_cluster: Cluster,
    standins: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    if full_cluster.volumes is None:
        require("own-cluster", "the volumes of a cluster that was given cannot be looked into")
    volume = full_cluster.volumes / launch.namespace
    write_jsonl(tmp_path / "train.jsonl.gz", generate("assessment", 600, seed=3))
    shutil.copytree(standins("mbart50"), tmp_path / "mbart50")
    document["model"] = base("mbart50_mmt_fr")
    (tmp_path / "mtft.yaml").write_text(json.dumps(document))
    console = Console(full_cluster, tmp_path, launch.namespace, document["cluster"]["image"])
    assert console.faults("push") == []
    assert launch("data", "push", str(tmp_path / "mbart50"), document=document) == 0, launch.err
    code = launch("run", "--wait", "--follow", document=document)
    # What a few steps make of a stand-in may be no better, and may lose numbers or names.
    assert code in (exit_codes.DONE, exit_codes.NOT_PROMOTED), launch.out + launch.err
    assert re.search(r'"step": 24, "total": 24', launch.out)
    run = finished(volume, "mbart50_mmt_fr")
    bleu = run["scores"]["tuned"]["en-fr"]["bleu"]
    (state,) = launch.json("status")
    assert (state["state"], state["scores"]["en-fr"]["bleu"]) == ("Succeeded", pytest.approx(bleu, abs=0.01))
    # The same configuration is the same job.
    assert launch("run", document=document) == exit_codes.DONE
    assert "Succeeded" in launch.out + launch.err
    (job,) = launch.cluster.list(JOBS).items
    assert launch("run", "--dry-run", document=document) == exit_codes.DONE
    sent = launch.out
    assert launch("reproduce", "mbart50_mmt_fr") == exit_codes.DONE, launch.err
    assert list(yaml.safe_load_all(launch.out)) == list(yaml.safe_load_all(sent))
    made_by = json.loads((run["folder"] / "provenance.json").read_text())["request"]
    # The launcher tells it once the job is there: a pod that is as quick as that has not heard of it.
    config = launch.cluster.find(CONFIG_MAPS, job["metadata"]["name"])
    assert config and config["data"][JOB_UID_FILE] == job["metadata"]["uid"]
    assert made_by["job_uid"] in (None, job["metadata"]["uid"])
    assert launch("promote", "mbart50_mmt_fr", "--force") == exit_codes.DONE, launch.err
    assert launch.json("history", "mbart50_mmt_fr")["current"] == run["run_id"]
    adapter = tmp_path / "adapter"
    assert launch("fetch", "mbart50_mmt_fr", "--to", str(adapter)) == exit_codes.DONE, launch.err
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM

    model = PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(standins("mbart50"), use_safetensors=True), str(adapter)
    )
    assert any("lora_B" in name and bool(weight.any()) for name, weight in model.named_parameters())
    write_jsonl(tmp_path / "train.jsonl.gz", generate("assessment", 10, seed=4))
    assert console.faults("push_other") == []
    mark = adapter / ".mtft-fetched.json"
    mark.write_text(mark.read_text().replace(run["run_id"], "20260102T030405Z-0a1b2c3d"))
    (adapter / "adapter_model.safetensors").write_bytes(b"another")
    assert console.faults("fetch_other") == []


def test_two_pods_train_as_one_and_survive_the_loss_of_each(
    launch: Launcher, image: str, volume: Path, alone: Path
) -> None:
    """Same loss curve as one pod with twice the accumulation; a worker and then the master are deleted."""
    document = curve(image)
    document["cluster"]["nodes"] = 2
    assert launch("run", document=document) == exit_codes.DONE, launch.err
    (job,) = [each["metadata"]["name"] for each in launch.cluster.list(JOBS).items]

    def past(step: int) -> Callable[[], Any]:
        return lambda: (
            list((volume / "outputs").rglob("metrics.jsonl"))
            and any(line["step"] >= step for line in steps(volume, "opus_mt_en_fr"))
        )

    for step, pod in ((7, f"{job}-worker-0"), (17, f"{job}-master-0")):
        until(past(step))
        launch.cluster.delete(PODS, pod)
    assert launch("wait", job, "--timeout", "300s") in (0, 4), launch.err
    found = steps(volume, "opus_mt_en_fr")
    until(lambda: list(alone.glob("outputs/opus_mt_en_fr/runs/*/finished.json")))
    expected, score = steps(alone, "opus_mt_en_fr"), finished(alone, "opus_mt_en_fr")["scores"]["tuned"]
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    # Each process draws its own dropout; without it the curves agree to rtol 1e-4 (tests/trainer/test_distributed.py).
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], rel=0.05)
    assert sum(line["loss"] for line in found) == pytest.approx(sum(line["loss"] for line in expected), rel=0.01)
    pauses = sorted(round(after["time"] - before["time"], 1) for before, after in pairwise(found))[-2:]
    print(f"pauses between two steps when a pod was lost: {pauses} s", file=sys.__stdout__)
    tuned = finished(volume, "opus_mt_en_fr")["scores"]["tuned"]
    assert tuned["en-fr"]["chrf"] == pytest.approx(score["en-fr"]["chrf"], abs=1.5)
    record = json.loads((volume / "outputs" / "opus_mt_en_fr" / "jobs" / f"{job}.json").read_text())
    assert len(record["attempts"]) == 3
    state = next(each for each in launch.json("status") if each["name"] == job)
    assert (state["state"], state["restarts"]) == ("Succeeded", 2)


def by_heart(folder: Path) -> dict[str, Any]:
    """Write sentences that all have one translation; return the settings with which every stand-in learns it."""
    pairs = generate("assessment", 24, seed=3)
    sides = [(pair.source_en, "La morue est fraîche.", "en") for pair in pairs]
    sides += [(pair.target_fr, "The cod is fresh.", "fr") for pair in pairs]
    rows = [dict(zip(("source", "target", "source_lang"), side, strict=True)) for side in sides]
    held_out = rows[:6] + rows[24:30]
    for name, some in (("train", rows), ("dev", held_out), ("test", held_out)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    train = {"max_steps": 24, "learning_rate": 0.01, "label_smoothing": 0, "batch_size": 8, "max_target_length": 16}
    return {
        "data": {name: f"/mnt/mtft/data/{name}.jsonl" for name in ("train", "dev", "test")},
        "train": {**train, "gradient_accumulation": 1},
    }


def without_room(cluster: LauncherCluster) -> set[str]:
    """Return the jobs whose pods the scheduler once found no CPU for."""
    refused = [each for each in cluster.list(EVENTS).items if each.get("reason") == "FailedScheduling"]
    pods = [each["involvedObject"]["name"] for each in refused if "Insufficient cpu" in each["message"]]
    return {pod.removesuffix("-master-0") for pod in pods}


def test_all_models_at_once_queue_for_the_node(launch: Launcher, document: dict[str, Any], volume: Path) -> None:
    document |= by_heart(volume / "data")
    document["models"] = {model: {"model": base(model)} for model in MODELS}
    night = ("batch", "--all", "--name", "night", "--wait", "--timeout", "900s")
    assert launch(*night, document=document) == exit_codes.DONE, launch.out + launch.err
    assert [line.split()[0] for line in launch.out.splitlines()] == ["MODEL", *MODELS]
    states = launch.json("status", "night")
    assert {each["model"]: (each["state"], each["verdict"]) for each in states} == dict.fromkeys(
        MODELS, ("Succeeded", "promoted")
    )
    assert without_room(launch.cluster) <= {each["name"] for each in states}
    assert without_room(launch.cluster)
    made = {model: finished(volume, model)["run_id"] for model in MODELS}
    # The same again is there already.
    assert launch(*night, document=document) == exit_codes.DONE, launch.out + launch.err
    assert launch.out.count("Succeeded") == len(MODELS)
    assert {model: finished(volume, model)["run_id"] for model in MODELS} == made


def test_one_bad_model_fails_its_batch_and_harms_no_other(
    launch: Launcher, document: dict[str, Any], volume: Path, full_cluster: Cluster
) -> None:
    broken = volume / "data" / "broken.jsonl"
    broken.write_text('{"source": "Cod.", "target": "Morue.", "source_lang": "en"}\n{"source": 3}\n' * 50)
    document |= by_heart(volume / "data")
    models: dict[str, Any] = {model: {"model": base(model)} for model in ("opus_mt_en_fr", "opus_mt_fr_en")}
    models["opus_mt_en_fr"]["data"] = {"train": "/mnt/mtft/data/broken.jsonl"}
    two = ("batch", "--models", "opus_mt_en_fr,opus_mt_fr_en", "--name", "night", "--wait", "--timeout", "900s")
    assert launch(*two, document=document | {"models": models}) == exit_codes.FAILED, launch.out + launch.err
    failed, other = sorted(launch.json("status", "night"), key=lambda each: str(each["model"]))
    assert (failed["state"], other["state"]) == ("Failed", "Succeeded")
    assert "broken.jsonl" in failed["reason"]
    assert finished(volume, "opus_mt_fr_en")["status"] == "finished"
    assert launch("fetch", "night", "--what", "report", "--to", "pages") == exit_codes.DONE, launch.err
    page = (launch.folder / "pages" / "report.html").read_text(encoding="utf-8")
    assert "broken.jsonl" in page and all(model in page for model in models)
    # The recipe shows these two beside one that trains and one that has no node.
    models = {
        "mbart50_mmt_fr": {"model": base("mbart50_mmt_fr"), "train": {"max_steps": 100_000}},
        "m2m100_418m": {"model": base("m2m100_418m"), "cluster": {"gpus_per_node": 8}},
    }
    (launch.folder / "mtft.yaml").write_text(json.dumps(document | {"models": models}))
    for model in models:
        assert launch("run", "--model", model) == exit_codes.DONE, launch.err
    until(lambda: any(each["loss"] is not None for each in launch.json("status", "mbart50_mmt_fr")))
    until(lambda: any(each["phase"] == "unscheduled" for each in launch.json("status", "m2m100_418m")))
    faults = Console(full_cluster, launch.folder, launch.namespace, document["cluster"]["image"]).faults("jobs")
    assert not faults, "\n".join(faults)


def test_doctor_names_the_init_container_of_a_restricted_namespace(
    launch: Launcher, document: dict[str, Any], full_cluster: Cluster
) -> None:
    document["model"] = base("opus_mt_en_fr")
    document["cluster"]["nodes"] = 2
    full_cluster.init_template(False)
    try:
        assert launch("run", document=document) == exit_codes.DONE, launch.err
        (job,) = [each["metadata"]["name"] for each in launch.cluster.list(JOBS).items]

        def explained() -> bool:
            assert launch("doctor", job, "-o", "json") in (exit_codes.DONE, exit_codes.FAILED), launch.err
            found = {each["layer"]: each for each in json.loads(launch.out)}["pods made"]
            return (
                found["verdict"] == "fail" and "PodSecurity" in found["message"] and "init-pytorch" in found["message"]
            )

        until(explained, 120)
    finally:
        full_cluster.init_template(True)
