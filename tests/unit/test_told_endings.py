"""A failed job whose pods are gone: the operator's events still tell why."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from launcher import labels
from launcher.cli import main
from launcher.states import JobState
from launcher.told_endings import by_object, told_ending
from launcher.waiting import wait_for
from launcher.watching import jobs_now
from mtft import exit_codes
from tests.unit.tiny_api import NAMESPACE, TinyApi, serve

NAME = "opus-1"
WHY = "/mnt/mtft/data/nothere.jsonl: no such file"
MESSAGE = json.dumps({"exit_code": 2, "reason": f"{WHY}\ntwo lines", "run_id": "r-1", "attempt": 3})
EXITED = f"Pod: {NAMESPACE}.{NAME}-master-0 exited with code {{}}"
ENDED = f"Error pod {NAME}-master-0 container {{}} exitCode: {{}} terminated message: {{}}"


def job() -> dict[str, Any]:
    failed = {"type": "Failed", "status": "True", "message": f'job "{NAME}" is failing'}
    return {
        "kind": "PyTorchJob",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "uid": "job-1",
            "labels": {labels.PART_OF: "mtft", labels.MODEL: "opus_mt_en_fr"},
            "creationTimestamp": "2030-01-02T03:00:00Z",
        },
        "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": {}}}},
        "status": {"conditions": [failed], "startTime": "2030-01-02T03:00:00Z"},
    }


def event(message: str, second: int = 0, uid: str = "job-1") -> dict[str, Any]:
    return {
        "kind": "Event",
        "metadata": {"name": f"e{second}", "namespace": NAMESPACE, "uid": f"e{second}"},
        "involvedObject": {"kind": "PyTorchJob", "name": NAME, "uid": uid},
        "lastTimestamp": f"2030-01-02T03:04:{second:02}Z",
        "reason": "Error",
        "message": message,
    }


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        ([ENDED.format("pytorch", 2, MESSAGE), EXITED.format(2)], 2, f"{WHY}\ntwo lines"),
        ([EXITED.format(143), EXITED.format(3)], 3, "exit 3"),
        ([ENDED.format("pytorch", 1, "said \x1b]0;mine\x07")], 1, "exit 1: said \\x1b]0;mine\\x07"),
        ([ENDED.format("pytorch", 1, "Traceback\nValueError: no")], 1, "exit 1: ValueError: no"),
        ([EXITED.format(143), EXITED.format(137)], None, None),  # tried again: none of them decided the job
        ([ENDED.format("istio-proxy", 2, MESSAGE)], None, None),
        (["Created pod: x"], None, None),
    ],
    ids=["message", "code alone", "moves the cursor", "end of a log", "tried again", "other container", "nothing"],
)
def test_what_the_operator_said_decides(messages: list[str], code: int | None, reason: str | None) -> None:
    events = by_object(event(message, second) for second, message in enumerate(messages))
    found = told_ending(events["job-1"])
    assert (found and found.exit_code, found and found.reason) == (code, reason)
    assert list(events) == ["job-1"], "not of an earlier job of the name"


@pytest.fixture
def api() -> TinyApi:
    made = TinyApi()
    made.put(job())
    made.put(event(ENDED.format("pytorch", 2, MESSAGE), 1))
    made.put(event(EXITED.format(2), 2))
    return made


def test_who_asks_for_a_job_is_told_why_though_its_pods_are_gone(
    api: TinyApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(api) as cluster:
        monkeypatch.setattr("launcher.cluster.connect", lambda *_: cluster)
        [state] = jobs_now(cluster, [NAME])
        assert (state.exit_code, state.run_id, state.restarts) == (2, "r-1", 2)
        assert cluster.calls == 3  # jobs, pods, events
        jobs_now(cluster)
        assert cluster.calls == 5  # the list of all jobs asks no events
        for verb in ("status", "describe"):
            assert main([verb, NAME, "-n", NAMESPACE]) == exit_codes.DONE
            assert WHY in capsys.readouterr().out
        told: list[JobState] = []
        assert wait_for(cluster, [NAME], 60, report=told.append) == {NAME: exit_codes.FAILED}
        assert [state.reason for state in told] == [f"{WHY}\ntwo lines"]


@pytest.mark.parametrize("refused", [False, True], ids=["forgotten", "forbidden"])
def test_where_no_event_tells_the_place_on_the_volume_is_named(api: TinyApi, *, refused: bool) -> None:
    if refused:
        api.refused.add("Event")
    else:
        for name in ("e1", "e2"):
            api.remove("Event", name)
    with serve(api) as cluster:
        [state] = jobs_now(cluster, [NAME])
    said = f'job "{NAME}" is failing \\(its pods are gone\\); `mtft-launch fetch {NAME} --what run -n {NAMESPACE}`'
    assert state.exit_code is None and re.match(said, state.reason or "")
