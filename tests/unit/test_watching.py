"""Which jobs are meant, how they are shown, and how long is waited."""

from __future__ import annotations

import argparse
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from launcher import labels
from launcher.cli import main
from launcher.description import describe, events_of, page
from launcher.job_tables import duration, note, restarts_text, status_row
from launcher.selection import choose, choose_one, refuse_shared_name
from launcher.states import JobState, job_state
from launcher.verbs.wait import seconds
from launcher.waiting import wait_for
from launcher.watching import jobs_now
from mtft import exit_codes
from mtft.errors import InputError
from tests.unit.tiny_api import NAMESPACE, TinyApi, serve

UNKNOWN = f"verdict unknown: its pods are gone; `mtft-launch fetch opus-2 --what report -n {NAMESPACE}` tells"
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def job(name: str, model: str = "opus_mt_en_fr", batch: str | None = None, *conditions: str) -> dict[str, Any]:
    given = {labels.MODEL: model} | ({labels.BATCH: batch} if batch else {})
    template = {"spec": {"containers": [{"name": "pytorch", "image": "example.org/mtft:1.0"}]}}
    return {
        "kind": "PyTorchJob",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}", "labels": given},
        "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": template}}},
        "status": {
            "conditions": [
                {
                    "type": kind,
                    "status": "True",
                    "message": f"it is {kind}",
                    "lastTransitionTime": "2030-01-02T03:00:05Z",
                }
                for kind in conditions
            ]
        },
    }


def event(name: str, minutes: int, **more: Any) -> dict[str, Any]:
    at = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"kind": "Pod", "name": name}
    return {"metadata": {"name": f"{name}.{minutes}"}, "involvedObject": about, "lastTimestamp": at, **more}


JOBS = [
    job("night-a-1", "mbart50_mmt_fr", "night"),
    job("night-b-2", "m2m100_418m", "night"),
    job("opus-1"),
    job("opus-2"),
]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], ["night-a-1", "night-b-2", "opus-1", "opus-2"]),
        (["opus-2"], ["opus-2"]),
        (["night"], ["night-a-1", "night-b-2"]),
        (["m2m100_418m"], ["night-b-2"]),
        (["night-b-2", "night", "m2m100_418m"], ["night-b-2", "night-a-1"]),
    ],
)
def test_names_mean_jobs_batches_and_models(names: list[str], found: list[str]) -> None:
    assert [each["metadata"]["name"] for each in choose(names, JOBS)] == found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("opus_mt_en_fr", "opus_mt_en_fr has 2 jobs; name one: opus-1, opus-2"),
        ("nite", "did you mean night"),
        ("m2m100_418", "did you mean m2m100_418m"),
        ("zzz", r"with -n, or in all \(if you may\) with `mtft-launch list -A`"),
    ],
)
def test_names_that_mean_nothing_or_too_much(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        choose([name], JOBS)


def test_one_job_is_one() -> None:
    assert choose_one("opus-1", JOBS)["metadata"]["name"] == "opus-1"
    with pytest.raises(InputError, match="night is a batch of 2 jobs"):
        choose_one("night", JOBS)
    with pytest.raises(InputError, match="there is no job at all"):
        choose_one("opus-1", [])


def test_a_job_and_a_batch_do_not_share_a_name() -> None:
    with pytest.raises(InputError, match=r"night is the name of a batch .*night-a-1, night-b-2.* another --job"):
        refuse_shared_name("night", JOBS)
    with pytest.raises(InputError, match=r"opus-1 is the name of a job .* another --name"):
        refuse_shared_name("opus-1", JOBS, batch=True)
    refuse_shared_name("opus-1", JOBS)
    refuse_shared_name("night", JOBS, batch=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (59.4, "59s"),
        (61, "1m01s"),
        (3599, "59m"),
        (3600, "1h00m"),
        (93_900, "1d02h"),
        (-3, "0s"),
    ],
)
def test_durations(value: float | None, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), ("0", 0), ("1h30m", 5400)]
)
def test_times_to_wait(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "-1", "5x", "m", "1h30"])
def test_no_times(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time"):
        seconds(text)


def test_rows_for_people() -> None:
    state = JobState(
        name="m-1",
        namespace="team",
        model="m",
        batch=None,
        state="Running",
        phase="training",
        percent=12.34,
        eta_s=4000,
        loss=2.34567,
        tokens_per_second=1234.5,
        restarts=2,
        resumed_at=40,
    )
    row = status_row(state, with_namespace=False)
    assert (row["done"], row["eta"], row["loss"], row["tok/s"]) == ("12%", "1h06m", "2.346", "1234")
    assert restarts_text(state) == "2 (from step 40)" and "namespace" not in row
    failed = JobState(
        name="m", namespace="t", model=None, batch=None, state="Failed", phase="failed", reason="first\nsecond"
    )
    assert note(failed) == "first"
    assert note(replace(failed, reason="3 rows are bad. The first of them:\n  a.jsonl:7: no JSON\n...")) == (
        "3 rows are bad. The first of them: a.jsonl:7: no JSON"
    )


def test_the_page_of_a_job() -> None:
    one = job("opus-1", "opus_mt_en_fr", None, "Created", "Failed")
    events = [
        event("opus-1-master-0", 2, reason="BackOff", message="later", count=4, type="Warning"),
        event("opus-1-master-0", 9, reason="Pulling", message="earlier"),
        event("opus-10-master-0", 1, message="another job's"),
        event("opus-1-extra", 1, message="nobody's"),
    ]
    assert [each["message"] for each in events_of(one, events)] == ["earlier", "later"]
    made = {"metadata": {**one["metadata"], "creationTimestamp": events[0]["lastTimestamp"]}}
    assert [each["message"] for each in events_of(made, events)] == ["later"], "of an earlier job of the name"
    text = page(describe(one, job_state(one, [], now=NOW), [], events, NOW))
    for words in ("opus-1 in namespace team", "it is Failed (its pods are gone)", "4m00s ago", "later", "Warning"):
        assert words in text
    assert "another job's" not in text and "nobody's" not in text
    resumed = replace(job_state(one, [], now=NOW), took_s=135.0)
    shown = page(describe(one, resumed, [], [], NOW))
    assert re.search(r"^last start took +2m15s, the wait for nodes included$", shown, re.MULTILINE)


def test_the_wait_for_a_node_is_told_apart_from_the_run() -> None:
    one = job("opus-1", "opus_mt_en_fr", None, "Created", "Failed")
    resumed = replace(job_state(one, [], now=NOW), took_s=135.0)
    terminated = {"exitCode": 2, "startedAt": "2030-01-02T03:00:00Z", "finishedAt": "2030-01-02T03:00:04Z"}
    for state, ran in (({"terminated": terminated}, "4s"), ({"running": {"startedAt": "2030-01-02T03:04:00Z"}}, "5s")):
        pod: dict[str, Any] = {"metadata": {"name": "opus-1-master-0", "namespace": NAMESPACE, "labels": {}}}
        pod["status"] = {"containerStatuses": [{"name": "pytorch", "state": state}]}
        shown = page(describe(one, resumed, [pod], [], NOW))
        assert re.search(rf"^last start took +2m15s, of which its last pods ran {ran}$", shown, re.MULTILINE)


def test_a_job_deleted_while_nobody_could_listen_counts_as_failed() -> None:
    api = TinyApi()
    for each in (job("opus-1"), job("opus-2")):
        api.put(each)
    last: dict[str, str] = {}
    with serve(api) as cluster:

        def told(state: JobState) -> None:
            last[state.name] = f"{state.state}: {note(state)}"
            if state.name == "opus-2" and not api.oldest:
                # Between the list and the watch: the version to go on from is forgotten, one job is gone.
                api.remove("PyTorchJob", "opus-1")
                api.put(job("opus-2", "opus_mt_en_fr", None, "Succeeded"))
                api.cut_watches(forget=True)

        assert wait_for(cluster, ["opus-1", "opus-2"], 60, report=told) == {
            "opus-1": exit_codes.FAILED,
            "opus-2": exit_codes.DONE,
        }
    assert last == {"opus-1": "Deleted: deleted by somebody before it ended", "opus-2": f"Succeeded: {UNKNOWN}"}


def test_wait_says_that_a_job_was_deleted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    api = TinyApi()
    api.put(job("opus-1"))
    with serve(api) as cluster:
        monkeypatch.setattr("launcher.cluster.connect", lambda *_: cluster)
        threading.Timer(0.5, api.remove, ("PyTorchJob", "opus-1")).start()
        assert main(["wait", "opus-1", "-n", NAMESPACE, "--timeout", "30"]) == exit_codes.FAILED
    out, err = capsys.readouterr()
    assert "deleted by somebody" in out and "-- opus-1: Deleted" in err


def test_a_verdict_that_went_with_the_pods_is_not_taken_for_good(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = TinyApi()
    one = job("opus-2", "opus_mt_en_fr", None, "Created", "Succeeded")
    api.put(one)
    with serve(api) as cluster:
        monkeypatch.setattr("launcher.cluster.connect", lambda *_: cluster)
        assert main(["wait", "opus-2", "-n", NAMESPACE]) == exit_codes.DONE
        out, err = capsys.readouterr()
        assert "done, verdict unknown" in out and f"-- opus-2: Succeeded: {UNKNOWN}" in err
        assert main(["status", "-n", NAMESPACE]) == exit_codes.DONE
        assert UNKNOWN in capsys.readouterr().out
    assert f"why:\n  {UNKNOWN}" in page(describe(one, job_state(one, [], now=NOW), [], [], NOW))
    assert job_state(one, None, now=NOW).reason is None  # nobody asked for its pods


def test_a_lost_pod_is_told_once() -> None:
    def two(condition: str, **worker: int) -> dict[str, Any]:
        one = job("opus-1", "opus_mt_en_fr", None, "Created", condition)
        specs = one["spec"]["pytorchReplicaSpecs"]
        specs["Worker"] = specs["Master"]
        one["status"]["replicaStatuses"] = {"Master": {"active": 1}, "Worker": worker}
        return one

    api = TinyApi()
    api.put(two("Running", active=1))
    told = []
    with serve(api) as cluster:

        def note_it(state: JobState) -> None:
            told.append(state.state)
            if len(told) == 1:
                for condition in ("Restarting", "Running", "Restarting", "Running"):
                    api.put(two(condition, failed=1))
                api.put(two("Running", active=1))
                api.put(two("Succeeded", active=1))

        assert wait_for(cluster, ["opus-1"], 60, report=note_it) == {"opus-1": exit_codes.DONE}
    assert told == ["Running", "Restarting", "Running", "Succeeded"]


def test_only_running_jobs_logs_are_read() -> None:
    api = TinyApi()
    api.put(job("opus-1", "opus_mt_en_fr", None, "Created", "Running"))
    api.put(job("opus-2", "opus_mt_en_fr", None, "Created", "Succeeded"))
    for name in ("opus-1", "opus-2"):
        given = {labels.OPERATOR_JOB: name, labels.OPERATOR_REPLICA: "master", labels.OPERATOR_INDEX: "0"}
        meta = {"name": f"{name}-master-0", "namespace": NAMESPACE, "uid": name, "labels": given}
        api.put({"kind": "Pod", "metadata": meta, "spec": {}, "status": {"phase": "Running"}})
    step = '{"step": 3, "total": 4, "percent": 75.0, "eta_s": 9, "loss": 2.0, "tokens_per_second": 50.0}'
    start = ["job opus-1, run r-1, attempt 3", "continuing from step-2 of 4 steps"]
    noise = [f"line {n}" for n in range(2000)]
    api.write("opus-1-master-0", *(f"2030-01-02T03:04:05.000000000Z {text}" for text in (*start, *noise, step)))
    with serve(api) as cluster:
        states = {state.name: state for state in jobs_now(cluster)}
        assert cluster.calls == 4  # jobs, pods, the first and the last lines of one log
    running = states["opus-1"]
    assert (running.percent, running.restarts, running.resumed_at, running.run_id) == (75.0, 2, 2, "r-1")
    assert states["opus-2"].percent is None


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        (
            {
                "conditions": [
                    {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "2 GPUs short"}
                ]
            },
            "queue night: 2 GPUs short (Pending)",
        ),
        (
            {
                "conditions": [
                    {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "waits"},
                    {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "by a job of more weight"},
                ]
            },
            "queue night: by a job of more weight (Preempted)",
        ),
        ({"conditions": []}, "queue night has not admitted it yet"),
        (None, "integrations.frameworks of Kueue's configuration must name kubeflow.org/pytorchjob"),
    ],
)
def test_a_queued_job_tells_why_its_queue_lets_it_wait(workload: dict[str, Any] | None, words: str) -> None:
    api = TinyApi()
    queued = job("opus-1")
    queued["metadata"]["labels"][labels.QUEUE] = "night"
    queued["spec"]["runPolicy"] = {"suspend": True}
    api.put(queued)
    api.put(job("opus-2"))
    for owner, status in (("uid-opus-1", workload), ("uid-other", {"conditions": []})):
        if status is not None:
            meta = {
                "name": f"w-{owner}",
                "namespace": NAMESPACE,
                "uid": f"w-{owner}",
                "ownerReferences": [{"uid": owner}],
            }
            api.put({"kind": "Workload", "metadata": meta, "status": status})
    with serve(api) as cluster:
        states = {state.name: state for state in jobs_now(cluster)}
        assert cluster.calls == 3  # jobs, pods, workloads
    assert states["opus-1"].state == "Queued" and words in note(states["opus-1"])
    assert "queue" not in note(states["opus-2"])


MOUNT = 'MountVolume.SetUp failed for volume "config" : configmap "opus-1" not found'


@pytest.mark.parametrize(
    ("why", "message", "mounted", "phase", "words"),
    [
        ("FailedMount", MOUNT, "False", "blocked", f"ConfigMap opus-1 is missing ({MOUNT})"),
        ("FailedMount", "timed out", None, "starting", "its node cannot mount a volume (timed out)"),
        ("FailedCreatePodSandBox", "no CNI", "False", "starting", "its node cannot start any container of it (no CNI)"),
        ("FailedMount", MOUNT, "True", "starting", "its node is pulling the image or mounting the volume"),
        ("", "", "False", "starting", "its node is pulling the image or mounting the volume"),
    ],
    ids=["missing", "slow", "no network", "mended", "no event"],
)
def test_a_node_that_cannot_start_a_pod_is_told(
    why: str, message: str, mounted: str | None, phase: str, words: str
) -> None:
    api = TinyApi()
    for name in ("opus-1", "opus-2"):
        api.put(job(name))
        given = {labels.OPERATOR_JOB: name, labels.OPERATOR_REPLICA: "master", labels.OPERATOR_INDEX: "0"}
        meta = {"name": f"{name}-master-0", "namespace": NAMESPACE, "uid": f"pod-{name}", "labels": given}
        ready = [{"type": "PodReadyToStartContainers", "status": mounted}] if mounted else []
        creating = [{"name": "pytorch", "state": {"waiting": {"reason": "ContainerCreating"}}}]
        status = {"phase": "Pending", "conditions": ready, "containerStatuses": creating}
        api.put({"kind": "Pod", "metadata": meta, "spec": {"nodeName": "gpu-1"}, "status": status})
    if message:
        failed = event("opus-1-master-0", 1, kind="Event", reason=why, message=message)
        failed["metadata"]["uid"] = "event-1"
        failed["involvedObject"]["uid"] = "pod-opus-1"
        api.put(failed)
    with serve(api) as cluster:
        states = {state.name: state for state in jobs_now(cluster)}
        assert cluster.calls == (2 if mounted == "True" else 3)  # jobs, pods, and events where pods wait for volumes
    assert (states["opus-1"].phase, states["opus-1"].reason) == (phase, words)
    assert states["opus-2"].phase == "starting"
