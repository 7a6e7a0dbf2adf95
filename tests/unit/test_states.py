"""What is told of a job, from objects as an API server gives them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from launcher import labels
from launcher.description import describe, page
from launcher.job_objects import by_job, gpus_of
from launcher.job_tables import note, status_row
from launcher.output import table
from launcher.pod_reasons import UNSEEN
from launcher.progress import STARTED_AGAIN, read_progress
from launcher.states import JobState, job_state
from mtft import exit_codes

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
FINISHED = {
    "gate": {"verdict": "better"},
    "scores": {
        "base": {"en-fr": {"bleu": 30.0, "chrf": 55.0}},
        "tuned": {"en-fr": {"bleu": 33.456, "chrf": 57.25, "off_target": 0.0}},
    },
}
LOG = [
    "2030-01-02T03:00:00.123456789Z job m-1, run 20300102T030000Z-0a1b2c3d, attempt 2",
    "2030-01-02T03:01:00.5Z continuing from step-40 of 100 steps",
    '2030-01-02T03:03:05.000000000Z {"type": "train", "step": 60, "total": 100, "percent": 60.0, "eta_s": 300.0, '
    '"loss": 2.5, "tokens_per_second": 900.5}',
]


def at(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(*conditions: tuple[str, str], workers: int = 0, suspend: bool = False, **changes: Any) -> dict[str, Any]:
    container = {"name": "pytorch", "image": "example.org/mtft:1", "resources": {"limits": {"nvidia.com/gpu": "4"}}}
    role = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    specs = {"Master": role} | ({"Worker": {**role, "replicas": workers}} if workers else {})
    given = {labels.MODEL: "opus_mt_en_fr", labels.BATCH: "night"} | changes.pop("labels", {})
    return {
        "metadata": {
            "name": "m-1",
            "namespace": "team",
            "creationTimestamp": at(10),
            "labels": given,
            **changes,
        },
        "spec": {"pytorchReplicaSpecs": specs, "runPolicy": {"suspend": suspend}},
        "status": {
            "startTime": at(8),
            "conditions": [
                {"type": kind, "status": status, "lastTransitionTime": at(1), "message": f"PyTorchJob is {kind}"}
                for kind, status in conditions
            ],
        },
    }


def pod(
    phase: str = "Running", *, role: str = "master", index: int = 0, node: str | None = "gpu-1", **status: Any
) -> dict[str, Any]:
    given = {labels.OPERATOR_JOB: "m-1", labels.OPERATOR_REPLICA: role, labels.OPERATOR_INDEX: str(index)}
    return {
        "metadata": {"name": f"m-1-{role}-{index}", "namespace": "team", "labels": given},
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, **status},
    }


def ended(code: int, message: object = "", *, why: str = "Error", phase: str = "Failed", **more: Any) -> dict[str, Any]:
    text = message if isinstance(message, str) else json.dumps(message)
    terminated = {"exitCode": code, "reason": why, "message": text}
    return pod(phase, containerStatuses=[{"name": "pytorch", "state": {"terminated": terminated}}], **more)


def state_of(job: dict[str, Any], *pods: dict[str, Any], log: list[str] | None = None) -> JobState:
    return job_state(job, pods, now=NOW, progress=read_progress(log) if log else None)


CREATED, RUNNING, RESTARTING = ("Created", "True"), ("Running", "True"), ("Restarting", "True")
SUCCEEDED, FAILED = ("Succeeded", "True"), ("Failed", "True")


@pytest.mark.parametrize("condition", [RUNNING, RESTARTING])
@pytest.mark.parametrize("role", ["Master", "Worker"])
def test_a_job_restarts_while_a_pod_is_replaced_whatever_the_operator_says_last(
    condition: tuple[str, str], role: str
) -> None:
    one = job(CREATED, condition, workers=2)
    whole = {"Master": {"active": 1}, "Worker": {"active": 2}}
    one["status"]["replicaStatuses"] = {**whole, role: {"active": whole[role]["active"] - 1, "failed": 1}}
    assert job_state(one, None, now=NOW).state == "Restarting"
    one["status"]["replicaStatuses"] = {**whole, "Worker": {"active": 2, "failed": 1}}  # replaced, not yet gone
    assert job_state(one, None, now=NOW).state == ("Running" if condition == RUNNING else "Restarting")


def test_a_running_job_tells_how_far_it_is() -> None:
    state = state_of(job(CREATED, RUNNING, workers=1), pod(), pod(role="worker", node="gpu-2"), log=LOG)
    assert (state.state, state.phase, state.percent, state.step, state.total_steps) == (
        "Running",
        "training",
        60.0,
        60,
        100,
    )
    # The line is a minute old: a minute less is left.
    assert (state.eta_s, state.quiet_s) == (240.0, 60.0)
    assert (state.loss, state.tokens_per_second) == (2.5, 900.5)
    assert (state.restarts, state.resumed_at, state.run_id) == (1, 40, "20300102T030000Z-0a1b2c3d")
    assert (state.nodes, state.pods, state.pods_wanted, state.gpus) == (("gpu-1", "gpu-2"), 2, 2, 8)
    assert (state.model, state.batch, state.age_s, state.took_s) == ("opus_mt_en_fr", "night", 600, 480)
    assert state.launcher_code is None and not state.ended


def test_time_left_is_never_below_none() -> None:
    late = job_state(job(RUNNING), [pod()], now=NOW + timedelta(hours=1), progress=read_progress(LOG))
    assert (late.eta_s, late.quiet_s) == (0.0, 3660.0)


@pytest.mark.parametrize("resource", ["nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "amd.com/gpu"])
def test_whatever_made_them_gpus_are_counted(resource: str) -> None:
    limits = {resource: "2", "cpu": "8", "example.com/fpga": "1"}
    assert gpus_of({"spec": {"containers": [{"resources": {"limits": limits}}]}}) == 2


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("better", exit_codes.DONE), ("not better", exit_codes.NOT_PROMOTED), ("regressed", exit_codes.NOT_PROMOTED)],
)
def test_a_finished_job_tells_its_scores_and_verdict(verdict: str, code: int) -> None:
    message = {"exit_code": 0, "run_id": "r-1", "finished": {**FINISHED, "gate": {"verdict": verdict}}}
    state = state_of(
        job(CREATED, ("Running", "False"), SUCCEEDED), ended(0, message, why="Completed", phase="Succeeded")
    )
    assert (state.state, state.verdict, state.launcher_code, state.run_id) == ("Succeeded", verdict, code, "r-1")
    assert state.scores == {
        "en-fr": {"bleu": 33.46, "bleu_delta": 3.46, "chrf": 57.25, "chrf_delta": 2.25, "off_target": 0.0}
    }
    assert state.reason is None and state.took_s == 420


def test_a_model_that_got_worse_is_told_with_what_got_worse() -> None:
    base, tuned = {"chrf": 50.0, "numbers": 0.99, "empty": 0.0}, {"chrf": 51.0, "numbers": 0.912, "empty": 0.001}
    reasons = ["en-fr: 9 more \x1b[31m", "en-fr: chrf +1.00 against the base, p = 0.0010"]
    reasons.append("nothing is promoted: `mtft-launch promote m --run r --force` puts it back")
    gate = {"verdict": "regressed", "reasons": reasons}
    told = {"gate": gate, "scores": {"base": {"en-fr": base}, "tuned": {"en-fr": tuned}}}
    given, pod = (
        job(CREATED, SUCCEEDED),
        ended(0, {"exit_code": 0, "finished": told}, why="Completed", phase="Succeeded"),
    )
    state = state_of(given, pod)
    assert state.verdict_reasons == (
        "en-fr: 9 more \\x1b[31m",
        reasons[1],
        reasons[2].replace("--force", "--force -n team"),
    )
    assert note(state) == "regressed; en-fr chrF 51.00 (+1.00); en-fr: 9 more \\x1b[31m"
    shown = page(describe(given, state, [], [], NOW))
    for words in ("numbers 91.2% (-7.8)", "empty 0.1% (+0.1)", "why:\n  en-fr: 9 more \\x1b[31m\n  en-fr: chrf +1.00"):
        assert words in shown


@pytest.mark.parametrize(
    "message",
    [
        {"finished": {"scores": "no"}, "attempt": "x"},
        {"finished": {"scores": {"tuned": "no", "base": 3}}},
        {"finished": {"scores": {"tuned": {"en-fr": {"bleu": "30"}}}, "gate": 3}},
        {"finished": {"gate": {"verdict": "better", "reasons": {"a": 1}}}},
        {"finished": 1, "reason": {"a": 1}},
        [1],
        "{",
    ],
)
def test_a_message_somebody_else_wrote_is_no_traceback(message: object) -> None:
    state = state_of(job(CREATED, SUCCEEDED), ended(0, message, why="Completed", phase="Succeeded"))
    assert state.state == "Succeeded"
    assert not any(state.scores.values())
    assert state_of(job(CREATED, FAILED), ended(2, message)).state == "Failed"


@pytest.mark.parametrize(
    "line", ['{"step":1e400,"total":2}', '{"step":1,"total":2,"percent":NaN}', "2026-99-99T99:99:99Z x", "{" * 9999]
)
def test_a_line_somebody_else_wrote_changes_nothing(line: str) -> None:
    assert read_progress([line]) == read_progress([])


def test_a_reason_cannot_move_the_cursor() -> None:
    state = state_of(job(CREATED, FAILED), ended(2, {"exit_code": 2, "reason": "\x1b[31mred\x1b]0;title\x07\rgone"}))
    shown = table([status_row(state, with_namespace=False)])
    assert "\x1b" not in shown and "\r" not in shown and "\\x1b[31mred" in shown


def test_a_finished_job_whose_pods_are_gone_is_done() -> None:
    state = state_of(job(SUCCEEDED))
    assert (state.launcher_code, state.verdict, state.scores) == (exit_codes.DONE, None, {})


@pytest.mark.parametrize(
    ("message", "why", "reason"),
    [
        ({"exit_code": 2, "reason": "train.jsonl:3: not JSON"}, "Error", "train.jsonl:3: not JSON"),
        ("Traceback ...\nImportError: no torch\n", "Error", "exit 2: ImportError: no torch"),
        ("", "Error", "exit 2"),
        ("", "OOMKilled", "out of host memory: the pod used more than its limit; raise cluster.memory_gib"),
        ('{"exit_code": 2, "rea', "Error", 'exit 2: {"exit_code": 2, "rea'),
        ("[1, 2]", "Error", "exit 2: [1, 2]"),
    ],
)
def test_a_failed_job_says_why(message: object, why: str, reason: str) -> None:
    state = state_of(job(CREATED, FAILED), ended(2, message, why=why))
    assert (state.state, state.reason, state.exit_code) == ("Failed", reason, 2)
    assert state.launcher_code == exit_codes.FAILED


def test_the_permanent_failure_is_told_not_the_peer_that_was_lost() -> None:
    lost = ended(143, {"exit_code": 143, "reason": "rank 0: another process is gone"})
    guilty = ended(2, {"exit_code": 2, "reason": "bad row"}, role="worker")
    assert state_of(job(FAILED, workers=1), lost, guilty).reason == "bad row"


def test_a_failed_job_without_pods_repeats_the_operator_and_names_what_the_volume_has() -> None:
    assert state_of(job(FAILED)).reason == (
        "PyTorchJob is Failed (its pods are gone); `mtft-launch fetch m-1 --what run -n team` brings "
        "console_output.txt, which has the reason"
    )


def test_an_evicted_pod_is_no_failed_job() -> None:
    evicted = pod("Failed", reason="Evicted", message="The node was low on resource: memory.")
    state = state_of(job(CREATED, RESTARTING), evicted)
    assert (state.state, state.ended) == ("Restarting", False)
    assert state.reason == "evicted from its node: The node was low on resource: memory."


def test_running_without_a_running_pod_is_restarting() -> None:
    state = state_of(job(CREATED, RUNNING), pod("Pending", node=None))
    assert (state.state, state.reason) == ("Restarting", "waiting for a node")


UNSCHEDULABLE = (
    "0/5 nodes are available: 1 node(s) had untolerated taint {pool: gpu}, 4 Insufficient nvidia.com/gpu. "
    "preemption: 0/5 nodes are available: 5 Preemption is not helpful for scheduling."
)


@pytest.mark.parametrize(
    ("status", "phase", "reason"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                             "message": UNSCHEDULABLE}]},
            "unscheduled",
            "no node fits: too little free nvidia.com/gpu on 4 nodes; taint {pool: gpu} of 1 nodes is not tolerated "
            "(0/5 nodes are available: 1 node(s) had untolerated taint {pool: gpu}, 4 Insufficient "
            "nvidia.com/gpu.)",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                             "message": 'persistentvolumeclaim "mtft" not found'}]},
            "unscheduled",
            'no node fits: the volume claim is missing (persistentvolumeclaim "mtft" not found)',
        ),
        (
            {"containerStatuses": [{"name": "pytorch", "state": {"waiting": {
                "reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}}]},
            "blocked",
            'the image cannot be pulled (Back-off pulling image "x")',
        ),
        (
            {"containerStatuses": [{"name": "pytorch", "state": {"waiting": {
                "reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}}}]},
            "blocked",
            'a Secret or ConfigMap the container needs is missing (secret "hub" not found)',
        ),
        (
            {"initContainerStatuses": [{"name": "init-pytorch", "state": {"running": {}}}],
             "containerStatuses": [{"name": "pytorch", "state": {"waiting": {"reason": "PodInitializing"}}}]},
            "starting",
            "waiting for the master pod",
        ),
        (
            {"containerStatuses": [{"name": "pytorch", "state": {"waiting": {"reason": "ContainerCreating"}}}]},
            "starting",
            "its node is pulling the image or mounting the volume",
        ),
    ],
)  # fmt: skip
def test_a_pending_job_says_what_it_waits_for(status: dict[str, Any], phase: str, reason: str) -> None:
    node = None if phase == "unscheduled" else "gpu-1"
    state = state_of(job(CREATED), pod("Pending", node=node, **status))
    assert (state.state, state.phase, state.reason) == ("Pending", phase, reason)


def begun(minutes: float, *, role: str = "master", done: bool = False) -> dict[str, Any]:
    times = {"startedAt": at(minutes)}
    state = {"terminated": {**times, "exitCode": 0, "finishedAt": at(0)}} if done else {"running": times}
    containers = [{"name": "pytorch", "state": state}]
    return pod("Succeeded" if done else "Running", role=role, containerStatuses=containers)


@pytest.mark.parametrize("done", [False, True])
def test_a_job_whose_start_the_operator_does_not_tell(done: bool) -> None:
    state = state_of(job(), begun(2, done=done))
    assert (state.state, state.phase, state.ended) == ("Pending", "unseen", False)
    assert (state.reason or "").startswith(UNSEEN) and "`mtft-launch doctor m-1 -n team`" in (state.reason or "")
    # It may yet tell; of a worker it tells nothing; it has told.
    for pods in ([begun(0.2, done=done)], [begun(2, role="worker", done=done)]):
        assert state_of(job(CREATED), *pods).phase == "starting"
    assert UNSEEN not in (state_of(job(CREATED, RUNNING), begun(2, done=done)).reason or "")


def test_a_job_nobody_took_up() -> None:
    fresh = job()
    del fresh["status"]
    state = state_of(fresh)
    assert (state.state, state.phase) == ("Pending", "no pods yet")
    # Who did not ask for pods says nothing of them.
    unasked = job_state(job(CREATED), None, now=NOW)
    assert (unasked.phase, unasked.reason) == ("waiting to run", None)
    assert state.reason is not None and "may make none" in state.reason
    assert f"`mtft-launch doctor {state.name} -n {state.namespace}` tells" in state.reason


def test_suspended_by_hand_or_by_its_queue() -> None:
    queue = {labels.QUEUE: "night-queue"}
    suspended = ("Suspended", "True")
    assert state_of(job(CREATED, suspended, suspend=True)).state == "Suspended"
    queued = state_of(job(CREATED, suspended, suspend=True, labels=queue))
    assert (queued.state, queued.queue) == ("Queued", "night-queue")
    cancelled = state_of(job(CREATED, suspended, suspend=True, annotations={labels.CANCELLED: at(1)}))
    assert cancelled.reason == f"`mtft-launch resume {cancelled.name} -n {cancelled.namespace}` continues it"
    assert (cancelled.state, cancelled.launcher_code, cancelled.ended) == ("Cancelled", exit_codes.FAILED, False)
    # Resumed: the mark of an earlier cancelling says nothing any more.
    assert state_of(job(RUNNING, annotations={labels.CANCELLED: at(1)}), pod()).state == "Running"
    # Terminal conditions outlive a suspension.
    assert state_of(job(("Suspended", "False"), SUCCEEDED, suspend=True)).state == "Succeeded"
    assert state_of(job(RUNNING, deletionTimestamp=at(0))).state == "Deleting"


def test_phases_follow_the_log() -> None:
    after = [
        ("job m-1, run r-1, attempt 1", "preparing"),
        ("step 0 base_test: en-fr BLEU 30.00 chrF 55.00 (n=5)", "training"),
        ("opus_mt_en_fr: lora, 1,000 trained weights, 50 rows, 10 steps of about 5 sentences", "training"),
        ("step 0 dev: nll 2.0000, en-fr BLEU 30.00 chrF 55.00 (n=5)", "training"),
        ('{"step": 10, "total": 10, "percent": 100, "eta_s": 0, "loss": 1, "tokens_per_second": 5}', "scoring test"),
        ("step 10 dev: nll 1.0000", "scoring test"),
        ("step 10 test: en-fr BLEU 31.00 chrF 56.00 (n=5)", "finishing"),
    ]  # fmt: skip
    for count, (_, phase) in enumerate(after, start=1):
        assert read_progress([line for line, _ in after[:count]]).phase == phase
    assert read_progress([]).phase == "starting"
    assert read_progress(['{"step": 1, "tot', "{}", "noise", '{"step": "a"}']).phase == "starting"
    assert read_progress(["node 1: waiting for node 0"]).phase == "waiting for node 0"
    again = ["job m-1, run r-1, attempt 2", "the attempt before ended: node 1 was lost"]
    assert state_of(job(RUNNING), pod(), log=again).reason == f"{STARTED_AGAIN}node 1 was lost"


DISRUPTED = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}


def test_pods_are_dealt_to_their_jobs() -> None:
    stranger, other, earlier, own = pod(), pod(), pod(), pod()
    stranger["metadata"]["labels"] = {}
    other["metadata"]["namespace"] = "else"
    owner = {"kind": "PyTorchJob", "name": "m-1", "controller": True}
    earlier["metadata"]["ownerReferences"] = [{**owner, "uid": "an-earlier-job"}]
    own["metadata"]["ownerReferences"] = [{**owner, "uid": "mine"}]
    elsewhere = job(uid="its")
    elsewhere["metadata"] = {**elsewhere["metadata"], "namespace": "else"}
    found = by_job([pod(), other, stranger, earlier, own], [job(uid="mine"), elsewhere])
    assert {key: len(pods) for key, pods in found.items()} == {("team", "m-1"): 2, ("else", "m-1"): 1}


@pytest.mark.parametrize("said", [{"reason": "NodeLost"}, {"conditions": [DISRUPTED]}])
def test_a_pod_whose_node_is_lost_does_not_run(said: dict[str, Any]) -> None:
    lost = pod()
    lost["metadata"]["deletionTimestamp"] = "2030-01-02T03:04:05Z"
    lost["spec"] = {"nodeName": "n1"}
    lost["status"] = {"phase": "Running", **said}
    state = job_state(job(("Running", "True")), [lost], now=NOW)
    assert (state.state, state.pods) == ("Restarting", 0)
    assert "as its node n1 does not answer" in (state.reason or "")
    del lost["metadata"]["deletionTimestamp"]
    assert job_state(job(("Running", "True")), [lost], now=NOW).state == "Running"
