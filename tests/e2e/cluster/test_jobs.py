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
from launcher.pytorchjob import render
from launcher.resources import JOBS, PODS
from mtft import exit_codes
from mtft.models import MODELS
from tests.cluster.cluster import Cluster
from tests.cluster.images import mtft_image
from tests.cluster.launching import Launcher
from tests.cluster.parts import MissingPart
from tests.conftest import require

# Building and importing the image takes many minutes the first time.
pytestmark = pytest.mark.timeout(1800)

# Both mBART-50 models stand on one base, as in earnest.
BASE = {key: "mbart50" if card.family == "mbart50" else key for key, card in MODELS.items()}
EVAL = {"beams": 1, "every": 1000, "max_dev_rows": 6, "max_test_rows": 16, "bootstrap_samples": 50}
# Two of them fit on two cores.
POD = {"gpus_per_node": 0, "cpus": 0.9, "memory_gib": 3, "shared_memory_gib": 0.25}


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
        "gate": {"max_p": 1.0},
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
    for name in ("train.jsonl.gz", "mbart50"):
        assert launch("data", "push", str(tmp_path / name), document=document) == 0, launch.err
    document["model"] = base("mbart50_mmt_fr")
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
    assert made_by["job_uid"] == job["metadata"]["uid"]
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


def test_all_models_at_once_queue_for_the_node_and_one_bad_one_harms_no_other(
    launch: Launcher, document: dict[str, Any], volume: Path
) -> None:
    broken = volume / "data" / "broken.jsonl"
    broken.write_text('{"source": "Cod.", "target": "Morue.", "source_lang": "en"}\n{"source": 3}\n' * 50)
    bad = {"data": {"train": "/mnt/mtft/data/broken.jsonl"}}
    document["train"]["max_steps"] = 8
    document["models"] = {model: {"model": base(model)} for model in MODELS}
    document["models"]["opus_mt_en_fr"] |= bad
    code = launch("batch", "--all", "--name", "night", "--wait", "--timeout", "900s", document=document)
    assert code == exit_codes.FAILED, launch.out + launch.err
    states = {each["model"]: each for each in launch.json("status", "night")}
    assert states.keys() == MODELS.keys()
    failed = states.pop("opus_mt_en_fr")
    assert failed["state"] == "Failed"
    assert "broken.jsonl" in failed["reason"]
    for model, state in states.items():
        assert state["state"] == "Succeeded", state
        assert finished(volume, model)["status"] == "finished"
    assert launch("fetch", "night", "--what", "report", "--to", "pages") == exit_codes.DONE, launch.err
    page = (launch.folder / "pages" / "report.html").read_text(encoding="utf-8")
    assert "broken.jsonl" in page and all(model in page for model in MODELS)
    # With good data again the four are there, the fifth is made, and the batch as a whole is done.
    del document["models"]["opus_mt_en_fr"]["data"]
    again = launch("batch", "--all", "--name", "night", "--wait", "--timeout", "900s", document=document)
    assert again in (exit_codes.DONE, exit_codes.NOT_PROMOTED), launch.out + launch.err
    assert launch.out.count("Succeeded") == len(MODELS)


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
