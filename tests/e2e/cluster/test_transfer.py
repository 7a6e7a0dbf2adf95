"""Files to and from the shared volume of a cluster whose pods run, and logs of pods that really write."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from launcher import labels, transfer_pod
from launcher.cli import main
from launcher.cluster import connect
from launcher.cluster_errors import NotFound
from launcher.pytorchjob import render
from launcher.resources import PODS
from launcher.transfer import Remote
from mtft import exit_codes
from tests.cluster.cluster import Cluster
from tests.cluster.images import base_image
from tests.cluster.playing import eventually
from tests.cluster.proxy import cuttable
from tests.conftest import require

MODEL = "opus_mt_en_fr"
# The transfer needs Python in the image and nothing of ours: the base is enough, and quick to import.
RUN = "20300102T030405Z-0a1b2c3d"
WRITER = """
import json, os, signal, sys, time, pathlib
root = pathlib.Path("/mnt/mtft/outputs/opus_mt_en_fr")
run = root / "runs" / "20300102T030405Z-0a1b2c3d"
(run / "lora").mkdir(parents=True, exist_ok=True)
(run / "checkpoints").mkdir(exist_ok=True)
(root / "jobs").mkdir(exist_ok=True)
print(f"job {sys.argv[1]}, run {run.name}, attempt 1", flush=True)
(run / "lora" / "adapter_model.safetensors").write_bytes(b"weights" * 300_000)
(run / "checkpoints" / "big").write_bytes(b"x")
(run / "report.html").write_text("<p>report</p>")
(root / "jobs" / f"{sys.argv[1]}.json").write_text(json.dumps({"run_id": run.name}))
for step in range(1, 21):
    print(json.dumps({"type": "train", "step": step, "total": 20, "percent": 5.0 * step, "eta_s": 20.0 - step,
                      "loss": 2.5, "tokens_per_second": 100.0}), flush=True)
    time.sleep(0.25)
(run / "finished.json").write_text(json.dumps({"deliverable": "lora"}))
pathlib.Path("/dev/termination-log").write_text(json.dumps({
    "exit_code": 0, "reason": "finished", "run_id": run.name,
    "finished": {"gate": {"verdict": "better"}, "scores": {"tuned": {"en-fr": {"bleu": 33.5, "chrf": 57.0}}}}}))
"""
# The first start is preempted, the second finishes.
TWICE = """
import pathlib, sys, time
mark = pathlib.Path("/mnt/mtft") / sys.argv[1]
attempt = 2 if mark.exists() else 1
mark.touch()
for line in range(40):
    print(f"attempt {attempt} line {line}", flush=True)
    time.sleep(0.1)
sys.exit(0 if attempt == 2 else 143)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mtft.json"
    cluster = {"image": base_image().name, "gpus_per_node": 0, "cpus": 0.1, "memory_gib": 0.25, "run_as_user": 4321}
    path.write_text(json.dumps({"model": MODEL, "data": {"train": "/mnt/mtft/data/x.jsonl"}, "cluster": cluster}))
    return path


@pytest.fixture
def namespace(full_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("KUBECONFIG", str(full_cluster.kubeconfig))
    name = full_cluster.namespace("transfer", restricted=True)
    yield name
    monkeypatch.setenv("KUBECONFIG", str(full_cluster.kubeconfig))
    left = connect(None, name).list(PODS, selector=f"{labels.COMPONENT}=transfer").items
    assert not left, "a transfer left its pod behind"


def volume(cluster: Cluster, namespace: str) -> Path:
    """Return where the claim of a namespace lies on this machine."""
    if cluster.volumes is None:
        require("own-cluster", "the volumes of a cluster that was given cannot be looked into")
    return cluster.volumes / namespace


def start(cluster: Cluster, namespace: str, config: Path, program: str) -> str:
    """Send a job whose trainer is this program."""
    objects = render(json.loads(config.read_text()), MODEL, namespace=namespace)
    job = objects[-1]
    [container] = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    container["command"] = ["python3", "-c", program, job["metadata"]["name"]]
    cluster.apply(*objects)
    return str(job["metadata"]["name"])


def test_pushed_and_pushed_again(
    full_cluster: Cluster, namespace: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "news"
    folder.mkdir()
    for name, size in (("a.jsonl", 3_000_000), ("b.jsonl", 40), ("c d é.jsonl", 17)):
        (folder / name).write_bytes(os.urandom(size))

    def push() -> Any:
        assert main(["data", "push", str(folder), "-n", namespace, "--config", str(config), "-o", "json"]) == 0
        return json.loads(capsys.readouterr().out)

    answer = push()
    assert (answer["data.train"], answer["files"], answer["sent"]) == ("/mnt/mtft/data/news", 3, 3)
    assert push()["sent"] == 0
    there = volume(full_cluster, namespace) / "data" / "news"
    assert {path.name: path.read_bytes() for path in there.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]
    assert answer["data.sha256"] == hashlib.sha256("".join(f"{each}\n" for each in digests).encode()).hexdigest()


def test_a_push_survives_cut_connections(
    full_cluster: Cluster, namespace: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = tmp_path / "big.jsonl"
    big.write_bytes(os.urandom(200_000_000))
    codes: list[int] = []
    with cuttable(full_cluster, tmp_path) as (kubeconfig, proxy):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        arguments = ["data", "push", str(big), "-n", namespace, "--config", str(config)]
        pushing = threading.Thread(target=lambda: codes.append(main(arguments)), daemon=True)
        pushing.start()
        data = volume(full_cluster, namespace) / "data"

        def past(share: float) -> bool:
            arrived = sum(part.stat().st_size for part in data.glob(".big.jsonl.*.part"))
            return arrived > share * big.stat().st_size or not pushing.is_alive()

        for share in (0.1, 0.4):
            eventually(partial(past, share))
            assert pushing.is_alive(), "the push was over before it could be cut"
            proxy.cut()
        pushing.join(120)
    assert codes == [exit_codes.DONE]
    with (data / big.name).open("rb") as copied, big.open("rb") as source:
        assert hashlib.file_digest(copied, "sha256").digest() == hashlib.file_digest(source, "sha256").digest()


def test_a_job_is_followed_and_its_adapter_fetched(
    full_cluster: Cluster, namespace: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = start(full_cluster, namespace, config, WRITER)

    def status() -> Any:
        assert main(["status", name, "-n", namespace, "-o", "json"]) == exit_codes.DONE
        return json.loads(capsys.readouterr().out)[0]

    def stepping() -> Any:
        found = status()
        return found if found["percent"] else None

    running = eventually(stepping)
    assert (running["state"], running["phase"], running["loss"]) == ("Running", "training", 2.5)
    assert (running["restarts"], running["run_id"]) == (0, RUN) and running["eta_s"] < 20
    assert main(["logs", name, "-n", namespace, "--follow"]) == exit_codes.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"job {name}, run {RUN}, attempt 1"
    assert [json.loads(line)["step"] for line in lines[1:]] == list(range(1, 21))
    assert main(["wait", name, "-n", namespace]) == exit_codes.DONE
    assert main(["logs", name, "-n", namespace, "--tail", "1", "--grep", '"step": 20']) == exit_codes.DONE
    assert '"step": 20' in capsys.readouterr().out
    assert status()["scores"] == {"en-fr": {"bleu": 33.5, "chrf": 57.0}}
    adapter, whole = tmp_path / "adapter", tmp_path / "whole"
    assert main(["fetch", name, "-n", namespace, "--to", str(adapter)]) == exit_codes.DONE
    assert (adapter / "adapter_model.safetensors").read_bytes() == b"weights" * 300_000
    assert main(["fetch", MODEL, "-n", namespace, "--what", "run", "--to", str(whole)]) == exit_codes.DONE
    found = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    assert found == [".mtft-fetched.json", "finished.json", "lora/adapter_model.safetensors", "report.html"]


def test_logs_over_a_restart_and_cut_connections(
    full_cluster: Cluster,
    namespace: str,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = start(full_cluster, namespace, config, TWICE)
    codes: list[int] = []
    with cuttable(full_cluster, tmp_path) as (kubeconfig, proxy):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        verb = ["logs", name, "-n", namespace, "--follow"]
        following = threading.Thread(target=lambda: codes.append(main(verb)), daemon=True)
        following.start()
        said = ""

        def seen(line: str) -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return f"{line}\n" in said

        for line in ("attempt 1 line 12", "attempt 2 line 12"):
            eventually(partial(seen, line))
            proxy.cut()
        following.join(120)
        said += capsys.readouterr().out
    monkeypatch.setenv("KUBECONFIG", str(full_cluster.kubeconfig))
    assert codes == [exit_codes.DONE]
    assert said.splitlines() == [f"attempt {attempt} line {line}" for attempt in (1, 2) for line in range(40)]
    assert main(["wait", name, "-n", namespace]) == exit_codes.DONE


def test_what_is_not_there_is_said(
    full_cluster: Cluster, namespace: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fetch", MODEL, "-n", namespace, "--config", str(config), "--to", str(tmp_path / "x")]
    assert main(arguments) == exit_codes.BAD_INPUT
    assert "no run of opus_mt_en_fr is finished yet" in capsys.readouterr().err


def test_the_doctor_looks_from_a_pod(namespace: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "-n", namespace, "--config", str(config), "--set", "cluster.nodes=2", "-o", "json"]

    def layers(*more: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*arguments, *more]) in (exit_codes.DONE, exit_codes.FAILED)
        return {each["layer"]: each for each in json.loads(capsys.readouterr().out)}

    assert layers()["space"]["verdict"] == "skip"
    found = layers("--probe")
    assert "GiB are free" in found["space"]["message"], found["space"]
    assert found["write access"]["verdict"] == "ok" and "user 4321, groups 0" in found["write access"]["message"]
    assert found["DNS"] == {
        "layer": "DNS",
        "verdict": "ok",
        "message": "a pod finds the cluster's services by name",
        "fix": None,
    }


def test_a_pod_that_nobody_uses_ends_by_itself(
    namespace: str, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As after a launcher that was killed; a command keeps it, however long it is."""
    monkeypatch.setattr(transfer_pod, "_IDLE", 3)
    [*_, job] = render(json.loads(config.read_text()), MODEL, namespace=namespace)
    template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    cluster = connect(None, namespace)
    with transfer_pod.running(cluster, transfer_pod.transfer_pod(template, read_only=True)) as name:
        long = Remote(cluster, name, namespace, "import time; time.sleep(8); print('{}')")
        assert long.ask() == [{}]
        eventually(lambda: cluster.get(PODS, name)["status"]["phase"] == "Succeeded")
        with pytest.raises(NotFound, match="it ended; give the same command again"):
            long.ask()


def test_a_volume_that_belongs_to_others_is_told(
    full_cluster: Cluster, namespace: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a new network share, which its server's root owns."""
    top, rows = volume(full_cluster, namespace), tmp_path / "rows.jsonl"
    rows.write_text('{"source": "a", "target": "b"}\n')
    top.chmod(0o755)
    given = ["-n", namespace, "--config", str(config)]
    words = "user 4321, groups 0"
    assert main(["data", "push", str(rows), *given]) == exit_codes.BAD_INPUT
    assert f"/mnt/mtft/data: Permission denied; the pod runs as {words}: let group 0" in capsys.readouterr().err
    assert main(["doctor", *given, "--probe", "-o", "json"]) == exit_codes.FAILED
    found = {each["layer"]: each for each in json.loads(capsys.readouterr().out)}["write access"]
    assert found["verdict"] == "fail" and found["message"] == f"pods may not write in /mnt/mtft, as {words}"
    top.chmod(0o2775)
    assert main(["data", "push", str(rows), *given]) == exit_codes.DONE
    (top / "data").chmod(0o555)
    rows.write_text('{"source": "a", "target": "c"}\n')
    assert main(["data", "push", str(rows), *given, "--to", "more.jsonl"]) == exit_codes.BAD_INPUT
    assert "/mnt/mtft/data: Permission denied" in capsys.readouterr().err
    assert [each.name for each in (top / "data").iterdir()] == [rows.name]
