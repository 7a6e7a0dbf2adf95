"""Requests to a cluster: retries, pages, refusals. Those of a real one: tests/cluster/test_access.py."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from urllib3.exceptions import InsecureRequestWarning

from launcher import actions, cluster_errors, submit
from launcher.cluster import Cluster, connect
from launcher.resources import CONFIG_MAPS, JOBS
from launcher.transport import ATTEMPTS, Transport
from tests.unit.api_server import Answer, Server, listing, status, thing, write_kubeconfig


@pytest.fixture
def cluster(server: Server, pauses: list[float]) -> Cluster:
    made = connect()
    client = made.client
    return Cluster(Transport(lambda: client, pause=pauses.append), made.namespace, made.context)


def test_ended_token_is_told_with_the_time(server: Server) -> None:
    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    for end, told in ((1_000_000_000, True), (4_000_000_000, False)):
        token = f"{part({'alg': 'none'})}.{part({'exp': end})}.x"
        write_kubeconfig(server.kubeconfig, server.url)
        server.kubeconfig.write_text(server.kubeconfig.read_text().replace("not-a-secret", token))
        server.answers = [status(401, "Unauthorized", "Unauthorized")]
        with pytest.raises(cluster_errors.Unauthorized) as caught:
            connect().get(JOBS, "a")
        assert ("the token ended at 2001-09-09 01:46:40 UTC" in str(caught.value)) == told


def test_busy_server_is_asked_again_after_the_time_it_wants(
    cluster: Cluster, server: Server, pauses: list[float]
) -> None:
    server.answers = [
        Answer(429, {}, {"Retry-After": "7"}),
        Answer(429, {}, {"Retry-After": "900"}),
        Answer(503, {}),
        Answer(body=thing("a", "1")),
    ]
    assert cluster.get(JOBS, "a")["metadata"]["name"] == "a"
    assert pauses[:2] == [7.0, 30.0]
    assert len(pauses) == 3 and cluster.calls == 4


def test_retries_end_and_say_what_the_server_said(cluster: Cluster, server: Server, pauses: list[float]) -> None:
    server.answers = [status(500, "InternalError", "etcd is away") for _ in range(ATTEMPTS)]
    with pytest.raises(cluster_errors.Busy, match=r"fault of its own \(500\): etcd is away"):
        cluster.get(JOBS, "a")
    assert pauses == sorted(pauses) and len(pauses) == ATTEMPTS - 1


def test_a_node_that_does_not_answer_is_no_fault_of_the_server(cluster: Cluster, server: Server) -> None:
    server.answers = [status(500, "InternalError", 'Get "https://10.0.0.1:10250/containerLogs": TLS handshake timeout')]
    with pytest.raises(cluster_errors.Busy, match=r"the pod's node does not answer .* \(500\): Get"):
        list(cluster.log("a"))


def test_webhook_that_does_not_answer_names_the_operator(cluster: Cluster, server: Server) -> None:
    said = 'failed calling webhook "validator.pytorchjob.training-operator.kubeflow.org": connection refused'
    server.answers = [status(500, "InternalError", said) for _ in range(ATTEMPTS)]
    with pytest.raises(cluster_errors.WebhookSilent, match="webhook that must agree does not answer"):
        cluster.create({**thing("a", "1"), "kind": "PyTorchJob"})
    assert cluster.calls == ATTEMPTS  # an operator that is being replaced is back in a moment


def test_webhook_that_hangs_is_tried_once_more(cluster: Cluster, server: Server) -> None:
    said = (
        'Internal error occurred: failed calling webhook "v": failed to call webhook: Post: context deadline exceeded'
    )
    server.answers = [status(500, "InternalError", said), Answer(201, thing("a", "1"))]
    cluster.create({**thing("a", "1"), "kind": "PyTorchJob"})
    server.answers = [status(500, "InternalError", said) for _ in range(ATTEMPTS)]
    with pytest.raises(cluster_errors.WebhookSilent, match="kubectl get pods -A"):
        cluster.create({**thing("a", "1"), "kind": "PyTorchJob"})
    assert cluster.calls == 4


def test_refusals_are_not_sent_again(cluster: Cluster, server: Server) -> None:
    for code, kind in ((401, "Unauthorized"), (403, "Forbidden"), (409, "Conflict"), (422, "Invalid")):
        server.answers = [status(code, kind, "no", name="a"), Answer(body={})]
        with pytest.raises(getattr(cluster_errors, kind)) as caught:
            cluster.get(JOBS, "a")
        assert caught.value.exit_code == 3
        assert len(server.answers) == 1


def test_ended_login_is_renewed_once_within_a_session(server: Server) -> None:
    renewed: list[str] = []
    first = connect()

    def renew() -> object:
        renewed.append("now")
        return first.client

    cluster = Cluster(Transport(renew), "team", "work")
    server.answers = [Answer(body=thing("a", "1")), Answer(401, {}), Answer(body=thing("b", "2"))]
    cluster.get(JOBS, "a")
    assert cluster.get(JOBS, "b")["metadata"]["name"] == "b"
    assert len(renewed) == 2  # the first connection, and one renewal
    server.answers = [Answer(401, {}), Answer(chunks=[b"a line\n"])]
    assert len([*cluster.log("pod")]) == 1, "of what has one attempt too"
    server.answers = [Answer(401, {}), Answer(401, {})]
    with pytest.raises(cluster_errors.Unauthorized):
        cluster.get(JOBS, "a")


def test_missing_operator_is_told_from_a_missing_job(cluster: Cluster, server: Server) -> None:
    server.answers = [Answer(404, b"404 page not found\n")]
    with pytest.raises(
        cluster_errors.NoSuchKind, match=r"does not know PyTorchJob.*install the training operator: kub"
    ):
        cluster.find(JOBS, "a")
    server.answers = [Answer(404, b"404 page not found\n")]
    with pytest.raises(cluster_errors.NoSuchKind):
        cluster.delete(JOBS, "a")
    server.answers = [status(404, "NotFound", 'pytorchjobs "a" not found', name="a", kind="pytorchjobs")]
    assert not cluster.delete(JOBS, "a")
    server.answers = [status(404, "NotFound", 'pytorchjobs "a" not found', name="a", kind="pytorchjobs")]
    assert cluster.find(JOBS, "a") is None


def test_a_config_map_that_somebody_took_is_not_undone(cluster: Cluster, server: Server) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", **thing("a", "")}
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", **thing("a", "")}
    server.answers = [
        Answer(201, thing("a", "7")),
        status(422, "Invalid", "no master"),
        status(404, "NotFound", 'pytorchjobs "a" not found', name="a", kind="pytorchjobs"),
        Answer(body={}),
    ]
    with pytest.raises(cluster_errors.Invalid, match="no master"):
        submit.send(cluster, [config, job])
    undone = server.asked[-1]
    assert (undone.method, undone.body["preconditions"]) == ("DELETE", {"uid": "uid-a", "resourceVersion": "7"})


def test_what_is_retried_is_not_sent_as_suspended() -> None:
    policy = {"suspend": True, "cleanPodPolicy": "Running"}
    made = actions._anew({**thing("a", "7", annotations={}), "spec": {"runPolicy": policy}})
    assert made["spec"]["runPolicy"] == {"cleanPodPolicy": "Running"}


@pytest.mark.parametrize(
    ("applied", "manager"),
    [((), None), (("helm",), "helm"), (("mtft-launch", "kubectl"), "kubectl"), (("a", "b"), None)],
)
def test_a_job_is_made_anew_as_the_one_who_applied_it(
    cluster: Cluster, server: Server, applied: tuple[str, ...], manager: str | None
) -> None:
    fields = [{"manager": each, "operation": "Apply"} for each in applied]
    others = [{"manager": "o", "operation": "Update"}, {"manager": "s", "operation": "Apply", "subresource": "status"}]
    job = thing("a", "7")
    job["metadata"]["managedFields"] = [*fields, *others]
    server.answers = [Answer(body={"status": {"allowed": True}})]
    assert actions._applied_by(cluster, job) == manager
    server.answers = [Answer(body={"status": {"allowed": False}})]
    assert actions._applied_by(cluster, job) is None, "a job that is deleted by then could not be made"


def test_a_job_that_somebody_made_meanwhile_is_not_applied_over(cluster: Cluster, server: Server) -> None:
    job = {**thing("a", "7"), "spec": {}}
    server.answers = [Answer(body=thing("a", "8"))]
    assert actions._make_anew(cluster, job, "helm") is None
    assert [each.method for each in server.asked] == ["GET"]


def test_unreachable_server_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: whoever connects is refused
        write_kubeconfig(tmp_path / "config", f"https://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        cluster = connect()
        with pytest.raises(cluster_errors.NoConnection, match=r"cannot be reached.*is the address in the kubeconfig"):
            cluster.get(JOBS, "a")
        assert cluster.calls == 1


def test_plain_request_to_tls_is_told_as_such(cluster: Cluster, server: Server) -> None:
    server.answers = [Answer(400, b"Client sent an HTTP request to an HTTPS server.\n")]
    with pytest.raises(cluster_errors.NoConnection, match=r"answers https only; .* the server https://127\.0\.0\.1:"):
        cluster.list(JOBS)


def test_an_address_with_a_path_is_asked_about(server: Server) -> None:
    write_kubeconfig(server.kubeconfig, f"{server.url}/foo")
    server.answers = [Answer(404, b"404 page not found\n")] * 2
    with pytest.raises(cluster_errors.NoSuchKind, match="the kubeconfig has a path, /foo: is it right"):
        connect().list(JOBS)


def test_who_trusts_any_certificate_is_not_told_with_every_request(server: Server) -> None:
    write_kubeconfig(server.kubeconfig, "https://127.0.0.1:1", **{"insecure-skip-tls-verify": True})
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        connect()
        warnings.warn("unverified", InsecureRequestWarning, stacklevel=1)
    assert said == []


def test_plain_answer_to_tls_is_told_as_such(server: Server) -> None:
    write_kubeconfig(server.kubeconfig, server.url.replace("http:", "https:"))
    with pytest.raises(cluster_errors.NoConnection, match="the secure connection failed"):
        connect().get(JOBS, "a")


def test_lost_connection_in_the_middle_is_sent_again(cluster: Cluster, server: Server) -> None:
    whole = Answer(body=thing("a", "1"))
    server.answers = [whole, Answer(body=thing("a", "1"), cut=True), whole]
    cluster.get(JOBS, "a")
    assert cluster.get(JOBS, "a")["metadata"]["name"] == "a"
    assert cluster.calls == 3


def test_a_refusal_too_is_an_answer_after_which_lost_connections_are_sent_again(
    cluster: Cluster, server: Server
) -> None:
    server.answers = [
        status(404, "NotFound", 'pytorchjobs "a" not found', name="a", kind="pytorchjobs"),
        Answer(status=0),
        Answer(body=thing("a", "1")),
    ]
    assert cluster.find(JOBS, "a") is None
    assert cluster.get(JOBS, "a")["metadata"]["name"] == "a"


def test_list_reads_all_pages_and_begins_again_when_the_snapshot_is_gone(cluster: Cluster, server: Server) -> None:
    server.answers = [
        listing([thing("a", "1")], "5", "more"),
        status(410, "Expired", "too old"),
        listing([thing("a", "1"), thing("b", "2")], "9", "more"),
        listing([thing("c", "3")], "9"),
    ]
    found = cluster.list(JOBS, selector="x=y")
    assert [each["metadata"]["name"] for each in found.items] == ["a", "b", "c"]
    assert found.version == "9"
    assert [asked.query.get("continue") for asked in server.asked] == [None, "more", None, "more"]
    assert all(asked.query["labelSelector"] == "x=y" for asked in server.asked)


def test_forbidden_gives_the_rule_that_is_missing(cluster: Cluster, server: Server) -> None:
    said = 'configmaps is forbidden: User "system:serviceaccount:t:u" cannot create resource "configmaps" in API group '
    server.answers = [status(403, "Forbidden", said + '"" in the namespace "team"')]
    with pytest.raises(cluster_errors.Forbidden) as caught:
        cluster.create({**thing("a", "1"), "kind": "ConfigMap"})
    assert 'apiGroups: [""]\n    resources: ["configmaps"]\n    verbs: ["create"]' in str(caught.value)


def test_forbidden_everywhere_is_no_matter_of_the_namespace_s_role(cluster: Cluster, server: Server) -> None:
    said = 'User "me" cannot list resource "pytorchjobs" in API group "kubeflow.org" at the cluster scope'
    server.answers = [status(403, "Forbidden", said)]
    with pytest.raises(cluster_errors.Forbidden) as caught:
        cluster.list(JOBS, everywhere=True)
    words = str(caught.value)
    assert "a rule of a ClusterRole" in words and "without -A" in words and "ClusterRoleBinding" in words
    assert "all rules" not in words


def test_quota_is_no_matter_of_rights(cluster: Cluster, server: Server) -> None:
    server.answers = [status(403, "Forbidden", 'configmaps "a" is forbidden: exceeded quota: q, requested: count=1')]
    with pytest.raises(cluster_errors.Forbidden, match=r"refused by the cluster's rules: .*exceeded quota"):
        cluster.get(CONFIG_MAPS, "a")


def test_nobody_without_credentials_is_told_to_log_in(cluster: Cluster, server: Server) -> None:
    said = 'User "system:anonymous" cannot get resource "pytorchjobs" in API group "kubeflow.org" in the namespace "t"'
    server.answers = [status(403, "Forbidden", said)]
    with pytest.raises(cluster_errors.Forbidden, match="sends no credentials"):
        cluster.get(JOBS, "a")


def test_invalid_lists_every_field(cluster: Cluster, server: Server) -> None:
    causes = [{"field": "spec.a", "message": "Required value"}, {"field": "spec.b", "message": "Invalid value: 3"}]
    server.answers = [status(422, "Invalid", "is invalid", name="a", causes=causes)]
    with pytest.raises(cluster_errors.Invalid, match=r"spec\.a: Required value\n  spec\.b: Invalid value: 3"):
        cluster.get(JOBS, "a")


def test_something_that_is_no_api_server_is_told(cluster: Cluster, server: Server) -> None:
    server.answers = [Answer(200, b"<html>sign in</html>")]
    with pytest.raises(cluster_errors.ClusterError, match="did not answer with JSON; is it an API server"):
        cluster.get(JOBS, "a")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    looks: tuple[Callable[[], object], ...] = (
        lambda: cluster.get(JOBS, "a"),
        lambda: cluster.create(pod, dry_run=True),
        lambda: cluster.list(JOBS),
        lambda: cluster.delete(JOBS, "a"),
        lambda: cluster.allowed("get", JOBS),
        lambda: cluster.knows(JOBS),
        cluster.version,
    )
    meta = {"name": "x", "resourceVersion": "1"}
    bodies: tuple[object, ...] = (
        *({}, [], "ok", None, {"status": "ok"}, {"kind": "Status", "status": "ok"}),
        *({"metadata": meta, "items": [{"a": 1}]}, {"metadata": meta, "items": {"a": 1}}),
        {"metadata": meta, "status": {"allowed": True}, "gitVersion": [], "resources": ["x"]},
        {"kind": "PyTorchJobList", "metadata": meta, "items": ["a"]},
        {"kind": "PyTorchJob", "metadata": meta},
        {"kind": "APIResourceList", "resources": "pytorchjobs"},
        {"kind": "SelfSubjectAccessReview", "metadata": {}, "status": "yes"},
    )
    for body, look in itertools.product(bodies, looks):
        server.answers = [Answer(200, json.dumps(body).encode())]
        with pytest.raises(cluster_errors.ClusterError, match="answered something else; is it an API server"):
            look()


def test_the_present_is_what_the_server_s_clock_says(cluster: Cluster, server: Server) -> None:
    for ahead, told in ((timedelta(minutes=-10), True), (timedelta(hours=1), True), (timedelta(seconds=2), False)):
        date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
        server.answers = [Answer(body=thing("a", "1"), headers={"Date": date})]
        cluster.get(JOBS, "a")
        off = cluster.now() - datetime.now(UTC)
        assert abs(off - (ahead if told else timedelta())) < timedelta(seconds=3)
    for date in (
        "Tue, 01 Jan 2030 00:00:00",
        "Fri, 31 Dec 9999 23:59:59 -2300",
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
    ):
        server.answers = [Answer(body=thing("a", "1"), headers={"Date": date})]
        cluster.get(JOBS, "a")
        assert abs(cluster.now() - datetime.now(UTC)) < timedelta(seconds=3)


def test_log_lines_end_with_the_log_and_a_cut_is_told(cluster: Cluster, server: Server) -> None:
    server.answers = [Answer(chunks=[b"one\ntw", b"o\nthree"]), Answer(chunks=[b"one\ntw"], cut=True)]
    assert list(cluster.log("p", tail_lines=3)) == [b"one", b"two", b"three"]
    read: list[bytes] = []
    with pytest.raises(cluster_errors.Cut):
        read.extend(cluster.log("p", follow=True, since_s=0.2))
    assert read == [b"one"]
    assert server.asked[0].query == {"tailLines": "3"}
    assert server.asked[1].query == {"follow": "true", "sinceSeconds": "1"}


def test_writes_are_strict_and_dry_runs_say_so(cluster: Cluster, server: Server) -> None:
    server.answers = [Answer(201, thing("a", "1")), Answer(200, thing("a", "1")), Answer(200, thing("a", "1"))]
    cluster.create({**thing("a", "1"), "kind": "PyTorchJob"}, dry_run=True)
    cluster.patch(JOBS, "a", {"spec": {}})
    cluster.patch(JOBS, "a", [{"op": "remove", "path": "/spec"}], part="status")
    assert server.asked[0].query["dryRun"] == "All"
    assert all(asked.query["fieldValidation"] == "Strict" for asked in server.asked)
    kinds = [asked.headers["content-type"] for asked in server.asked[1:]]
    assert kinds == ["application/merge-patch+json", "application/json-patch+json"]
    assert server.asked[2].path.endswith("/pytorchjobs/a/status")
    assert all(asked.headers["authorization"] == "Bearer not-a-secret" for asked in server.asked)
    assert all(asked.headers["user-agent"].startswith("mtft-launch/") for asked in server.asked)
