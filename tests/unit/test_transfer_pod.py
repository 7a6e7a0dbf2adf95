"""The pod of a transfer: what it is made from, how long it is waited for, whose job it belongs to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import labels
from launcher import transfer_pod as transfer_pods
from launcher.cluster_errors import ClusterError
from launcher.pytorchjob import render
from launcher.resources import Resource
from launcher.transfer_pod import root_of, running, transfer_pod
from launcher.verbs.fetch import find_job
from mtft.errors import InputError
from tests.unit import tiny_api
from tests.unit.tiny_api import TinyApi


def test_the_pod_is_a_jobs_pod_without_its_gpus() -> None:
    document = {
        "model": "opus_mt_en_fr",
        "data": {"train": "x.jsonl"},
        "storage": {"root": "/mnt/shared"},
        "cluster": {
            "image": "example.org/mtft:1.0",
            "claim": "files",
            "tolerations": [{"key": "pool", "operator": "Exists"}],
            "image_pull_secrets": ["registry"],
            "labels": {"team": "mt"},
            "annotations": {"owner": "me"},
            "secrets": {"HF_TOKEN": {"name": "hub", "key": "token"}},
        },
    }
    job = render(document, "opus_mt_en_fr")[-1]
    template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    # What Kueue writes into the template of a job it admits, and reads from the pods of its podsets.
    template["metadata"]["labels"]["kueue.x-k8s.io/podset"] = "master"
    template["metadata"]["annotations"]["kueue.x-k8s.io/workload"] = "w"
    meta = transfer_pod(template, read_only=True)["metadata"]
    assert meta["labels"]["team"] == "mt" and meta["annotations"] == {"owner": "me", labels.ISTIO: "false"}
    assert labels.RUN not in meta["labels"] and not any("kueue" in key for key in meta["labels"])
    assert root_of(template["spec"]) == "/mnt/shared"
    pod = transfer_pod(template, read_only=True)
    [container] = pod["spec"]["containers"]
    assert "env" not in container and "nvidia.com/gpu" not in container["resources"]["limits"]
    assert container["volumeMounts"] == [{"name": "storage", "mountPath": "/mnt/shared", "readOnly": True}]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["volumes"] == [{"name": "storage", "persistentVolumeClaim": {"claimName": "files"}}]
    assert pod["spec"]["tolerations"] and pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["spec"]["activeDeadlineSeconds"] > 0 and not pod["spec"]["automountServiceAccountToken"]


class Refusing:
    """A cluster that neither makes nor deletes."""

    def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        raise ClusterError("the quota is used up")

    def delete(self, resource: Resource, name: str, *, grace_seconds: int) -> bool:
        raise ClusterError("may not be deleted")


def test_what_went_wrong_first_is_told() -> None:
    with pytest.raises(ClusterError, match="the quota is used up"), running(Refusing(), {"metadata": {"name": "p"}}):  # type: ignore[arg-type]
        raise AssertionError("no pod")


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TinyApi, Callable[[], Future[None]]]]:
    """Give an API server with a pod that is on a node, and what waits for it to run: two seconds without progress."""
    monkeypatch.setattr(transfer_pods, "_LOOK_SECONDS", 1.0)
    api = TinyApi()
    api.put(pending("Pending"))
    with tiny_api.serve(api) as cluster, ThreadPoolExecutor(1) as pool:
        yield api, lambda: pool.submit(transfer_pods._await, cluster, pending("Pending"), 2.0)


def pending(phase: str) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "team", "uid": "pod-1"}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": "node-1"}, "status": {"phase": phase}}


def event(reason: str, message: str) -> dict[str, Any]:
    about = {"kind": "Pod", "name": "p", "uid": "pod-1"}
    metadata = {"name": f"p.{reason}", "uid": reason}
    return {"kind": "Event", "metadata": metadata, "involvedObject": about, "reason": reason, "message": message}


def test_a_pod_has_the_time_its_image_takes(
    waiting: tuple[TinyApi, Callable[[], Future[None]]], capsys: pytest.CaptureFixture[str]
) -> None:
    api, wait = waiting
    api.put(event("Pulling", 'Pulling image "example.org/mtft:1.0"'))
    waits = wait()
    time.sleep(4)
    assert not waits.done()
    api.put(pending("Running"))
    waits.result(10)
    assert 'waiting for pod p: Pulling image "example.org/mtft:1.0"' in capsys.readouterr().err


def test_a_pod_that_makes_no_progress_is_given_up(waiting: tuple[TinyApi, Callable[[], Future[None]]]) -> None:
    api, wait = waiting
    api.put(event("FailedMount", "MountVolume.SetUp failed: access denied"))
    with pytest.raises(ClusterError, match=r"did not start within 2 s: its node .* access denied"):
        wait().result(30)


def test_a_pod_that_somebody_deletes_is_not_waited_for(waiting: tuple[TinyApi, Callable[[], Future[None]]]) -> None:
    api, wait = waiting
    waits = wait()
    while not any("watch=true" in request for request in api.requests):
        time.sleep(0.01)
    api.remove("Pod", "p")
    with pytest.raises(ClusterError, match="was deleted by somebody else"):
        waits.result(30)


def test_a_job_that_mounts_no_claim_is_not_ours() -> None:
    with pytest.raises(InputError, match="mounts no claim"):
        transfer_pod({"spec": {"containers": [{"name": "pytorch", "image": "x"}]}}, read_only=True)


def test_a_job_without_its_label_is_found_by_its_name_or_told() -> None:
    jobs = []
    for name in ("night-opus-mt-en-fr-0123456789", "mine"):
        [_, job] = render(
            {"model": "opus_mt_en_fr", "data": {"train": "x.jsonl"}, "cluster": {"image": "a/b:1"}},
            "opus_mt_en_fr",
            name=name,
            namespace="team",
        )
        del job["metadata"]["labels"][labels.MODEL]
        jobs.append(job)
    cluster: Any = SimpleNamespace(list=lambda *_, **__: SimpleNamespace(items=jobs))
    assert find_job(cluster, "night-opus-mt-en-fr-0123456789", None).model == "opus_mt_en_fr"
    with pytest.raises(InputError, match=r"mine has no label .*model.* name the model instead .*opus_mt_en_fr"):
        find_job(cluster, "mine", None)


def test_what_a_name_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = []
    for number, model in enumerate(["opus_mt_en_fr", "opus_mt_en_fr", "m2m100_418m"]):
        document = {"data": {"train": "x.jsonl"}, "cluster": {"image": "a/b:1", "claim": f"c{number}"}}
        [_, job] = render(document, model, name=f"j-{number}", namespace="team", batch="night")
        job["metadata"]["creationTimestamp"] = f"2030-01-0{number + 1}T00:00:00Z"
        jobs.append(job)
    cluster: Any = SimpleNamespace(list=lambda *_, **__: SimpleNamespace(items=jobs))

    def meant(name: str, config: Path | None = None) -> tuple[str | None, str | None, str]:
        found = find_job(cluster, name, config)
        [volume] = transfer_pod(found.template, read_only=True)["spec"]["volumes"]
        return found.job, found.model, volume["persistentVolumeClaim"]["claimName"]

    assert meant("j-0") == ("j-0", "opus_mt_en_fr", "c0")
    assert meant("opus_mt_en_fr") == (None, "opus_mt_en_fr", "c1")
    assert meant("night") == (None, None, "c2")
    jobs[0]["status"] = {"conditions": [{"type": "Running", "status": "False"}]}
    assert meant("opus_mt_en_fr")[2] == "c0", "the image of one that never ran may be wrong"
    named = tmp_path / "apart.json"
    named.write_text(json.dumps({"cluster": {"image": "a/b:1", "claim": "apart"}}))
    assert meant("opus_mt_en_fr", named)[2] == "apart" and meant("j-0", named)[2] == "c0"
    with pytest.raises(InputError, match=r"there is no job, batch or model named nigth .*did you mean night"):
        meant("nigth")
