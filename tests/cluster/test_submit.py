"""Sending jobs to a real API server and operator, and what can be done to them there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher import actions, labels, pytorchjob, submit
from launcher.cluster_errors import ClusterError, Conflict, Invalid
from launcher.resources import CONFIG_MAPS, JOBS, NETWORK_POLICIES, PODS
from launcher.surroundings import network_policy
from mtft.errors import InputError
from mtft.models import MODELS
from mtft.runs import JOB_UID_FILE, RETRIED_FILE
from tests.cluster.cluster import Cluster
from tests.cluster.launching import DOCUMENT, Launcher, end_pod, until_state
from tests.cluster.test_control_plane import eventually
from tests.conftest import CHECKOUT

BATCH = {key: value for key, value in DOCUMENT.items() if key != "model"}


@pytest.fixture
def launcher(
    control_plane: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Launcher:
    return Launcher(control_plane.kubeconfig, control_plane.namespace("send"), tmp_path, capsys, monkeypatch)


def changed(**cluster: Any) -> dict[str, Any]:
    return {**DOCUMENT, "cluster": {**DOCUMENT["cluster"], **cluster}}  # type: ignore[dict-item]


def names(launcher: Launcher) -> list[str]:
    return sorted(job["metadata"]["name"] for job in launcher.cluster.list(JOBS).items)


def rendered(launcher: Launcher, name: str | None = None, **settings: Any) -> list[dict[str, Any]]:
    from launcher.pytorchjob import render

    return render({**DOCUMENT, **settings}, "m2m100_418m", name=name, namespace=launcher.namespace)


def without_uid(data: dict[str, str] | None) -> dict[str, str] | None:
    """Return what a ConfigMap held when it was sent."""
    return data and {name: text for name, text in data.items() if name != JOB_UID_FILE}


def without_defaults(spec: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a job's specification without the one field the CRD fills in."""
    if spec is not None and spec["runPolicy"].get("suspend") is False:
        del spec["runPolicy"]["suspend"]
    return spec


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
    quota = {"hard": {"count/pytorchjobs.kubeflow.org": "0"}}
    metadata = {"name": "none", "namespace": launcher.namespace}
    control_plane.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": quota})
    eventually(
        lambda: control_plane.get("resourcequota", "none", "-n", launcher.namespace).get("status", {}).get("hard")
    )
    assert launcher("run", document=DOCUMENT) == 3
    assert "refused by the cluster's rules" in launcher.err and "none" in launcher.err
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
    taken = [each for each in yaml.safe_load_all(launcher.out) if each["kind"] == "PyTorchJob"][1]
    del taken["metadata"]["labels"]
    launcher.cluster.create(taken)
    rows = launcher.json("batch", "--name", "b", "--wait", "--timeout", "60s", document=document, code=2)
    assert [row["result"] for row in rows] == ["not sent", "refused"]
    assert "is not one of mtft's" in rows[1]["note"]
    assert names(launcher) == [taken["metadata"]["name"]]


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


def test_diff_shows_config_and_placement_and_nothing_else(launcher: Launcher) -> None:
    assert launcher("diff", document=DOCUMENT) == 2
    assert "there is no job of m2m100_418m" in launcher.err
    name = launcher.json("run", document=DOCUMENT)["name"]
    until_state(launcher.cluster, name, "Created", eventually)
    assert launcher("diff", document=DOCUMENT) == 0
    assert f"{name} is what would be sent" in launcher.out
    assert launcher.json("diff", name, document=DOCUMENT) == []

    found = launcher.json("diff", document={**changed(image="localhost/none:2"), "train": {"epochs": 2}}, code=1)
    by_path = {row["path"]: (row["live"], row["wanted"]) for row in found}
    image = "spec.pytorchReplicaSpecs.Master.template.spec.containers[pytorch].image"
    assert by_path == {
        "config: cluster.image": ("localhost/none:1", "localhost/none:2"),
        "config: train": ("(absent)", {"epochs": 2}),
        image: ("localhost/none:1", "localhost/none:2"),
    }
    assert without_defaults(launcher.cluster.get(JOBS, name)["spec"]) == rendered(launcher)[1]["spec"]


def test_suspend_resume_and_cancel(launcher: Launcher) -> None:
    cluster = launcher.cluster
    name = launcher.json("run", document=DOCUMENT)["name"]
    pod = f"{name}-master-0"
    eventually(lambda: cluster.find(PODS, pod))

    def retried() -> str | None:
        found: str | None = cluster.get(CONFIG_MAPS, name)["data"].get(RETRIED_FILE)
        return found

    assert "suspended" in launcher.json("suspend", "m2m100_418m")[0]["result"]
    until_state(cluster, name, "Suspended", eventually)
    eventually(lambda: cluster.find(PODS, pod) is None)
    assert launcher.json("suspend", name)[0]["result"] == "is suspended already"
    assert launcher("diff", document=DOCUMENT) == 0
    budgets = {retried()}
    assert "restarts and deadline count from now" in launcher.json("resume", name)[0]["result"]
    eventually(lambda: cluster.find(PODS, pod))
    budgets.add(retried())
    assert launcher.json("resume", name)[0]["result"] == "is not suspended"

    assert "cancelled" in launcher.json("cancel", name)[0]["result"]
    eventually(lambda: cluster.find(PODS, pod) is None)
    assert cluster.get(JOBS, name)["metadata"]["annotations"][labels.CANCELLED]
    assert "restarts and deadline count from now" in launcher.json("retry", name)[0]["result"]
    eventually(lambda: cluster.find(PODS, pod))
    assert len(budgets | {retried()}) == 3
    assert labels.CANCELLED not in (cluster.get(JOBS, name)["metadata"].get("annotations") or {})


def test_job_in_a_queue_is_left_to_the_queue(launcher: Launcher) -> None:
    name = launcher.json("run", document=changed(queue="team"))["name"]
    assert launcher("suspend", name) == 2
    assert "the Kueue queue team decides" in launcher.out and "get workloads" in launcher.out
    launcher.cluster.patch(JOBS, name, {"spec": {"runPolicy": {"suspend": True}}})
    [state] = launcher.json("status", name)
    assert state["state"] == "Queued" and "Kueue is not installed" in state["reason"]


def test_waiting_leaves_with_the_code_of_the_job(launcher: Launcher) -> None:
    cluster = launcher.cluster
    name = launcher.json("run", document=DOCUMENT)["name"]
    for how in ("--wait", "--follow"):
        assert launcher("run", how, "--timeout", "1s", document=DOCUMENT) == 124
    eventually(lambda: cluster.find(PODS, f"{name}-master-0"))
    end_pod(cluster, f"{name}-master-0", 0)
    assert launcher("run", "--wait", "--timeout", "60s", document=DOCUMENT) == 0
    assert launcher("run", document=DOCUMENT) == 0
    assert "--rerun starts another run" in launcher.err
    assert "ended already" in launcher.json("cancel", name)[0]["result"]
    rows = launcher.json("batch", "--models", "opus_mt_en_fr", "--wait", "--timeout", "1s", document=BATCH, code=124)
    assert rows[0]["exit_code"] == 124


def test_names_that_are_not_there(launcher: Launcher) -> None:
    launcher.json("run", "--job", "mine", document=DOCUMENT)
    for verb in ("suspend", "resume", "cancel", "retry", "delete"):
        assert launcher(verb, "mina") == 2
        assert "did you mean mine?" in launcher.err


def test_failed_job_is_retried_under_its_name_with_a_fresh_budget(launcher: Launcher) -> None:
    cluster = launcher.cluster
    name = launcher.json("run", document=DOCUMENT)["name"]
    assert "only a failed or cancelled job" in launcher.json("retry", name)[0]["result"]
    budgets = set()
    for message in (json.dumps({"exit_code": 2, "attempt": 4, "reason": "bad data"}), ""):
        eventually(lambda: cluster.find(PODS, f"{name}-master-0"))
        end_pod(cluster, f"{name}-master-0", 2, message)
        old = until_state(cluster, name, "Failed", eventually)
        assert "has failed" in launcher.json("suspend", name)[0]["result"]
        assert cluster.get(JOBS, name)["spec"]["runPolicy"]["suspend"] is False

        assert "made anew" in launcher.json("retry", name)[0]["result"]
        new = cluster.get(JOBS, name)
        assert new["metadata"]["uid"] != old["metadata"]["uid"]
        assert new["spec"] == old["spec"]
        config = cluster.get(CONFIG_MAPS, name)
        assert config["metadata"]["ownerReferences"][0]["uid"] == new["metadata"]["uid"]
        budgets.add(config["data"]["retried"])
        assert json.loads(config["data"]["config.json"]) == DOCUMENT
    assert len(budgets) == 2
    # The same configuration still means this job, and a retry is no difference.
    assert launcher.json("run", document=DOCUMENT)["outcome"] == "already there"
    assert launcher.json("diff", name, document=DOCUMENT) == []


def test_retry_without_the_right_to_delete_changes_nothing(
    control_plane: Cluster, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = launcher.cluster
    name = launcher.json("run", document=DOCUMENT)["name"]
    eventually(lambda: cluster.find(PODS, f"{name}-master-0"))
    end_pod(cluster, f"{name}-master-0", 2, json.dumps({"exit_code": 2, "attempt": 1, "reason": "bad data"}))
    until_state(cluster, name, "Failed", eventually)
    before = cluster.get(CONFIG_MAPS, name)
    base = (CHECKOUT / "manifests" / "base" / "launcher.yaml").read_text()
    (role,) = [each for each in yaml.safe_load_all(base) if each["kind"] == "Role"]
    monkeypatch.setenv("KUBECONFIG", str(control_plane.user(launcher.namespace, role["rules"])))
    assert "may not delete pytorchjobs.kubeflow.org" in launcher.json("retry", name, code=3)[0]["result"]
    assert cluster.get(CONFIG_MAPS, name) == before


def test_delete_removes_job_pods_and_config(launcher: Launcher) -> None:
    cluster = launcher.cluster
    for model in ("m2m100_418m", "opus_mt_en_fr"):
        launcher.json("run", "--model", model, document=BATCH)
    launcher.json("batch", "--models", "opus_mt_fr_en", "--name", "b", document=BATCH)
    assert launcher("delete", "m2m100_418m") == 2
    assert "add --yes where nobody can ask" in launcher.err
    assert launcher("delete") == 2
    assert len(names(launcher)) == 3
    assert "deleted" in launcher.json("delete", "m2m100_418m", "--yes")[0]["result"]
    assert len(names(launcher)) == 2
    launcher.json("delete", "--selector", "mtft/batch=b", "--yes")
    (left,) = names(launcher)
    assert left.startswith("opus-mt-en-fr-")
    launcher.json("delete", left, "--yes")
    eventually(lambda: not cluster.list(PODS, selector=labels.SELECTOR).items)
    assert cluster.list(CONFIG_MAPS, selector=labels.SELECTOR).items == []
    assert cluster.find(CONFIG_MAPS, "kube-root-ca.crt")


def test_delete_leaves_another_job_of_the_name_alone(launcher: Launcher) -> None:
    cluster = launcher.cluster
    objects = rendered(launcher)
    old = submit.submit(cluster, objects).job
    name = old["metadata"]["name"]
    cluster.delete(JOBS, name, only=old)
    eventually(lambda: cluster.find(JOBS, name) is None)
    new = submit.submit(cluster, objects).job
    with pytest.raises(Conflict, match="UID in the precondition"):
        actions.delete(cluster, old)
    assert cluster.get(JOBS, name)["metadata"]["uid"] == new["metadata"]["uid"]
    assert cluster.find(CONFIG_MAPS, name)


def test_delete_takes_the_network_policy_of_the_job(control_plane: Cluster, launcher: Launcher) -> None:
    cluster = launcher.cluster
    config, job = rendered(launcher)
    made = submit.submit(cluster, [config, job]).job
    policy = network_policy(job)
    control_plane.apply(policy)
    actions.delete(cluster, made)
    assert cluster.find(NETWORK_POLICIES, job["metadata"]["name"]) is None
    # One that only has the name stays: it was there before.
    made = submit.submit(cluster, [config, job]).job
    del policy["metadata"]["labels"]
    control_plane.apply(policy)
    actions.delete(cluster, made)
    assert cluster.find(NETWORK_POLICIES, job["metadata"]["name"])


def test_delete_needs_no_right_to_network_policies(
    control_plane: Cluster, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = launcher.json("run", document=DOCUMENT)["name"]
    base = (CHECKOUT / "manifests" / "base" / "users.yaml").read_text()
    (role,) = [each for each in yaml.safe_load_all(base) if each["kind"] == "Role"]
    monkeypatch.setenv("KUBECONFIG", str(control_plane.user(launcher.namespace, role["rules"])))
    assert "deleted" in launcher.json("delete", name, "--yes")[0]["result"]
    assert launcher.cluster.find(CONFIG_MAPS, name) is None


def test_validate_asks_the_server(launcher: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher("validate", "--server", document=DOCUMENT) == 0
    assert "accepted by" in launcher.err
    assert names(launcher) == []
    # A field that the operator does not know, as an older one may not know ours.
    monkeypatch.setattr(pytorchjob, "_run_policy", lambda _: {"cleanPodPolcy": "Running"})
    assert launcher("validate", "--server", document=DOCUMENT) == 3
    assert 'unknown field "spec.runPolicy.cleanPodPolcy"' in launcher.err
    with pytest.raises(Invalid):
        submit.dry_run(launcher.cluster, rendered(launcher))
