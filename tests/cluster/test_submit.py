"""Sending jobs to a real API server and operator, and what can be done to them there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from launcher import labels, submit
from launcher.cluster_errors import ClusterError, Conflict
from launcher.resources import CONFIG_MAPS, JOBS
from mtft.errors import InputError
from mtft.models import MODELS
from mtft.runs import JOB_UID_FILE
from tests.cluster.cluster import Cluster
from tests.cluster.launching import (
    DOCUMENT,
    Launcher,
    changed,
    names,
    rendered,
    without_defaults,
    without_uid,
)
from tests.cluster.playing import cap, eventually

BATCH = {key: value for key, value in DOCUMENT.items() if key != "model"}


def test_a_job_is_sent_once_and_owns_its_config(launcher: Launcher) -> None:
    first = launcher.json("run", document=DOCUMENT)
    assert (first["outcome"], first["namespace"]) == ("created", launcher.namespace)
    job = launcher.cluster.get(JOBS, first["name"])
    config = launcher.cluster.get(CONFIG_MAPS, first["name"])
    (owner,) = config["metadata"]["ownerReferences"]
    assert owner["uid"] == job["metadata"]["uid"]
    assert json.loads(config["data"]["config.json"]) == DOCUMENT

    again = launcher.json("run", document=DOCUMENT)
    assert (again["outcome"], again["name"]) == ("already there", first["name"])
    assert names(launcher) == [first["name"]]
    assert launcher.cluster.get(JOBS, first["name"])["metadata"]["uid"] == job["metadata"]["uid"]

    other = launcher.json("run", "--rerun", document=DOCUMENT)
    assert other["outcome"] == "created" and other["name"] != first["name"]


def test_what_is_said_tells_how_to_follow(launcher: Launcher) -> None:
    assert launcher("run", "--job", "mine", document=DOCUMENT) == 0
    assert f"mine submitted to namespace {launcher.namespace}" in launcher.out
    for command in ("mtft-launch logs mine --follow", "mtft-launch wait mine", "kubectl get pytorchjob mine"):
        assert f"{command} -n {launcher.namespace}" in launcher.out
    assert launcher("run", "--job", "mine", document=DOCUMENT) == 0
    assert "mine is there already: " in launcher.out and "new data under the same name are not noticed" in launcher.err
    assert launcher("run", "--job", "mine", document=changed(image="localhost/none:2")) == 0
    assert "localhost/none:1, not localhost/none:2" in launcher.err
    for verb in ("diff", "delete"):
        assert f"`mtft-launch {verb} mine -n {launcher.namespace}`" in launcher.err
    assert launcher("run", "--job", "mine", document={**DOCUMENT, "train": {"epochs": 2}}) == 2
    assert "another configuration" in launcher.err
    assert f"mtft-launch delete mine -n {launcher.namespace}" in launcher.err
    assert launcher("suspend", "mine") == 0
    assert f"`mtft-launch resume mine -n {launcher.namespace}` continues it" in launcher.out


def test_dry_run_prints_exactly_what_is_sent(launcher: Launcher) -> None:
    assert launcher("run", "--dry-run", document=DOCUMENT) == 0
    shown = list(yaml.safe_load_all(launcher.out))
    assert names(launcher) == []
    launcher.json("run", document=DOCUMENT)
    for wanted, resource in zip(shown, (CONFIG_MAPS, JOBS), strict=True):
        found = launcher.cluster.get(resource, wanted["metadata"]["name"])
        assert without_uid(found.get("data")) == wanted.get("data")
        assert without_defaults(found.get("spec")) == wanted.get("spec")
        assert found["metadata"]["labels"] == wanted["metadata"]["labels"]
        assert found["metadata"]["namespace"] == wanted["metadata"]["namespace"]


def test_config_left_without_a_job_is_adopted(launcher: Launcher) -> None:
    cluster = launcher.cluster
    config, job = rendered(launcher)
    left = cluster.create({**config, "data": {"config.json": "{}"}})
    assert submit.submit(cluster, [config, job]).outcome == "created"
    found = cluster.get(CONFIG_MAPS, config["metadata"]["name"])
    assert found["metadata"]["uid"] == left["metadata"]["uid"]
    [owner] = found["metadata"]["ownerReferences"]
    assert found["data"] == config["data"] | {JOB_UID_FILE: owner["uid"]}


def test_refused_job_leaves_nothing(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = launcher.cluster
    config, job = rendered(launcher)
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["name"] = "other"
    with pytest.raises(ClusterError, match="container with name pytorch"):
        submit.submit(cluster, [config, job])
    # Also where the check beforehand saw nothing wrong.
    with pytest.raises(ClusterError, match="container with name pytorch"):
        submit.send(cluster, [config, job])
    assert cluster.find(CONFIG_MAPS, config["metadata"]["name"]) is None
    assert names(launcher) == []


def test_interrupted_sending_leaves_nothing(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = launcher.cluster
    config, job = rendered(launcher)
    real = cluster.create

    def interrupt(manifest: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if manifest["kind"] == "PyTorchJob" and not dry_run:
            raise KeyboardInterrupt
        return real(manifest, dry_run=dry_run)

    monkeypatch.setattr(cluster, "create", interrupt)
    with pytest.raises(KeyboardInterrupt):
        submit.submit(cluster, [config, job])
    assert cluster.find(CONFIG_MAPS, config["metadata"]["name"]) is None


def test_job_sent_by_several_at_once_is_one_job(launcher: Launcher) -> None:
    clusters = [launcher.cluster for _ in range(4)]
    for name in ("one", "two", "three", "four", "five"):
        objects = rendered(launcher, name)
        with ThreadPoolExecutor(len(clusters)) as pool:
            sent = list(pool.map(lambda cluster: submit.submit(cluster, objects), clusters))  # noqa: B023 - used now
        assert len({each.job["metadata"]["uid"] for each in sent}) == 1
        assert [each.outcome for each in sent].count("created") == 1
        (owner,) = clusters[0].get(CONFIG_MAPS, name)["metadata"]["ownerReferences"]
        assert owner["uid"] == sent[0].job["metadata"]["uid"]


@pytest.mark.parametrize("theirs", ["written over ours", "taken away"])
def test_a_job_keeps_its_configuration_when_another_wants_its_name(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    cluster, other = launcher.cluster, launcher.cluster
    ours, foreign = rendered(launcher, "mine"), rendered(launcher, "mine", train={"epochs": 2})
    real = cluster.create

    def last_moment(manifest: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        if manifest["kind"] == "PyTorchJob" and not dry_run:
            submit._config_map(other, foreign[0])
            if theirs == "taken away":
                other.delete(CONFIG_MAPS, "mine")
        return real(manifest, dry_run=dry_run)

    monkeypatch.setattr(cluster, "create", last_moment)
    sent = submit.submit(cluster, ours)
    assert (sent.outcome, sent.notes) == ("created", [])
    with pytest.raises(InputError, match="another configuration"):
        submit.send(other, foreign)
    held = cluster.get(CONFIG_MAPS, "mine")
    assert without_uid(held["data"]) == ours[0]["data"]
    assert held["metadata"]["labels"] == ours[0]["metadata"]["labels"]
    assert [owner["uid"] for owner in held["metadata"]["ownerReferences"]] == [sent.job["metadata"]["uid"]]


def test_of_several_configurations_under_one_name_one_is_sent_whole(launcher: Launcher) -> None:
    clusters = [launcher.cluster for _ in range(4)]
    for name in ("one", "two", "three"):
        wanted = [rendered(launcher, name, train={"epochs": 1 + number}) for number in range(len(clusters))]

        def send(cluster: Any, objects: list[dict[str, Any]]) -> submit.Submission | None:
            try:
                return submit.send(cluster, objects)
            except (InputError, Conflict):
                return None

        with ThreadPoolExecutor(len(clusters)) as pool:
            sent = list(pool.map(send, clusters, wanted))
        [winner] = [number for number, each in enumerate(sent) if each and each.outcome == "created"]
        assert without_uid(clusters[0].get(CONFIG_MAPS, name)["data"]) == wanted[winner][0]["data"]
        run = clusters[0].get(JOBS, name)["metadata"]["labels"][labels.RUN]
        assert run == wanted[winner][1]["metadata"]["labels"][labels.RUN]


def test_config_of_a_job_that_is_gone_is_made_anew(launcher: Launcher) -> None:
    cluster = launcher.cluster
    config, job = rendered(launcher)
    submit.submit(cluster, [config, job])
    held = cluster.get(CONFIG_MAPS, config["metadata"]["name"])
    cluster.delete(JOBS, job["metadata"]["name"])
    eventually(lambda: cluster.find(CONFIG_MAPS, held["metadata"]["name"]) is None)
    # As it is before the garbage collector comes by.
    metadata = {**config["metadata"], "ownerReferences": held["metadata"]["ownerReferences"]}
    cluster.create({**config, "metadata": metadata})
    sent = submit.submit(cluster, [config, job])
    found = cluster.get(CONFIG_MAPS, config["metadata"]["name"])
    assert sent.outcome == "created"
    assert [owner["uid"] for owner in found["metadata"]["ownerReferences"]] == [sent.job["metadata"]["uid"]]


def test_job_that_is_being_deleted_is_not_there(launcher: Launcher) -> None:
    cluster = launcher.cluster
    config, job = rendered(launcher)
    job["metadata"]["finalizers"] = ["example.org/hold"]
    submit.submit(cluster, [config, job])
    cluster.delete(JOBS, job["metadata"]["name"])
    try:
        assert launcher("run", document=DOCUMENT) == 3
        assert "is being deleted; send it again when it is gone" in launcher.err
    finally:
        cluster.patch(JOBS, job["metadata"]["name"], {"metadata": {"finalizers": None}})
    eventually(lambda: cluster.find(JOBS, job["metadata"]["name"]) is None)
    assert launcher.json("run", document=DOCUMENT)["outcome"] == "created"


def test_names_of_others_are_left_alone(launcher: Launcher) -> None:
    cluster = launcher.cluster
    config, job = rendered(launcher, "theirs")
    foreign = {**config, "metadata": {"name": "theirs", "namespace": launcher.namespace}, "data": {"a": "b"}}
    cluster.create(foreign)
    with pytest.raises(InputError, match=r"ConfigMap theirs .* is not one of mtft's"):
        submit.submit(cluster, [config, job])
    assert cluster.get(CONFIG_MAPS, "theirs")["data"] == {"a": "b"}


def test_quota_refuses_with_its_name_and_leaves_nothing(control_plane: Cluster, launcher: Launcher) -> None:
    cap(control_plane, launcher.namespace, {"count/pytorchjobs.kubeflow.org": "0"})
    assert launcher("run", document=DOCUMENT) == 3
    assert "refused by the cluster's rules" in launcher.err and "exceeded quota: q" in launcher.err
    assert launcher.cluster.list(CONFIG_MAPS, selector=labels.SELECTOR).items == []


def test_batch_of_five_is_one_table_and_idempotent(launcher: Launcher) -> None:
    rows = launcher.json("batch", "--all", "--name", "nightly", document=BATCH)
    assert len(rows) == len(MODELS) and {row["result"] for row in rows} == {"submitted"}
    jobs = launcher.cluster.list(JOBS, selector=labels.selector(batch="nightly")).items
    assert sorted(job["metadata"]["name"] for job in jobs) == sorted(row["name"] for row in rows)
    again = launcher.json("batch", "--all", "--name", "nightly", document=BATCH)
    assert {row["result"] for row in again} == {"already there"}
    some = launcher.json("batch", "--all", "--skip", "m2m100_418m", "--name", "weekly", document=BATCH)
    assert len(some) == 4
    assert launcher("batch", "--models", "m2m100_418m,opus_mt_en_fr", "--name", "two", document=BATCH) == 0
    assert [line.split()[2] for line in launcher.out.splitlines()] == ["RESULT", "submitted", "submitted"]
    assert launcher("run", "--job", "two", document=DOCUMENT) == 2
    assert "two is the name of a batch" in launcher.err
    assert launcher("run", "--job", "one", document=DOCUMENT) == 0
    assert launcher("batch", "--all", "--name", "one", document=BATCH) == 2
    assert "one is the name of a job" in launcher.err


def test_batch_sends_nothing_when_one_job_is_refused(control_plane: Cluster, launcher: Launcher) -> None:
    models = {"m2m100_418m": {}, "opus_mt_en_fr": {"cluster": {"claim": "x", "labels": {"a": "b"}}}}
    document = {**BATCH, "models": models}
    # A job that is not ours has the name one of them would get.
    assert launcher("batch", "--dry-run", "--name", "b", document=document) == 0
    config, _, _, taken = yaml.safe_load_all(launcher.out)
    del config["metadata"]["labels"]
    launcher.cluster.create(config)
    only = ("batch", "--name", "b", "--models", "m2m100_418m")
    (row,) = launcher.json(*only, document=document, code=2)
    assert row["result"] == "refused" and "ConfigMap" in row["note"] and "--name for a batch" in row["note"]
    launcher.cluster.delete(CONFIG_MAPS, config["metadata"]["name"])
    del taken["metadata"]["labels"]
    launcher.cluster.create(taken)
    rows = launcher.json("batch", "--name", "b", "--wait", "--timeout", "60s", document=document, code=2)
    assert [row["result"] for row in rows] == ["not sent", "refused"]
    assert "is not one of mtft's" in rows[1]["note"] and "add opus_mt_en_fr to --skip" in rows[0]["note"]
    assert names(launcher) == [taken["metadata"]["name"]]
    # Nor is one waited for that is there already: it may be suspended.
    launcher.json(*only, document=document)
    rows = launcher.json("batch", "--name", "b", "--wait", "--timeout", "60s", document=document, code=2)
    assert [(row["result"], row["exit_code"]) for row in rows] == [("already there", 0), ("refused", 2)]


def test_batch_sends_again_what_could_not_be_sent(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    from launcher.cluster_errors import Busy

    real, failures = submit.send, ["once"]

    def fail_once(cluster: Any, objects: Any) -> Any:
        if failures:
            failures.pop()
            raise Busy("not now")
        return real(cluster, objects)

    monkeypatch.setattr(submit, "send", fail_once)
    rows = launcher.json("batch", "--models", "m2m100_418m,opus_mt_en_fr", document=BATCH)
    assert [row["result"] for row in rows] == ["submitted", "submitted"]
