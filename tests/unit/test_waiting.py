"""What somebody who waits is told of jobs that do not run, and of a server that does not answer."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import feed, labels, logs, waiting
from launcher.changes import Listing
from launcher.cli import main
from launcher.cluster import Cluster
from launcher.cluster_errors import Busy, ClusterError, NoConnection
from launcher.description import describe, page
from launcher.doctor_job import diagnose
from launcher.log_lines import Printer
from launcher.pod_reasons import NO_SERVICE, UNSEEN
from launcher.resources import JOBS, PODS, Resource
from launcher.states import JobState
from launcher.verbs import batch
from launcher.waiting import wait_for
from launcher.watching import jobs_now
from mtft import exit_codes
from tests.unit.tiny_api import NAMESPACE, TinyApi, serve

QUOTA = 'pods "m-1-master-0" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0'
REFUSED = f"the cluster refuses its pods: {QUOTA}"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_ASKED", 0.05)
    monkeypatch.setattr(waiting, "ASKED_EVERY", 0.05)


def at(minutes: float) -> str:
    return (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(*conditions: str, age: float = 10.0, workers: int = 0) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "pytorch", "image": "example.org/mtft:1.0"}]}}
    roles = {"Master": {"replicas": 1, "template": template}}
    if workers:
        roles["Worker"] = {"replicas": workers, "template": template}
    meta = {"name": "m-1", "namespace": NAMESPACE, "uid": "job-1", "labels": {labels.PART_OF: "mtft"}}
    return {
        "kind": "PyTorchJob",
        "metadata": {**meta, "creationTimestamp": at(-age)},
        "spec": {"pytorchReplicaSpecs": roles},
        "status": {"conditions": [{"type": kind, "status": "True"} for kind in conditions]},
    }


def pod(said: str | None = None, *, made: str) -> dict[str, Any]:
    given = {labels.OPERATOR_JOB: "m-1", labels.OPERATOR_REPLICA: "master", labels.OPERATOR_INDEX: "0"}
    meta = {"name": "m-1-master-0", "namespace": NAMESPACE, "uid": "pod-1", "labels": given, "creationTimestamp": made}
    reason = {"reason": "ImagePullBackOff", "message": said} if said else {"reason": "ContainerCreating"}
    containers = [{"name": "pytorch", "state": {"waiting": reason}}]
    return {
        "kind": "Pod",
        "metadata": meta,
        "spec": {"nodeName": "gpu-1"},
        "status": {"phase": "Pending", "containerStatuses": containers},
    }


def refusal(when: str, uid: str = "job-1", *, reason: str = "FailedCreatePod", said: str = QUOTA) -> dict[str, Any]:
    return {
        "kind": "Event",
        "type": "Warning",
        "reason": reason,
        "message": f"Error creating: {said}",
        "metadata": {"name": "m-1.1", "namespace": NAMESPACE, "uid": "event-1"},
        "involvedObject": {"kind": "PyTorchJob", "name": "m-1", "uid": uid},
        "lastTimestamp": when,
    }


def test_status_says_why_pods_are_refused(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Created"))
    api.put(refusal(at(-9)))
    [state] = jobs_now(cluster)
    assert (state.state, state.phase, state.reason) == ("Pending", "no pods yet", REFUSED)
    api.put(refusal(at(-9), uid="an-earlier-job"))
    [state] = jobs_now(cluster)
    assert "mtft-launch doctor m-1" in (state.reason or "")


@pytest.mark.parametrize(("refused", "told"), [(-2, True), (-8, False)], ids=["a worker", "mended"])
def test_a_refusal_counts_until_a_pod_was_made(api: TinyApi, cluster: Cluster, refused: float, told: bool) -> None:
    api.put(job("Created", workers=1))
    api.put(pod(made=at(-5)))
    api.put(refusal(at(refused)))
    [state] = jobs_now(cluster)
    assert (state.reason == REFUSED) == told, state.reason


SERVICE = 'services "m-1-master-0" '
USED_UP = f"{SERVICE}is forbidden: exceeded quota: few, requested: services=1, used: services=2, limited: services=2"


@pytest.mark.parametrize(
    ("said", "words", "fix"),
    [
        (USED_UP, "the quota of Services is used up", "kubectl describe quota few -n team"),
        (f"{SERVICE}already exists", "another one has its name", "kubectl delete service m-1-master-0 -n team"),
        (f"{SERVICE}is forbidden: no", f"has ended ({SERVICE}", "mtft-launch describe m-1 -n team"),
    ],
)
def test_status_and_doctor_say_why_a_service_is_refused(
    api: TinyApi, cluster: Cluster, said: str, words: str, fix: str
) -> None:
    one = job(workers=1)  # the operator goes no further than the first Service it cannot make
    api.put(one)
    api.put(pod("no such image", made=at(-9)))
    event = refusal(at(-8), reason="FailedCreateService", said=said)
    api.put(event)
    [state] = jobs_now(cluster)
    assert (state.state, state.phase) == ("Pending", "unseen")
    reason = state.reason or ""
    assert reason.startswith(NO_SERVICE) and words in reason and said in reason
    found = diagnose(state, one)
    assert found.verdict == "fail" and reason in found.message and fix in (found.fix or "")
    told: list[str | None] = []
    wait_for(cluster, ["m-1"], 0.5, report=lambda state: told.append(state.reason))
    assert told == [None, reason]
    api.put(job("Created", "Restarting", workers=1))  # a pod is missing again, the event is of before
    [state] = jobs_now(cluster)
    assert NO_SERVICE not in (state.reason or "")


def test_doctor_names_what_keeps_the_operator_from_telling(api: TinyApi, cluster: Cluster) -> None:
    one = job()
    api.put(one)
    begun = {
        "phase": "Running",
        "containerStatuses": [{"name": "pytorch", "state": {"running": {"startedAt": at(-5)}}}],
    }
    api.put({**pod(made=at(-9)), "status": begun})
    [state] = jobs_now(cluster)
    assert (state.phase, (state.reason or "").startswith(UNSEEN)) == ("unseen", True)
    api.put(refusal(at(-1), reason="FailedCreateService", said=USED_UP))
    assert [USED_UP in (state.reason or "") for state in jobs_now(cluster)] == [True]
    del api.objects["Event", "m-1.1"]
    found = diagnose(state, one)
    assert found.verdict == "fail"
    for words in (
        "raise the quota of Services",
        "mtft-launch delete NAME -n team",
        "delete service m-1-master-0 -n team",
    ):
        assert words in (found.fix or "")
    told: list[str | None] = []
    wait_for(cluster, ["m-1"], 0.5, report=lambda state: told.append(state.reason))
    assert told == [None, state.reason]


NO_SCHEDULER = "no scheduler `volcano` has looked at the pod; install it, or cluster.scheduler: null"


def unbound(scheduler: str = "volcano", **changes: Any) -> dict[str, Any]:
    """Return a pod nobody has given a node."""
    found = pod(made=at(-9))
    return {**found, "spec": {"schedulerName": scheduler}, "status": {"phase": "Pending"}} | changes


def test_status_and_doctor_name_a_scheduler_that_is_not_there(api: TinyApi, cluster: Cluster) -> None:
    one = job("Created")
    api.put(one)
    api.put(unbound())
    [state] = jobs_now(cluster)
    assert (state.state, state.phase, state.reason) == ("Pending", "blocked", NO_SCHEDULER)
    found = diagnose(state, one)
    assert found.verdict == "fail" and found.fix is not None
    assert "install the scheduler" in found.fix and "mtft-launch delete m-1" in found.fix
    shown = page(describe(one, state, [unbound()], [], datetime.now(UTC)))
    assert shown.count(NO_SCHEDULER) == 2  # of the job and of its pod
    told: list[str | None] = []
    wait_for(cluster, ["m-1"], 0.5, report=lambda state: told.append(state.reason))
    assert told == [None, NO_SCHEDULER]


@pytest.mark.parametrize("case", ["the cluster's own", "just made", "has told its reason", "has told an event"])
def test_a_scheduler_that_may_yet_look_at_a_pod_is_not_missed(api: TinyApi, cluster: Cluster, case: str) -> None:
    one, reason = unbound(), "waiting for a node"
    if case == "the cluster's own":
        one["spec"]["schedulerName"] = "default-scheduler"
    elif case == "just made":
        one["metadata"]["creationTimestamp"] = at(0)
    elif case == "has told its reason":
        said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
        one["status"]["conditions"] = [said]
        reason = "no node fits (0/1 nodes)"
    else:
        told = {"type": "Normal", "reason": "Scheduling", "involvedObject": {"kind": "Pod", "uid": "pod-1"}}
        api.put({**refusal(at(-9)), **told})
    api.put(job("Created"))
    api.put(one)
    [state] = jobs_now(cluster)
    assert (state.phase, state.reason) == ("unscheduled", reason)


def test_a_job_just_made_costs_no_question_about_events(api: TinyApi, cluster: Cluster) -> None:
    api.put(job(age=0))
    jobs_now(cluster)
    assert cluster.calls == 2


def test_who_waits_is_told_why_and_each_reason_once(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Created"))
    api.put(refusal(at(-9)))
    told: list[str] = []
    looks = 0

    def note(state: JobState) -> None:
        nonlocal looks
        told.append(f"{state.state}: {state.reason}")
        if state.reason == REFUSED:
            api.put(pod("try 1", made=at(-8)))
            threading.Thread(target=changing, daemon=True).start()

    def changing() -> None:
        for number in range(2, 5):  # the kubelet's words change by themselves
            before = sum("pods?" in request for request in api.requests)
            while sum("pods?" in request for request in api.requests) < before + 2:
                time.sleep(0.01)
            api.put(pod(f"try {number}", made=at(-8)))
        api.put(job("Created", "Succeeded"))

    assert wait_for(cluster, ["m-1"], 60, report=note) == {"m-1": exit_codes.DONE}
    assert told[:2] == ["Pending: None", f"Pending: {REFUSED}"]
    assert told[2].startswith("Pending: the image cannot be pulled (try ")
    assert [line.partition(":")[0] for line in told[3:]] == ["Succeeded"]


@pytest.mark.parametrize("kind", ["MODIFIED", "DELETED"])
def test_what_becomes_of_another_job_of_the_name_is_not_told(kind: str, cluster: Cluster) -> None:
    other = job("Created", "Failed")
    other["metadata"]["uid"] = "an-earlier-job"
    told: list[JobState] = []
    waits = waiting._Waiting(cluster, [job("Created")], told.append)
    waits.take(kind, other)
    assert (told, waits.codes, list(waits.left)) == ([], {"m-1": exit_codes.WAIT_TIMED_OUT}, ["m-1"])


def test_a_wait_without_end_by_any_clock_ends_with_its_job(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Created"))
    ends = threading.Timer(0.3, lambda: api.put(job("Created", "Succeeded")))
    ends.start()
    assert "m-1" in wait_for(cluster, ["m-1"], 1e12)
    ends.join()


def test_a_running_job_is_not_asked_about(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Created", "Running"))
    wait_for(cluster, ["m-1"], 0.5)
    assert not [request for request in api.requests if "/pods" in request or "/events" in request]


def test_wait_goes_on_where_reasons_cannot_be_asked(
    api: TinyApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(job("Created"))
    api.refused = {"Pod"}
    with serve(api) as cluster:
        monkeypatch.setattr("launcher.cluster.connect", lambda *_: cluster)
        assert main(["wait", "m-1", "-n", NAMESPACE, "--timeout", "0.5s"]) == exit_codes.WAIT_TIMED_OUT
    assert any("/pods" in request for request in api.requests)
    assert capsys.readouterr().err == "-- m-1: Pending\n"


def test_who_follows_is_told_why_nothing_comes(
    api: TinyApi, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(job("Created"))
    api.put(refusal(at(-9)))
    said: list[str] = []

    class Ends(Printer):
        def remark(self, text: str) -> None:
            said.append(text)
            if REFUSED in text:
                api.put(pod("no such image", made=at(-8)))
            elif "no such image" in text:
                threading.Timer(0.5, api.put, (job("Created", "Failed"),)).start()

    logs.follow(cluster, api.objects["PyTorchJob", "m-1"], Ends(prefixed=False))
    assert said == [
        f"job m-1: Pending: {REFUSED}",
        "m-1-master-0: the image cannot be pulled (no such image)",
        "job m-1: Failed",
    ]


class Outage:
    """Lets the LISTs of a kind fail, as an API server that restarts for longer than a request is repeated."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *errors: ClusterError, of: Resource = PODS, passed: int = 0
    ) -> None:
        """Let so many LISTs pass, then these errors happen."""
        self.left, self.passed = list(errors), passed
        there = Cluster.list

        def list_or_fail(cluster: Cluster, resource: Resource, **which: Any) -> Listing:
            if resource is of:
                self.passed -= 1
                if self.passed < 0 and self.left:
                    raise self.left.pop(0)
            return there(cluster, resource, **which)

        monkeypatch.setattr(Cluster, "list", list_or_fail)
        monkeypatch.setattr(feed, "_PAUSE", 0.01)


@pytest.mark.parametrize("how", ["wait", "follow"])
def test_an_outage_while_a_job_ends_is_outlasted(
    how: str, api: TinyApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(job("Created", "Running"))
    outage = Outage(monkeypatch, NoConnection("it restarts"), Busy("it has just begun"), NoConnection("once more"))
    threading.Timer(0.3, api.put, (job("Created", "Succeeded"),)).start()
    if how == "wait":
        assert wait_for(cluster, ["m-1"], 60) == {"m-1": exit_codes.DONE}
    else:
        outage.passed = 1  # the first LIST of pods begins the watch
        logs.follow(cluster, api.objects["PyTorchJob", "m-1"], Printer(prefixed=False))
    assert not outage.left


def test_an_outage_that_does_not_end_is_told_at_last(
    api: TinyApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(job("Created", "Running"))
    outage = Outage(monkeypatch, *[NoConnection("it is gone")] * 10)
    monkeypatch.setattr(feed, "_MOST_IN_VAIN", 4)
    threading.Timer(0.3, api.put, (job("Created", "Succeeded"),)).start()
    with pytest.raises(NoConnection, match="it is gone"):
        wait_for(cluster, ["m-1"], 60)
    assert len(outage.left) == 5
    outage.left = [NoConnection("it is gone")] * 200
    api.put(job("Created", "Running"))
    monkeypatch.setattr(feed, "_MOST_IN_VAIN", 60)
    monkeypatch.setattr(feed, "_PAUSE", 0.2)
    threading.Timer(0.3, api.put, (job("Created", "Succeeded"),)).start()
    assert wait_for(cluster, ["m-1"], 1) == {"m-1": exit_codes.WAIT_TIMED_OUT}


def test_a_batch_keeps_its_exit_code_though_the_table_cannot_be_had(
    api: TinyApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(job("Created", "Failed"))
    row: Any = batch._Row(SimpleNamespace(name="m-1", model="m"), result="submitted")  # type: ignore[arg-type]
    outage = Outage(monkeypatch, NoConnection("it restarts"), of=JOBS, passed=1)
    batch._wait(cluster, [row], 60)
    assert (row.code, row.result, outage.left) == (exit_codes.FAILED, "Failed", [])
