"""What the doctor says of one job, from what its pods and its configuration say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from launcher.doctor_job import diagnose
from launcher.pod_reasons import unschedulable
from launcher.progress import Progress
from launcher.pytorchjob import render
from launcher.remote_files import LET_IN
from launcher.state_words import Name
from launcher.states import job_state
from mtft.errors import NO_RIGHT, NO_ROOM

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
DOCUMENT = {
    "model": "opus_mt_en_fr",
    "data": {"train": "/mnt/mtft/data/x.jsonl"},
    "cluster": {
        "image": "example.org/mtft:1.0",
        "secrets": {"HF_TOKEN": {"name": "hub", "key": "token"}, "HF_ORG": {"name": "hub", "key": "org"}},
    },
}


@pytest.mark.parametrize(
    ("reason", "message", "fix"),
    [
        (
            "CreateContainerConfigError",
            'secret "hub" not found',
            "kubectl create secret generic hub --from-literal=org=... --from-literal=token=... -n team; its pod starts",
        ),
        (
            "CreateContainerConfigError",
            "couldn't find key token in Secret team/hub",
            "put key token into it (kubectl edit secret hub -n team)",
        ),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root (pod: m-1-master-0, container: pytorch)",
            "set cluster.run_as_user to a number above 0",
        ),
        ("ImagePullBackOff", 'Back-off pulling image "example.org/mtft:1.0"', "check cluster.image"),
        ("CreateContainerError", "no command", "mtft-launch describe m-1 -n team"),
    ],
)
def test_a_job_that_cannot_start_is_a_failure_with_its_fix(reason: str, message: str, fix: str) -> None:
    job = render(DOCUMENT, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    waiting = [{"name": "pytorch", "state": {"waiting": {"reason": reason, "message": message}}}]
    pod: Any = {
        "metadata": {"name": "m-1-master-0", "namespace": "team", "uid": "pod-1", "labels": {}},
        "spec": {"nodeName": "gpu-1"},
        "status": {"phase": "Pending", "containerStatuses": waiting},
    }
    found = diagnose(job_state(job, [pod], now=NOW), job)
    assert found.verdict == "fail" and message in found.message
    assert found.fix is not None and fix in found.fix
    assert ("is missing" in found.message) == ("Secret" in message or "secret" in message)
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] = "ContainerCreating"
    assert diagnose(job_state(job, [pod], now=NOW), job).verdict == "warn"


@pytest.mark.parametrize(
    ("worker", "verdict", "fix"),
    [
        ({"phase": "Running"}, "ok", None),
        (
            {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]},
            "warn",
            "see the layers above",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [{"name": "pytorch", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
            },
            "fail",
            "check cluster.image",
        ),
    ],
)
def test_a_job_that_runs_may_lack_a_worker(worker: dict[str, Any], verdict: str, fix: str | None) -> None:
    document = {**DOCUMENT, "cluster": {**DOCUMENT["cluster"], "nodes": 2}}  # type: ignore[dict-item]
    job = render(document, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    job["status"] = {"conditions": [{"type": "Running", "status": "True"}]}
    pods: Any = [
        {
            "metadata": {"name": f"m-1-worker-{rank}", "namespace": "team", "uid": f"pod-{rank}", "labels": {}},
            "spec": {"nodeName": "gpu-1"},
            "status": status,
        }
        for rank, status in enumerate(({"phase": "Running"}, worker))
    ]
    found = diagnose(job_state(job, pods, now=NOW), job)
    assert (found.verdict, (found.fix or "")[: len(fix or "")]) == (verdict, fix or "")


def test_a_job_that_starts_again_and_again_is_a_warning() -> None:
    job = render(DOCUMENT, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    job["status"] = {"conditions": [{"type": "Running", "status": "True"}]}
    for attempt, verdict in ((2, "ok"), (3, "warn")):
        progress = Progress(attempt=attempt, ended_before="rank 0: out of host memory")
        found = diagnose(job_state(job, None, now=NOW, progress=progress), job)
        assert found.verdict == verdict and "the attempt before ended: rank 0: out of host memory" in found.message


@pytest.mark.parametrize(("code", "verb"), [(2, "delete"), (3, "delete"), (1, "retry")])
def test_the_remedy_of_a_failed_job_names_its_namespace(code: int, verb: str) -> None:
    job = render(DOCUMENT, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    state = replace(job_state(job, None, now=NOW), state="Failed", exit_code=code)
    found = diagnose(state, job)
    assert found.fix is not None and f"mtft-launch {verb} m-1 -n team" in found.fix


@pytest.mark.parametrize(("state", "verb"), [("Suspended", "resume"), ("Pending", "describe"), ("Running", "logs")])
def test_every_command_for_a_job_names_its_namespace(state: Name, verb: str) -> None:
    job = render(DOCUMENT, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    found = diagnose(replace(job_state(job, None, now=NOW), state=state, phase="", quiet_s=3600), job)
    assert found.fix is not None and f"mtft-launch {verb} m-1 -n team" in found.fix


@pytest.mark.parametrize(
    ("code", "words"),
    [(2, "correct the configuration"), (3, "train.learning_rate"), (1, "mtft-launch fetch m-1 --what run -n team")],
)
def test_no_log_is_named_where_no_pod_is_left(code: int, words: str) -> None:
    job = render(DOCUMENT, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    state = replace(job_state(job, [], now=NOW), state="Failed", exit_code=code)
    fix = diagnose(state, job, gone=True).fix or ""
    assert words in fix and "mtft-launch logs" not in fix
    unknown = diagnose(replace(state, exit_code=None), job, gone=True).fix or ""
    assert unknown.startswith("look why it failed before") and "mtft-launch logs" not in unknown


def test_want_of_room_or_of_rights_is_no_fault_of_the_data() -> None:
    job = render(DOCUMENT, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    state = replace(job_state(job, [], now=NOW), state="Failed", exit_code=2, reason=f"28 MiB free, but ...; {NO_ROOM}")
    fix = diagnose(state, job).fix or ""
    assert fix.startswith("free space below storage.root on claim mtft; then mtft-launch retry m-1 -n team")
    closed = replace(state, reason=f"/mnt/mtft/outputs: Permission denied; {NO_RIGHT}")
    assert str(diagnose(closed, job).fix).startswith(f"{LET_IN}; then mtft-launch retry m-1 -n team")


def test_who_may_not_see_nodes_is_told_who_may() -> None:
    job = render(DOCUMENT, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    state = replace(job_state(job, [], now=NOW), state="Pending", phase="unscheduled")
    found = diagnose(state, job, nodes_seen=False)
    assert found.verdict == "warn" and "you may not list nodes" in (found.fix or "")
    assert "manifests/components/nodes" in (found.fix or "") and "layers above" not in (found.fix or "")
    assert "see the layers above" in (diagnose(state, job).fix or "")


@pytest.mark.parametrize(
    "words", ["didn't match PersistentVolume's node affinity", "had volume node affinity conflict"]
)
def test_a_volume_elsewhere_and_cordoned_nodes_are_told_beside_taints(words: str) -> None:
    said = (
        f"0/5 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s), 2 node(s) {words}."
    )
    reason = unschedulable(said)
    assert reason == (
        "no node fits: taints of 2 nodes are not tolerated; 1 nodes are cordoned; "
        f"2 nodes are not where the volume is ({said})"
    )
    job = render(DOCUMENT, "opus_mt_en_fr", name="m-1", namespace="team")[-1]
    state = replace(job_state(job, [], now=NOW), state="Pending", phase="unscheduled", reason=reason)
    assert (diagnose(state, job).fix or "").startswith("kubectl describe pvc mtft -n team names its volume")
    full = replace(state, reason=unschedulable(f"{said} 3 Insufficient nvidia.com/gpu."))
    assert (diagnose(full, job).fix or "").startswith("see the layers above"), "room may come where the volume is"
