"""What can be done to jobs that were sent to a real API server and operator."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from launcher import actions, labels, pytorchjob, submit
from launcher.cluster_errors import Conflict, Forbidden, Invalid, WebhookSilent
from launcher.resources import CONFIG_MAPS, JOBS, NETWORK_POLICIES, PODS
from launcher.surroundings import network_policy
from mtft.runs import RETRIED_FILE
from tests.cluster.cluster import Cluster
from tests.cluster.launching import (
    DOCUMENT,
    Launcher,
    changed,
    end_pod,
    names,
    rendered,
    until_state,
    without_defaults,
)
from tests.cluster.playing import cap, eventually
from tests.conftest import CHECKOUT

BATCH = {key: value for key, value in DOCUMENT.items() if key != "model"}


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
    assert "budget of restarts and time begins anew" in launcher.json("resume", name)[0]["result"]
    eventually(lambda: cluster.find(PODS, pod))
    budgets.add(retried())
    assert launcher.json("resume", name)[0]["result"] == "is not suspended"

    assert "cancelled" in launcher.json("cancel", name)[0]["result"]
    eventually(lambda: cluster.find(PODS, pod) is None)
    assert cluster.get(JOBS, name)["metadata"]["annotations"][labels.CANCELLED]
    assert "budget of restarts and time begins anew" in launcher.json("retry", name)[0]["result"]
    eventually(lambda: cluster.find(PODS, pod))
    assert len(budgets | {retried()}) == 3
    assert labels.CANCELLED not in (cluster.get(JOBS, name)["metadata"].get("annotations") or {})


def test_job_in_a_queue_that_nobody_keeps_is_resumed_by_hand(launcher: Launcher) -> None:
    name = launcher.json("run", document=changed(queue="team"))["name"]
    assert launcher("suspend", name) == 0
    [state] = launcher.json("status", name)
    assert state["state"] == "Queued" and "Kueue is not installed; resume it by hand" in state["reason"]
    assert launcher("resume", name) == 0
    eventually(lambda: launcher.json("status", name)[0]["state"] != "Queued")  # the operator takes its word back


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


def test_a_job_that_was_made_anew_meanwhile_is_left_alone(launcher: Launcher) -> None:
    launcher.json("run", "--job", "mine", document=DOCUMENT)
    job = launcher.cluster.get(JOBS, "mine")
    job["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    with pytest.raises(Conflict, match="another job has the name by now"):
        actions.suspend(launcher.cluster, job)
    assert launcher.json("status", "mine")[0]["state"] != "Suspended"


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


def test_retry_that_cannot_make_the_job_anew_leaves_it_there(control_plane: Cluster, launcher: Launcher) -> None:
    cluster = launcher.cluster
    name = launcher.json("run", document=DOCUMENT)["name"]
    eventually(lambda: cluster.find(PODS, f"{name}-master-0"))
    end_pod(cluster, f"{name}-master-0", 2, "")
    before = until_state(cluster, name, "Failed", eventually)
    silent = {
        "name": f"{launcher.namespace}.example.org",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [
            {
                "apiGroups": ["kubeflow.org"],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pytorchjobs"],
            }
        ],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": launcher.namespace}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
    control_plane.apply({**kind, "metadata": {"name": launcher.namespace}, "webhooks": [silent]})
    try:
        eventually(lambda: _refuses(cluster, before, WebhookSilent))
        assert "webhook" in launcher.json("retry", name, code=3)[0]["result"]
    finally:
        control_plane.kubectl("delete", "validatingwebhookconfiguration", launcher.namespace)
    assert cluster.get(JOBS, name)["metadata"]["uid"] == before["metadata"]["uid"]

    for policy in _policy(launcher.namespace):
        control_plane.apply(policy)
    try:
        eventually(lambda: _refuses(cluster, before, Forbidden))
        assert "no jobs at night" in launcher.json("retry", name, code=3)[0]["result"]
    finally:
        for each in ("validatingadmissionpolicy", "validatingadmissionpolicybinding"):
            control_plane.kubectl("delete", each, launcher.namespace)
    assert cluster.get(JOBS, name)["metadata"]["uid"] == before["metadata"]["uid"]
    eventually(lambda: not _refuses(cluster, before, Forbidden))

    cap(control_plane, launcher.namespace, {"count/pytorchjobs.kubeflow.org": "1"})
    cluster.delete(CONFIG_MAPS, name)
    assert "with the same configuration" in launcher.json("retry", name, code=3)[0]["result"]
    assert launcher.json("run", document=DOCUMENT)["outcome"] == "already there"
    eventually(lambda: "made anew" in launcher.json("retry", name)[0]["result"])
    assert cluster.get(JOBS, name)["metadata"]["uid"] != before["metadata"]["uid"]


def test_retry_that_is_refused_once_the_job_is_deleted_tells_the_way_back(
    control_plane: Cluster, launcher: Launcher
) -> None:
    cluster = launcher.cluster
    name = launcher.json("run", document=DOCUMENT)["name"]
    eventually(lambda: cluster.find(PODS, f"{name}-master-0"))
    end_pod(cluster, f"{name}-master-0", 2, "")
    until_state(cluster, name, "Failed", eventually)
    cap(control_plane, launcher.namespace, {"count/pytorchjobs.kubeflow.org": "0"})
    said = launcher.json("retry", name, code=3)[0]["result"]
    assert "exceeded quota" in said and f"{name} is deleted, or about to be" in said
    control_plane.kubectl("delete", "resourcequota", "--all", "-n", launcher.namespace)
    assert launcher.json("run", document=DOCUMENT)["outcome"] == "created"


def _refuses(cluster: Any, job: dict[str, Any], kind: type[Exception]) -> bool:
    """Tell whether another job like this one would be refused so by now."""
    meta = {"name": "probe", "namespace": cluster.namespace}
    try:
        cluster.create({**job, "apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": meta}, dry_run=True)
    except kind:
        return True
    return False


def _policy(namespace: str) -> list[dict[str, Any]]:
    """Return a rule of the cluster, and where it holds, that lets no job be made in a namespace."""
    base = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": namespace}}
    made = {"apiGroups": ["kubeflow.org"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["*"]}
    refusal = {"expression": "false", "message": "no jobs at night", "reason": "Forbidden"}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    return [
        {
            **base,
            "kind": "ValidatingAdmissionPolicy",
            "spec": {"matchConstraints": {"resourceRules": [made]}, "validations": [refusal]},
        },
        {
            **base,
            "kind": "ValidatingAdmissionPolicyBinding",
            "spec": {"policyName": namespace, "validationActions": ["Deny"], "matchResources": here},
        },
    ]


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
