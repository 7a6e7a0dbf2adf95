"""Reading and following the logs of pods, over everything that can happen to pods and connections."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from launcher import labels, logs, pod_logs
from launcher.cluster import Cluster, connect
from launcher.cluster_errors import Busy, Cut, Forbidden
from launcher.log_lines import Line, Printer, merged, parse_line
from launcher.pod_logs import Wanted
from launcher.resources import PODS
from tests.unit.api_server import Answer, Server, listing, status
from tests.unit.tiny_api import NAMESPACE, TinyApi

SECONDS = 30  # bound of every wait


def stamped(second: int, text: str, nanos: str = "000000000") -> str:
    return f"2030-01-02T03:04:{second:02}.{nanos}Z {text}"


def job(*conditions: str, workers: int = 0) -> dict[str, Any]:
    roles = {"Master": {"replicas": 1}} | ({"Worker": {"replicas": workers}} if workers else {})
    return {
        "kind": "PyTorchJob",
        "metadata": {
            "name": "m-1",
            "namespace": NAMESPACE,
            "uid": "job-1",
            "labels": {labels.PART_OF: "mtft", labels.MODEL: "opus_mt_en_fr"},
        },
        "spec": {"pytorchReplicaSpecs": roles},
        "status": {"conditions": [{"type": kind, "status": "True"} for kind in conditions]},
    }


def pod(state: str = "running", *, uid: str = "pod-1", role: str = "master", index: int = 0) -> dict[str, Any]:
    given = {labels.OPERATOR_JOB: "m-1", labels.OPERATOR_REPLICA: role, labels.OPERATOR_INDEX: str(index)}
    inner: dict[str, Any] = {"running": {}} if state == "running" else {"terminated": {"exitCode": 0}}
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    return {
        "kind": "Pod",
        "metadata": {"name": f"m-1-{role}-{index}", "namespace": NAMESPACE, "uid": uid, "labels": given},
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": {"running": "Running", "terminated": "Succeeded"}.get(state, "Pending"),
            "containerStatuses": [{"name": "pytorch", "state": waiting if state == "waiting" else inner}],
        },
    }


class Following:
    """`follow` in a thread, and what it printed."""

    def __init__(self, cluster: Cluster, job: dict[str, Any], until: float | None = None, **options: Any) -> None:
        self.out = io.StringIO()
        self.failure: Forbidden | None = None
        wanted = Wanted(**options)
        self.thread = threading.Thread(target=self._run, args=(cluster, job, wanted, until), daemon=True)
        self.thread.start()

    def _run(self, cluster: Cluster, job: dict[str, Any], wanted: Wanted, until: float | None) -> None:
        try:
            logs.follow(cluster, job, Printer(prefixed=False, out=self.out), wanted, until=until)
        except Forbidden as error:
            self.failure = error

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    def ends(self) -> list[str]:
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), f"still following after {SECONDS} s: {self.lines}"
        return self.lines


def until(holds: Callable[[], bool]) -> None:
    last = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < last, "waited in vain"
        time.sleep(0.02)


def end(api: TinyApi, condition: str = "Succeeded", **job_options: Any) -> None:
    api.put(job("Running", condition, **job_options))


def test_all_pods_in_the_order_of_time(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running", workers=1))
    api.put(pod())
    api.put(pod(role="worker", uid="pod-2"))
    api.write("m-1-master-0", stamped(1, "first"), stamped(3, "third"), end=True)
    api.write("m-1-worker-0", stamped(2, "second"), end=True)
    out = io.StringIO()
    shown = logs.show(cluster, api.objects["PyTorchJob", "m-1"], Printer(prefixed=False, out=out), Wanted())
    assert shown == 2
    assert out.getvalue().splitlines() == ["[0] first", "[1] second", "[0] third"]


def test_a_pod_without_a_log_is_named(api: TinyApi, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Its lines could be taken for none."""
    api.put(job("Running", workers=2))
    api.put(pod())
    api.put(pod("waiting", role="worker", uid="pod-2"))
    api.write("m-1-master-0", stamped(1, "first"), end=True)
    out = io.StringIO()
    assert logs.show(cluster, api.objects["PyTorchJob", "m-1"], Printer(prefixed=False, out=out), Wanted()) == 1
    assert out.getvalue() == "[0] first\n"
    assert "-- no lines of [1], [2]: the pod has not started, or is gone" in capsys.readouterr().err
    for rank, said in ((0, []), (1, ["-- no lines of [1]: the pod has not started, or is gone and its log with it"])):
        printer = Printer(prefixed=False, out=io.StringIO())
        logs.show(cluster, api.objects["PyTorchJob", "m-1"], printer, Wanted(rank=rank))
        assert capsys.readouterr().err.splitlines() == said


def test_a_cut_connection_is_told_or_mended(api: TinyApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pod_logs, "FIRST_WAIT", 0.01)
    api.put(job("Running"))
    api.put(pod())
    texts = [f"line {number}" for number in range(6)]
    api.write("m-1-master-0", *(stamped(n, text) for n, text in enumerate(texts)))
    for cuts in ([2, 1, 0], [2, *[0] * 20]):
        api.logs["m-1-master-0"].cut_after = cuts
        out = io.StringIO()
        printer = Printer(prefixed=False, out=out)
        if len(cuts) > 3:
            with pytest.raises(Cut, match="the log of m-1-master-0 is not whole"):
                logs.show(cluster, api.objects["PyTorchJob", "m-1"], printer, Wanted())
            assert out.getvalue().splitlines() == texts[:2]
        else:
            logs.show(cluster, api.objects["PyTorchJob", "m-1"], printer, Wanted())
            assert out.getvalue().splitlines() == texts


def test_a_log_is_asked_for_again_where_the_server_could_not(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pod_logs, "FIRST_WAIT", 0.01)
    busy = status(503, "ServiceUnavailable", "it starts")
    server.answers = [listing([], "1"), busy, Answer(0), Answer(chunks=[stamped(1, "first").encode() + b"\n"])]
    asked = connect()
    asked.list(PODS)
    assert [line.text for line in pod_logs.whole_log(asked, pod(), Wanted())] == ["first"]
    server.answers = [busy] * pod_logs.MOST_IN_VAIN
    said: list[str] = []
    with pytest.raises(Busy, match=r"the log of m-1-master-0 is not whole: .* \(503\): it starts"):
        list(pod_logs.whole_log(asked, pod(), Wanted(), said.append))
    assert said == ["the log of m-1-master-0 cannot be read at the moment; trying again"]
    monkeypatch.setattr(pod_logs, "_PATIENT_SECONDS", 0.0)
    before, server.answers = asked.calls, [busy] * 2
    with pytest.raises(Busy):  # a node that hangs answers as slowly the next time
        list(pod_logs.whole_log(asked, pod(), Wanted()))
    assert asked.calls == before + 1


def test_one_pod_only_and_its_last_lines(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running", workers=1))
    api.put(pod())
    api.put(pod(role="worker", uid="pod-2"))
    api.write("m-1-worker-0", stamped(1, "a"), stamped(2, "b"), stamped(3, "c"), end=True)
    out = io.StringIO()
    wanted = Wanted(rank=1, tail=2)
    assert logs.show(cluster, api.objects["PyTorchJob", "m-1"], Printer(prefixed=False, out=out), wanted) == 1
    assert out.getvalue().splitlines() == ["b", "c"]


def following_one(api: TinyApi, cluster: Cluster, line: str) -> Following:
    """Follow a job of one running pod whose only line so far has been printed."""
    api.put(job("Running"))
    api.put(pod())
    api.write("m-1-master-0", stamped(1, line))
    following = Following(cluster, api.objects["PyTorchJob", "m-1"])
    until(lambda: following.lines == [line])
    return following


def test_following_a_job_to_its_end(api: TinyApi, cluster: Cluster) -> None:
    following = following_one(api, cluster, "one")
    api.write("m-1-master-0", stamped(2, "two"), end=True)
    api.put(pod("terminated"))
    end(api)
    assert following.ends() == ["one", "two"]


def test_following_ends_when_the_job_is_cancelled(
    api: TinyApi, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    following = following_one(api, cluster, "one")
    cancelled = job("Suspended")
    cancelled["metadata"]["annotations"] = {labels.CANCELLED: "2030-01-02T03:04:05Z"}
    api.put(cancelled)
    api.write("m-1-master-0", stamped(2, "saved"), end=True)
    api.put(pod("terminated"))
    assert following.ends() == ["one", "saved"]
    assert "job m-1: Cancelled" in capsys.readouterr().err
    assert Following(cluster, api.objects["PyTorchJob", "m-1"]).ends() == ["one", "saved"], "one that was so before"


def test_a_cut_connection_loses_and_repeats_nothing(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running"))
    api.put(pod())
    texts = [f"line {number}" for number in range(8)]
    # Several lines share a second, which is all the server can go on from.
    api.write("m-1-master-0", *(stamped(n // 4, text, f"{n:09}") for n, text in enumerate(texts)))
    api.logs["m-1-master-0"].cut_after = [3, 2, 0]
    following = Following(cluster, api.objects["PyTorchJob", "m-1"])
    until(lambda: len(following.lines) == len(texts))
    api.put(pod("terminated"))
    api.write("m-1-master-0", stamped(9, "last"), end=True)
    end(api)
    assert following.ends() == [*texts, "last"]


def test_a_cut_log_of_a_pod_that_has_ended_is_read_to_its_end(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Succeeded"))
    api.put(pod("terminated"))
    texts = [f"line {number}" for number in range(6)]
    api.write("m-1-master-0", *(stamped(n, text) for n, text in enumerate(texts)), end=True)
    api.logs["m-1-master-0"].cut_after = [2, 1]
    assert Following(cluster, api.objects["PyTorchJob", "m-1"]).ends() == texts


def test_a_pod_that_is_replaced_is_read_again(
    api: TinyApi, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    following = following_one(api, cluster, "first start")
    api.write("m-1-master-0", end=True)
    api.put(job("Restarting"))
    api.remove("Pod", "m-1-master-0")
    del api.logs["m-1-master-0"]
    api.put(pod(uid="pod-2"))
    api.put(job("Running"))
    api.write("m-1-master-0", stamped(5, "second start"))
    until(lambda: "second start" in following.lines)
    api.write("m-1-master-0", end=True)
    api.put(pod("terminated", uid="pod-2"))
    end(api)
    assert following.ends() == ["first start", "second start"]
    assert "-- m-1-master-0: started again" in capsys.readouterr().err


def test_a_late_pod_is_read_and_its_waiting_told(
    api: TinyApi, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    api.put(job("Created", workers=1))
    api.put(pod("waiting"))
    following = Following(cluster, api.objects["PyTorchJob", "m-1"])
    said = ""

    def told() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "-- m-1-master-0: the image cannot be pulled (no such image)" in said

    until(told)
    api.put(pod())
    api.write("m-1-master-0", stamped(1, "master"), end=True)
    api.put(pod(role="worker", uid="pod-2"))
    api.write("m-1-worker-0", stamped(2, "worker"), end=True)
    until(lambda: len(following.lines) == 2)
    api.put(pod("terminated"))
    api.put(pod("terminated", role="worker", uid="pod-2"))
    end(api, workers=1)
    assert sorted(following.ends()) == ["[0] master", "[1] worker"]


@pytest.mark.parametrize("forget", [False, True])
def test_cut_watches_are_taken_up_again(api: TinyApi, cluster: Cluster, forget: bool) -> None:
    api.put(job("Running"))
    following = Following(cluster, api.objects["PyTorchJob", "m-1"])
    until(lambda: sum("watch=true" in request for request in api.requests) == 2)
    api.cut_watches(forget=forget)
    api.put(pod("terminated"))
    api.write("m-1-master-0", stamped(1, "said while nobody listened"), end=True)
    api.cut_watches(forget=forget)
    end(api)
    assert following.ends() == ["said while nobody listened"]


def test_a_deleted_job_ends_it(api: TinyApi, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    api.put(job("Running"))
    following = Following(cluster, api.objects["PyTorchJob", "m-1"])
    until(lambda: sum("watch=true" in request for request in api.requests) == 2)
    api.remove("PyTorchJob", "m-1")
    assert following.ends() == []
    assert "job m-1 was deleted" in capsys.readouterr().err


def test_following_ends_in_time_though_the_job_goes_on(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running"))
    api.put(pod())
    api.write("m-1-master-0", stamped(1, "one"))
    following = Following(cluster, api.objects["PyTorchJob", "m-1"], until=time.monotonic() + 0.5)
    following.ends()


def test_times_sort_as_text() -> None:
    lines = [parse_line(raw, 0, "p") for raw in (stamped(1, "a"), "2030-01-02T03:04:01.5Z b", "2030-01-02T03:04:02Z c")]
    assert [line.text for line in sorted(lines, reverse=True)] == ["c", "b", "a"]
    assert parse_line("no time", 1, "p") == Line("", 1, "p", "no time")
    assert [line.text for line in merged([lines[:1], lines[1:]])] == ["a", "b", "c"]


def test_what_is_printed() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    line = Line("2030-01-02T03:04:01.000000000Z", 1, "m-1-worker-0", "loss 2 è")
    for out, options, text in (
        (io.StringIO(), {"prefixed": True}, "[1] loss 2 è\n"),
        (Terminal(), {"prefixed": True}, "\x1b[33m[1]\x1b[0m loss 2 è\n"),
        (Terminal(), {"prefixed": False}, "loss 2 è\n"),
        (io.StringIO(), {"prefixed": True, "pattern": re.compile("BLEU")}, ""),
        (io.StringIO(), {"prefixed": True, "pattern": re.compile(r"loss \d")}, "[1] loss 2 è\n"),
    ):
        Printer(out=out, **options).show(line)
        assert out.getvalue() == text
    out = io.StringIO()
    Printer(prefixed=True, as_json=True, out=out).show(line)
    assert json.loads(out.getvalue()) == {"time": line.at, "pod": line.pod, "rank": 1, "text": line.text}


def test_a_log_that_may_not_be_read_ends_it(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running"))
    api.put(pod())
    api.refused.add("log")
    following = Following(cluster, api.objects["PyTorchJob", "m-1"])
    following.ends()
    assert isinstance(following.failure, Forbidden) and "may not read log" in str(following.failure)


def test_times_of_any_zone_are_told_in_utc() -> None:
    before, after = "2030-10-27T02:59:59.5+02:00 one", "2030-10-27T02:00:00.25+01:00 two"
    lines = [parse_line(raw, 0, "p") for raw in (before, after)]
    assert [line.at for line in lines] == ["2030-10-27T00:59:59.500000000Z", "2030-10-27T01:00:00.250000000Z"]


def test_a_job_that_is_deleted_before_it_is_watched_ends_it(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running"))
    known = json.loads(json.dumps(api.objects["PyTorchJob", "m-1"]))
    api.remove("PyTorchJob", "m-1")
    following = Following(cluster, known)
    assert following.ends() == []


def test_pods_of_an_earlier_job_of_the_name_are_not_read(api: TinyApi, cluster: Cluster) -> None:
    api.put(job("Running"))
    earlier = pod()
    earlier["metadata"]["ownerReferences"] = [{"uid": "an-earlier-job", "controller": True}]
    api.put(earlier)
    api.write("m-1-master-0", stamped(1, "of the earlier one"))
    printer = Printer(prefixed=False, out=io.StringIO())
    assert logs.show(cluster, api.objects["PyTorchJob", "m-1"], printer, Wanted()) == 0


def test_a_log_that_cannot_be_read_keeps_no_other_from_being_shown(
    api: TinyApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(job("Running", workers=1))
    api.put(pod())
    api.put(pod(uid="pod-2", role="worker"))
    api.write("m-1-master-0", stamped(1, "one"), end=True)
    whole = pod_logs.whole_log

    def read(cluster: Cluster, pod: dict[str, Any], wanted: Wanted, _: object) -> object:
        if pod["metadata"]["uid"] == "pod-2":
            raise Forbidden("its node does not answer")
        return whole(cluster, pod, wanted)

    monkeypatch.setattr(logs, "whole_log", read)
    out = io.StringIO()
    with pytest.raises(Forbidden, match="does not answer"):
        logs.show(cluster, api.objects["PyTorchJob", "m-1"], Printer(prefixed=False, out=out), Wanted())
    assert "one" in out.getvalue()
