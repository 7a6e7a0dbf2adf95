"""Nodes that the cluster no longer hears from: what is told of their pods, and that nobody waits for them."""

from __future__ import annotations

import pytest

from launcher.cluster import Cluster
from launcher.cluster_errors import Request, from_status
from launcher.doctor_job import diagnose
from launcher.resources import PODS
from launcher.watching import jobs_now
from tests.unit.test_logs import Following, end, job, pod, stamped, until
from tests.unit.tiny_api import TinyApi

SILENT = [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}]


def test_a_node_that_falls_silent_is_told(api: TinyApi, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """The cluster marks its pods so, and lets them be for some minutes."""
    api.put(job("Running"))
    api.put(pod())
    api.write("m-1-master-0", stamped(1, "job m-1, run r, attempt 1"))
    following = Following(cluster, api.objects["PyTorchJob", "m-1"])
    until(lambda: bool(following.lines))
    silent = pod()
    silent["status"]["conditions"] = SILENT
    api.put(silent)
    said, followers = "", 1

    def told() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return said.count("m-1-master-0: its node node-1 does not answer; the pod may run on there") == followers

    until(told)
    followers = 2  # one who comes when it is silent already
    late = Following(cluster, api.objects["PyTorchJob", "m-1"])
    until(told)
    [state] = jobs_now(cluster, ["m-1"])
    assert (state.state, state.phase) == ("Running", "unknown") and "node node-1 does not answer" in str(state.reason)
    # The progress of a job is read from the head and the tail of its log.
    assert not any("limitBytes" in each for each in api.requests), "it would be waited for in vain"
    assert diagnose(state, api.objects["PyTorchJob", "m-1"]).verdict == "warn"
    api.put(pod("terminated"))
    api.write("m-1-master-0", stamped(2, "last"), end=True)
    end(api)
    assert following.ends()[-1] == late.ends()[-1] == "last"


def test_a_node_that_is_gone_does_not_answer_again(
    api: TinyApi, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(job("Running"))
    silent = pod()
    silent["status"]["conditions"] = SILENT
    api.put(silent)
    api.write("m-1-master-0", stamped(1, "one"))
    following = Following(cluster, api.objects["PyTorchJob", "m-1"])
    until(lambda: bool(following.lines))
    # The cluster gives up the pods of a Node that was removed, and then deletes them.
    gone = pod()
    gone["status"] |= {"phase": "Failed", "conditions": SILENT}
    api.put(gone)
    api.remove("Pod", "m-1-master-0")
    api.write("m-1-master-0", end=True)
    api.put(pod("terminated", uid="pod-2"))
    api.put(job("Succeeded"))
    following.ends()
    said = capsys.readouterr().err
    assert "does not answer" in said and "started again" in said and "answers again" not in said


def test_where_a_log_cannot_be_read_nobody_knows_how_far_its_job_is(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running"))
    api.put(pod())
    api.refused.add("log")
    [state] = jobs_now(cluster, ["m-1"])
    assert state.phase == "unknown" and "its log cannot be read: " in (state.reason or "")
    assert diagnose(state, api.objects["PyTorchJob", "m-1"]).verdict == "warn"


def test_a_node_that_was_removed_is_no_missing_pod() -> None:
    """Until its pods are removed too, the API server names the node in the pod's place."""
    asked = Request(verb="get", resource=PODS, namespace="team", name="m-1-master-0", part="log")
    gone = {"kind": "Status", "message": 'pods "node-1" not found', "details": {"name": "node-1", "kind": "pods"}}
    assert "the pod's node node-1 is no longer in the cluster" in str(from_status(404, gone, "", asked))
    missing = {**gone, "details": {"name": "m-1-master-0", "kind": "pods"}}
    assert "there is no Pod m-1-master-0" in str(from_status(404, missing, "", asked))


def test_a_pod_whose_node_is_lost_is_not_asked_how_far_its_job_is(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running", workers=1))
    lost = pod()
    lost["metadata"]["deletionTimestamp"] = "2030-01-02T03:04:05Z"
    lost["status"]["reason"] = "NodeLost"
    api.put(lost)
    api.put(pod(uid="pod-2", role="worker"))
    api.write("m-1-worker-0", stamped(1, "one"), end=True)
    [state] = jobs_now(cluster, ["m-1"])
    assert {address.split("/")[-2] for address in api.requests if "/log" in address} == {"m-1-worker-0"}
    assert "as its node" in (state.reason or "")
