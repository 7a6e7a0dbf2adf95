"""Requests that did their work though no good answer came: sent again, told rightly, and not for ever."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from launcher import actions, cluster_errors, exec_stream, labels, submit
from launcher.cluster import Cluster, connect
from launcher.exec_stream import ExecStream
from launcher.resources import JOBS
from launcher.transfer_pod import running
from launcher.transport import ATTEMPTS, Transport
from mtft.errors import InputError
from tests.unit.api_server import Answer, Server, events, listing, status, thing, write_kubeconfig

LOST = Answer(0)
EXISTS = status(409, "AlreadyExists", "it already exists", name="a")
QUOTA_CHANGED = status(409, "Conflict", "Operation cannot be fulfilled on resourcequotas: please try again", name="q")
CLAIM = {**thing("mtft", "1"), "spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}
POD = {"kind": "Pod", **thing("p", "1"), "spec": {}}


@pytest.fixture
def reached(server: Server) -> Cluster:
    """Give a cluster that has answered before: lost connections are tried again."""
    made = connect()
    client = made.client
    cluster = Cluster(Transport(lambda: client, pause=lambda _: None), made.namespace, made.context)
    server.answers = [listing([], "1")]
    cluster.list(JOBS)
    return cluster


def job(version: str, run: str = "0123456789") -> dict[str, Any]:
    found = thing("a", version)
    found["metadata"] |= {"uid": f"uid-{version}", "labels": {labels.PART_OF: "mtft", labels.RUN: run}}
    return {"apiVersion": JOBS.api_version, "kind": JOBS.kind, **found, "spec": {"pytorchReplicaSpecs": {}}}


def test_a_job_whose_making_is_not_answered_was_made_anew(reached: Cluster, server: Server) -> None:
    server.answers = [LOST, EXISTS, Answer(body=job("8"))]
    made = actions._make_anew(reached, job("7"), None)
    assert made is not None and made["metadata"]["uid"] == "uid-8"
    server.answers = [LOST, EXISTS, Answer(body=job("9", run="fedcba9876"))]
    assert actions._make_anew(reached, job("7"), None) is None, "another configuration is somebody else's"


def test_a_quota_that_still_counts_the_job_that_is_gone_is_asked_again(
    reached: Cluster, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_RECOUNTED_SECONDS", (0.0, 0.0))
    full = status(403, "Forbidden", 'pytorchjobs "a" is forbidden: exceeded quota: q, used: count=1')
    gone = status(404, "NotFound", "gone", name="a", kind="pytorchjobs")
    for manager, first in ((None, []), ("helm", [gone])):
        server.answers = [*first, full, gone, full, gone, Answer(body=job("8"))]
        made = actions._make_anew(reached, job("7"), manager)
        assert made is not None and made["metadata"]["uid"] == "uid-8"
    server.answers = [full, gone] * 3
    with pytest.raises(cluster_errors.Denied, match="exceeded quota"):
        actions._make_anew(reached, job("7"), None)
    server.answers = [status(403, "Forbidden", 'admission webhook "w" denied the request: no')]
    with pytest.raises(cluster_errors.Denied, match="denied the request"):
        actions._make_anew(reached, job("7"), None)


def test_a_job_that_others_make_while_a_quota_is_asked_again_is_left_as_it_is(
    reached: Cluster, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "_RECOUNTED_SECONDS", (0.0,))
    full = status(403, "Forbidden", 'pytorchjobs "a" is forbidden: exceeded quota: q, used: count=1')
    gone = status(404, "NotFound", "gone", name="a", kind="pytorchjobs")
    server.answers = [gone, full, Answer(body=job("9", run="fedcba9876"))]
    assert actions._make_anew(reached, job("7"), "helm") is None
    assert server.asked[-1].method == "GET", "it is not applied over"
    server.answers = [LOST, full, Answer(body=job("8"))]  # which fills the quota itself
    made = actions._make_anew(reached, job("7"), None)
    assert made is not None and made["metadata"]["uid"] == "uid-8"


def test_a_pod_whose_making_or_going_is_not_answered_serves(
    reached: Cluster, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    up = {**POD, "status": {"phase": "Running"}}
    away = [status(503, "ServiceUnavailable", "no")] * ATTEMPTS
    server.answers = [LOST, EXISTS, Answer(body=POD), listing([up], "2"), events(), *away]
    with running(reached, POD) as name:
        assert name == "p"
    assert (
        "note: pod p is left; once it runs it ends by itself, 30 minutes after its last command: delete pods p"
        in capsys.readouterr().err
    )


def test_a_quota_that_others_change_is_asked_again(reached: Cluster, server: Server) -> None:
    server.answers = [QUOTA_CHANGED, Answer(201, job("1"))]
    assert reached.create(job(""))["metadata"]["uid"] == "uid-1"
    gone = status(404, "NotFound", "gone", name="a", kind="pytorchjobs")
    server.answers = [Answer(201, thing("a", "7")), *[QUOTA_CHANGED] * ATTEMPTS, gone, Answer(body=thing("a", "7"))]
    config = {"apiVersion": "v1", "kind": "ConfigMap", **thing("a", "")}
    with pytest.raises(cluster_errors.Busy, match="counts other objects at the same time"):
        submit.send(reached, [config, job("")])
    assert server.asked[-1].method == "DELETE", "nothing is left"


def test_a_job_that_comes_and_goes_while_it_is_sent_leaves_no_config_map(reached: Cluster, server: Server) -> None:
    gone = status(404, "NotFound", "gone", name="a", kind="pytorchjobs")
    server.answers = [Answer(201, thing("a", "7")), EXISTS, gone, gone, Answer(body=thing("a", "7"))]
    config = {"apiVersion": "v1", "kind": "ConfigMap", **thing("a", "")}
    with pytest.raises(cluster_errors.Conflict):
        submit.send(reached, [config, job("")])
    assert server.asked[-1].method == "DELETE"


def test_a_server_that_takes_a_connection_to_a_pod_and_says_nothing_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_stream, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        write_kubeconfig(Path(os.environ["KUBECONFIG"]), f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(cluster_errors.NoConnection, match="did not answer within"):
            ExecStream(connect(), "p", "team", "pytorch", ["true"])


def test_a_job_for_a_queue_is_resumed_by_hand_where_kueue_is_not(reached: Cluster, server: Server) -> None:
    held = job("7")
    held["metadata"]["labels"][labels.QUEUE] = "night"
    held["spec"]["runPolicy"] = {"suspend": True}
    server.answers = [Answer(404, b"404 page not found\n"), Answer(body=thing("a", "8")), Answer(body=thing("a", "8"))]
    assert actions.resume(reached, held).startswith("resumed")
    server.answers = [Answer(body={"resources": [{"name": "workloads"}]})]
    with pytest.raises(InputError, match=r"queue night decides .* with the right to patch Workloads"):
        actions.resume(reached, held)


def test_another_job_of_the_name_is_not_changed(reached: Cluster, server: Server) -> None:
    causes = [{"field": "metadata.uid", "message": "Invalid value: field is immutable"}]
    server.answers = [status(422, "Invalid", "is invalid", name="a", causes=causes)]
    running = {**job("7"), "status": {}}
    with pytest.raises(cluster_errors.Conflict, match="another job has the name by now; nothing was changed"):
        actions.suspend(reached, running)
    assert server.asked[-1].body["metadata"]["uid"] == "uid-7"
