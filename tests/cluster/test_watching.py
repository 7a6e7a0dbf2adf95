"""The watching verbs against a real API server, operator and scheduler."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from launcher import waiting
from launcher.cli import main
from launcher.cluster import connect
from launcher.states import JobState
from launcher.waiting import wait_for
from launcher.watching import jobs_now
from mtft import exit_codes
from mtft.models import MODELS
from tests.cluster.cluster import Cluster
from tests.cluster.playing import FINISHED, MODEL, SECONDS, Played, cap, eventually, submit
from tests.cluster.proxy import cuttable

pytestmark = pytest.mark.usefixtures("idle_nodes")  # pods whose lives are played


@pytest.fixture(scope="module")
def namespace(control_plane: Cluster) -> str:
    return control_plane.namespace("watching")


@pytest.fixture(autouse=True)
def kubeconfig(control_plane: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))


@pytest.fixture
def played(control_plane: Cluster, namespace: str) -> Played:
    job = submit(control_plane, namespace)
    job.await_pod()
    return job


class Waiting:
    """`wait_for` in a thread: what it reported and what it gave."""

    def __init__(self, namespace: str, *names: str) -> None:
        self.states: list[JobState] = []
        self.codes: dict[str, int] = {}
        self.failure: BaseException | None = None
        self.cluster = connect(None, namespace)
        self.thread = threading.Thread(target=self._run, args=names, daemon=True)
        self.thread.start()

    def _run(self, *names: str) -> None:
        try:
            self.codes = wait_for(self.cluster, names, 3 * SECONDS, report=self.states.append)
        except BaseException as error:
            self.failure = error

    def has_seen(self, state: str) -> bool:
        return any(each.state == state for each in self.states)

    def ends(self) -> dict[str, int]:
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), f"still waiting after {SECONDS} s: {self.states}"
        assert self.failure is None
        return self.codes


def state_of(played: Played) -> JobState:
    [state] = jobs_now(connect(None, played.namespace), [played.name])
    return state


@pytest.mark.parametrize(
    ("verdict", "code"), [("better", exit_codes.DONE), ("not better", exit_codes.NOT_PROMOTED), (None, exit_codes.DONE)]
)
def test_waiting_to_a_good_end(played: Played, verdict: str | None, code: int) -> None:
    waiting = Waiting(played.namespace, played.name)
    played.runs()
    eventually(lambda: waiting.has_seen("Running"))
    message = {"exit_code": 0, "reason": "finished", "run_id": "r-1"}
    played.ends(0, message | ({"finished": {**FINISHED, "gate": {"verdict": verdict}}} if verdict else {}))
    assert waiting.ends() == {played.name: code}
    state = state_of(played)
    assert (state.state, state.verdict, state.run_id) == ("Succeeded", verdict, "r-1")
    assert state.scores == (
        {"en-fr": {"bleu": 33.5, "bleu_delta": 3.5, "chrf": 57.0, "chrf_delta": 2.0}} if verdict else {}
    )
    assert state.nodes and state.took_s is not None


def test_waiting_outlasts_restarts_and_evictions(played: Played) -> None:
    waiting = Waiting(played.namespace, played.name)
    first = played.await_pod()
    played.runs()
    eventually(lambda: played.has("Running"))
    played.ends(143, {"exit_code": 143, "reason": "stopped by SIGTERM"})
    second = played.await_pod(other_than=first)
    played.runs()
    eventually(lambda: played.has("Running"))
    played.evicted()
    played.await_pod(other_than=second)
    assert not waiting.codes and waiting.thread.is_alive()
    played.runs()
    played.ends(0, {"exit_code": 0, "finished": {"gate": {"verdict": "better"}}})
    assert waiting.ends() == {played.name: exit_codes.DONE}
    assert waiting.has_seen("Restarting") and not waiting.has_seen("Failed")


def test_a_failed_job_says_why(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    waiting = Waiting(played.namespace, played.name)
    played.runs()
    played.ends(2, {"exit_code": 2, "reason": "train.jsonl:3: not JSON\ntrain.jsonl:9: not JSON"})
    assert waiting.ends() == {played.name: exit_codes.FAILED}
    assert main(["status", played.name, "-n", played.namespace]) == exit_codes.DONE
    shown = capsys.readouterr().out
    assert "train.jsonl:3: not JSON" in shown and "train.jsonl:9: not JSON" in shown
    assert main(["wait", played.name, "-n", played.namespace, "-o", "json"]) == exit_codes.FAILED
    assert json.loads(capsys.readouterr().out) == [{"name": played.name, "result": "failed", "exit_code": 1}]
    assert main(["describe", played.name, "-n", played.namespace]) == exit_codes.DONE
    page = capsys.readouterr().out
    for words in ("Failed, failed", "train.jsonl:3", "conditions:", played.master, "events:", "SuccessfulCreatePod"):
        assert words in page


def test_a_failed_job_whose_pods_are_gone_keeps_its_reason(played: Played, capsys: pytest.CaptureFixture[str]) -> None:
    played.runs()
    eventually(lambda: played.has("Running"))
    why = "/mnt/mtft/data/nothere.jsonl: no such file"
    played.ends(2, {"exit_code": 2, "reason": why, "run_id": "r-1"}, phase="Running")

    def told() -> bool:
        events = played.cluster.get("events", "-n", played.namespace, "--field-selector", "type=Warning")
        return any(why in each["message"] and each["involvedObject"]["name"] == played.name for each in events)

    eventually(told)
    played.ends(2, {"exit_code": 2, "reason": why, "run_id": "r-1"})
    eventually(lambda: played.has("Failed"))
    played.cluster.kubectl("delete", "pod", played.master, "-n", played.namespace, "--grace-period=0", "--force")
    eventually(lambda: not played.pods())
    state = state_of(played)
    assert (state.reason, state.exit_code, state.run_id) == (why, exit_codes.BAD_INPUT, "r-1")
    assert main(["doctor", played.name, "-n", played.namespace]) == exit_codes.FAILED
    shown = capsys.readouterr().out.rpartition("fail  job")[2]
    assert why in shown and "correct the configuration or the data" in shown and "mtft-launch logs" not in shown


def test_a_deleted_job_counts_as_failed(played: Played) -> None:
    waiting = Waiting(played.namespace, played.name)
    eventually(lambda: waiting.states)
    played.cluster.kubectl("delete", "pytorchjob", played.name, "-n", played.namespace)
    assert waiting.ends() == {played.name: exit_codes.FAILED}


def test_a_wait_ends_in_time(played: Played) -> None:
    assert main(["wait", played.name, "-n", played.namespace, "--timeout", "1s"]) == exit_codes.WAIT_TIMED_OUT
    assert main(["wait", played.name, "-n", played.namespace, "--timeout", "0"]) == exit_codes.WAIT_TIMED_OUT


def test_a_batch_ends_with_the_worst(control_plane: Cluster, namespace: str) -> None:
    good, bad = (submit(control_plane, namespace, batch="night") for _ in range(2))
    waiting = Waiting(namespace, "night")
    for job, code in ((good, 0), (bad, 1)):
        job.await_pod()
        job.runs()
        job.ends(code)
    assert waiting.ends() == {good.name: exit_codes.DONE, bad.name: exit_codes.FAILED}
    assert main(["wait", "night", "-n", namespace]) == exit_codes.FAILED


def test_a_cut_connection_hides_nothing(played: Played, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cuttable(played.cluster, tmp_path) as (kubeconfig, proxy):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        waiting = Waiting(played.namespace, played.name)
        eventually(lambda: waiting.states)
        before = proxy.passed
        proxy.cut()
        eventually(lambda: proxy.passed > before)
        proxy.cut()
        played.runs()
        played.ends(0)
        assert waiting.ends() == {played.name: exit_codes.DONE}


def test_why_a_job_is_not_scheduled(control_plane: Cluster, namespace: str) -> None:
    job = submit(control_plane, namespace, gpus_per_node=8, node_selector={"pool": "gpu"})
    eventually(lambda: "taint" in (state_of(job).reason or ""))
    state = state_of(job)
    assert (state.state, state.phase, state.gpus) == ("Pending", "unscheduled", 8)
    assert "of 2 nodes" in (state.reason or "") and "not tolerated" in (state.reason or "")


def test_who_waits_is_told_why_pods_are_refused(control_plane: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FIRST_ASKED", 1.0)
    monkeypatch.setattr(waiting, "ASKED_EVERY", 1.0)
    namespace = control_plane.namespace("no-pods")
    cap(control_plane, namespace, {"pods": "0"})
    job = submit(control_plane, namespace)
    waited = Waiting(namespace, job.name)
    eventually(lambda: any("exceeded quota: q" in (state.reason or "") for state in waited.states))
    assert "the cluster refuses its pods" in (state_of(job).reason or "")
    control_plane.kubectl("delete", "pytorchjob", job.name, "-n", namespace)
    assert waited.ends() == {job.name: exit_codes.FAILED}


def test_status_asks_twice_however_many_jobs(control_plane: Cluster) -> None:
    namespace = control_plane.namespace("many")
    for _ in range(5):
        submit(control_plane, namespace)
    cluster = connect(None, namespace)
    assert len(jobs_now(cluster)) == len(MODELS)
    assert cluster.calls == 2


def test_list_and_names(control_plane: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    namespace = control_plane.namespace("names")
    assert main(["list", "-n", namespace]) == exit_codes.DONE
    assert capsys.readouterr().out == "(nothing)\n"
    job = submit(control_plane, namespace, batch="weekly")

    def listed(*arguments: str) -> Any:
        assert main(["list", "-o", "json", *arguments]) == exit_codes.DONE
        return json.loads(capsys.readouterr().out)

    [row] = listed("-n", namespace)
    assert (row["name"], row["model"], row["batch"], row["gpus"]) == (job.name, MODEL, "weekly", 0)
    assert isinstance(row["age_s"], float)
    assert {"namespace": namespace, "name": job.name}.items() <= next(
        row for row in listed("-A") if row["name"] == job.name
    ).items()
    assert listed("-n", namespace, "--batch", "other") == []
    for name in (job.name, "weekly", MODEL):
        [state] = jobs_now(connect(None, namespace), [name])
        assert state.name == job.name
    assert main(["status", job.name[:-1] + "x", "-n", namespace]) == exit_codes.BAD_INPUT
    assert f"did you mean {job.name}?" in capsys.readouterr().err
    submit(control_plane, namespace)
    assert main(["logs", MODEL, "-n", namespace]) == exit_codes.BAD_INPUT
    assert "has 2 jobs; name one" in capsys.readouterr().err
