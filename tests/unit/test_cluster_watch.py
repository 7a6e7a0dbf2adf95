"""Watches that are cut, and servers that are away or do not answer."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import cluster_errors, outage, transport
from launcher.cluster import Cluster, connect
from launcher.cluster_errors import Busy, Denied, Forbidden
from launcher.resources import JOBS
from launcher.transport import ATTEMPTS, Transport
from tests.unit.api_server import Answer, Asked, Server, events, listing, serving, status, thing


@pytest.fixture
def cluster(server: Server, pauses: list[float]) -> Cluster:
    made = connect()
    client = made.client
    return Cluster(Transport(lambda: client, pause=pauses.append), made.namespace, made.context)


def test_watch_goes_on_where_it_was_cut(cluster: Cluster, server: Server) -> None:
    server.answers = [
        listing([thing("a", "1")], "5"),
        events(("MODIFIED", thing("a", "6")), cut=True, tail=b'{"type": "MODIF'),
        events(("BOOKMARK", {"metadata": {"resourceVersion": "8"}})),
        events(("DELETED", thing("a", "9"))),
    ]
    seen = []
    for kind, each in cluster.watch(JOBS, until=time.monotonic() + 30):
        seen.append((kind, each["metadata"]["resourceVersion"]))
        if kind == "DELETED":
            break
    assert seen == [("ADDED", "1"), ("MODIFIED", "6"), ("DELETED", "9")]
    assert [asked.query.get("resourceVersion") for asked in server.asked] == [None, "5", "6", "8"]


def test_watch_tells_after_a_gap_what_vanished_and_what_came(cluster: Cluster, server: Server) -> None:
    gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old", "details": {}}
    server.answers = [
        listing([thing("a", "1"), thing("b", "2")], "5"),
        events(("ERROR", gone)),
        listing([thing("b", "7"), thing("c", "8")], "8"),
        events(("MODIFIED", thing("c", "9"))),
    ]
    before = cluster.list(JOBS)
    seen = []
    for kind, each in cluster.watch(JOBS, after=before, until=time.monotonic() + 30):
        seen.append((kind, each["metadata"]["name"]))
        if each["metadata"]["resourceVersion"] == "9":
            break
    assert seen == [("DELETED", "a"), ("MODIFIED", "b"), ("ADDED", "c"), ("MODIFIED", "c")]


def test_watch_outlasts_any_number_of_cuts_as_long_as_the_server_is_there_between_them(
    cluster: Cluster, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.changes._PAUSE", 0.0)
    monkeypatch.setattr("launcher.changes._MOST_CUTS", 2)
    quiet = events(("BOOKMARK", {"metadata": {"resourceVersion": "6"}}))
    away = [Answer(503, {})] * ATTEMPTS
    server.answers = [listing([], "5"), *[*away, events(), *away, quiet] * 2, *away, events(("ADDED", thing("a", "7")))]
    assert next(cluster.watch(JOBS, until=time.monotonic() + 30))[1]["metadata"]["name"] == "a"
    server.answers = [listing([], "5"), *away * 3]
    with pytest.raises(Busy):
        next(cluster.watch(JOBS, until=time.monotonic() + 30))


def test_a_server_that_starts_and_does_not_know_its_roles_yet_is_asked_again(cluster: Cluster, server: Server) -> None:
    said = 'User "anna" cannot list resource "pytorchjobs" in API group "kubeflow.org" in the namespace "team"'
    refused = status(403, "Forbidden", said)
    server.answers = [refused, listing([], "5")]
    with pytest.raises(Forbidden):
        cluster.list(JOBS)
    cluster.transport.lost()
    server.answers = [refused, refused, listing([], "5")]
    assert cluster.list(JOBS).version == "5"
    server.answers = [refused] * ATTEMPTS
    with pytest.raises(Forbidden) as caught:  # so that whoever does without a right still does
        cluster.list(JOBS)
    assert isinstance(caught.value, Busy) and "anna may not list pytorchjobs" in str(caught.value)
    for said in ("exceeded quota: q", 'admission webhook "w" denied the request: no'):
        server.answers = [status(403, "Forbidden", said), listing([], "5")]
        with pytest.raises(Denied):
            cluster.create({**thing("a", "1"), "kind": "PyTorchJob"})
    server.answers = [status(403, "Forbidden", "not yet ready to handle request"), listing([], "5")]
    assert cluster.list(JOBS).version == "5"


def test_watch_ends_when_its_time_is_over(cluster: Cluster, server: Server) -> None:
    server.answers = [listing([], "5"), *[events() for _ in range(10_000)]]
    assert list(cluster.watch(JOBS, until=time.monotonic() + 0.2)) == []


def test_an_outage_and_its_end_are_told_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(outage, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    client = connect().client

    def pause(seconds: float) -> None:
        clock[0] += seconds

    cluster = Cluster(Transport(lambda: client, pause=pause), "team", "work")
    away = [Answer(503, {})] * (3 * ATTEMPTS)  # longer than the retries of one request, which the watch outlasts
    server.answers = [
        listing([], "5"),
        *[Answer(503, {})] * 2,
        events(("ADDED", thing("a", "6"))),
        *away,
        events(("ADDED", thing("b", "7"))),
    ]
    for _, each in cluster.watch(JOBS, until=time.monotonic() + 30):
        said = capsys.readouterr().err.splitlines()
        if each["metadata"]["name"] == "b":
            break
        assert said == []  # a moment is no outage
    assert len(said) == 2 and said[0].endswith("; trying again"), said
    assert re.fullmatch(rf"-- {server.url} answers again, after \d+ s", said[1]), said


Outages = tuple[list[str], threading.Event]


@pytest.fixture
def outages(monkeypatch: pytest.MonkeyPatch) -> Outages:
    """What a person is told of servers that do not answer, after a moment already, and that something was told."""
    said: list[str] = []
    told = threading.Event()

    def note(text: str, **_: object) -> None:
        said.append(text)
        told.set()

    monkeypatch.setattr(outage, "print", note, raising=False)
    monkeypatch.setattr(outage, "_SILENT_SECONDS", 0.01)
    return said, told


@pytest.mark.parametrize("stream", [False, True], ids=["a list", "a log"])
def test_a_request_that_is_not_answered_is_told_while_it_waits(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outages: Outages
) -> None:
    said, told = outages

    def hangs(_: Asked) -> Answer:
        assert told.wait(0.2 if stream else 60) or stream
        return events() if stream else listing([], "5")

    with serving(tmp_path, hangs) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
        if stream:
            assert list(connect().log("a")) == []
            assert said == []  # a log may have nothing to say
            return
        connect().list(JOBS)
    assert said[0] == f"-- {server.url} does not answer; still waiting"
    assert re.fullmatch(rf"-- {server.url} answers again, after \d+ s", said[1]) and len(said) == 2


def test_a_webhook_that_hangs_is_not_taken_for_a_server_that_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outages: Outages
) -> None:
    said, told = outages
    silent = status(500, "InternalError", "failed calling webhook: context deadline exceeded")
    answers = [silent, silent, Answer(201, thing("a", "1"))]

    def hangs(asked: Asked) -> Answer:
        if asked.method == "GET":
            return listing([], "5")
        assert told.wait(60)
        return answers.pop(0)

    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.0)
    with serving(tmp_path, hangs) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
        cluster = connect()
        with pytest.raises(cluster_errors.WebhookSilent):
            cluster.create({**thing("a", "1"), "kind": "PyTorchJob"}, dry_run=True)
        monkeypatch.setattr(outage, "_SILENT_SECONDS", 60.0)
        cluster.list(JOBS)
        waits = f"-- {server.url}, or a webhook it asks, does not answer; still waiting"
        assert said == [waits]  # the server was never away: nothing answers again
        monkeypatch.setattr(outage, "_SILENT_SECONDS", 0.01)
        told.clear()
        cluster.create({**thing("a", "1"), "kind": "PyTorchJob"})
    assert said[1] == waits and re.fullmatch(r"-- the answer came after \d+ s", said[2]) and len(said) == 3


def test_watch_that_is_refused_is_told(cluster: Cluster, server: Server) -> None:
    said = 'User "me" cannot watch resource "pytorchjobs" in API group "kubeflow.org" in the namespace "team"'
    server.answers = [listing([], "5"), status(403, "Forbidden", said)]
    with pytest.raises(cluster_errors.Forbidden, match=r"me may not watch pytorchjobs in namespace team"):
        list(cluster.watch(JOBS, until=time.monotonic() + 30))


@pytest.mark.parametrize("line", [b'{"type": "ADDED", "object": "x"}', b'"ok"', b'{"status": "ok"}', b"<html>"])
def test_what_answers_a_watch_with_no_changes_is_no_api_server(cluster: Cluster, server: Server, line: bytes) -> None:
    server.answers = [listing([], "1"), Answer(chunks=[line + b"\n"])]
    with pytest.raises(cluster_errors.ClusterError, match="did not answer with changes; is it an API server"):
        next(cluster.watch(JOBS))
