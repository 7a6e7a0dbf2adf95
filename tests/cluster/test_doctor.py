"""The doctor on a real API server: what is right, and each thing that is wrong."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher.cli import main
from launcher.cluster import connect
from launcher.resources import Resource
from mtft import exit_codes
from tests.cluster.cluster import Cluster, KubectlFailed
from tests.cluster.playing import cap, eventually, submit
from tests.conftest import CHECKOUT

Doctor = Callable[..., dict[str, dict[str, Any]]]
CONFIG = {
    "model": "opus_mt_en_fr",
    "data": {"train": "/mnt/mtft/data/train.jsonl"},
    "cluster": {"image": "example.org/mtft:1.0", "gpus_per_node": 0, "cpus": 1, "memory_gib": 1},
}


@pytest.fixture(autouse=True)
def kubeconfig(control_plane: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.kubeconfig))


@pytest.fixture(scope="module")
def namespace(control_plane: Cluster) -> str:
    return control_plane.namespace("doctor")


@pytest.fixture
def doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run the verb with settings of the cluster over the usual ones; give layer -> finding."""

    def run(namespace: str, *arguments: str, **cluster: Any) -> dict[str, dict[str, Any]]:
        path = tmp_path / "mtft.json"
        path.write_text(json.dumps({**CONFIG, "cluster": {**CONFIG["cluster"], **cluster}}))  # type: ignore[dict-item]
        code = main(["doctor", *arguments, "-n", namespace, "--config", str(path), "-o", "json"])
        found = {each["layer"]: each for each in json.loads(capsys.readouterr().out)}
        failed = any(each["verdict"] == "fail" for each in found.values())
        assert code == (exit_codes.FAILED if failed else exit_codes.DONE)
        return found

    return run


def test_nothing_is_wrong(namespace: str, doctor: Doctor) -> None:
    found = doctor(namespace)
    assert not [each for each in found.values() if each["verdict"] in ("fail", "warn") and each["layer"] != "operator"]
    # The operator of the test cluster runs outside of it.
    assert found["operator"]["verdict"] == "warn"
    assert "is accepted" in found["webhook"]["message"] and "is accepted" in found["pod names"]["message"]
    assert {"cluster", "permissions", "quota", "limit range", "queue", "volume claim", "secrets", "GPUs", "DNS"} <= set(
        found
    )


def test_a_namespace_that_is_not_there(doctor: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    found = doctor("nowhere")
    assert set(found) == {"cluster", "namespace"} and found["namespace"]["verdict"] == "fail"
    assert "kubectl create namespace nowhere" in found["namespace"]["fix"]
    assert set(doctor("nowhere", "--operator")) == {"cluster", "operator"}
    for verb in ("status", "list"):
        assert main([verb, "-n", "nowhere"]) == exit_codes.DONE
        out, err = capsys.readouterr()
        assert out == "(nothing)\n" and "note: there is no namespace nowhere; " in err


def test_an_empty_namespace_is_no_missing_one(
    control_plane: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace = control_plane.namespace("empty")
    rules = [{"apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"], "verbs": ["list"]}]
    for kubeconfig in (control_plane.kubeconfig, control_plane.user(namespace, rules)):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        assert main(["list", "-n", namespace]) == exit_codes.DONE
        assert capsys.readouterr() == ("(nothing)\n", "")
    assert main(["list", "-n", "nowhere"]) == exit_codes.CLUSTER_REFUSED


def test_any_account_may_ask_whether_jobs_are_known(
    control_plane: Cluster, namespace: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.user(namespace, [])))
    found = doctor(namespace, "--operator")
    assert set(found) == {"cluster", "operator"}
    assert "PyTorchJob is known" in found["operator"]["message"]
    cluster = connect(None, namespace)
    unknown = (Resource("Nothing", "nothings", "kubeflow.org"), Resource("PyTorchJob", "pytorchjobs", "example.org"))
    assert not any(cluster.knows(kind) for kind in unknown)


@pytest.mark.usefixtures("idle_nodes")
def test_a_gpu_pool_with_a_taint(namespace: str, doctor: Doctor) -> None:
    found = doctor(namespace, gpus_per_node=8)
    assert found["taints"]["verdict"] == "fail"
    assert found["taints"]["fix"] == (
        'cluster.tolerations: [{key: pool, operator: Equal, value: "gpu", effect: NoSchedule}]'
    )
    tolerated = [{"key": "pool", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}]
    assert doctor(namespace, gpus_per_node=8, tolerations=tolerated)["taints"]["verdict"] == "ok"
    assert doctor(namespace, gpus_per_node=16)["GPUs"]["verdict"] == "fail"
    assert doctor(namespace, node_selector={"pool": "none"})["node pool"]["verdict"] == "fail"


def test_quota_limits_claim_secrets_and_queue(control_plane: Cluster, doctor: Doctor) -> None:
    namespace = control_plane.namespace("tight")
    here = {"namespace": namespace}
    control_plane.apply(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "narrow", **here},
            "spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}}]},
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub", **here}, "stringData": {"user": "x"}},
    )
    cap(control_plane, namespace, {"limits.memory": "2Gi"})
    found = doctor(
        namespace,
        memory_gib=4,
        cpus=3,
        claim="elsewhere",
        queue="night",
        secrets={"HF_TOKEN": {"name": "hub", "key": "token"}, "S3": {"name": "store", "key": "key"}},
    )
    for layer, words in {
        "quota": "alone asks for 4Gi",
        "limit range": "at most 2 cpu",
        "volume claim": "there is no claim elsewhere",
        "queue": "Kueue is not installed",
        "secret hub": "has no key token",
        "secret store": "is missing",
    }.items():
        assert found[layer]["verdict"] == "fail" and words in found[layer]["message"], found[layer]


def test_a_limit_range_that_refuses_the_operators_own_container(control_plane: Cluster, doctor: Doctor) -> None:
    namespace = control_plane.namespace("least")
    limits = [{"type": "Container", "min": {"cpu": "200m"}}]
    meta = {"name": "wide", "namespace": namespace}
    control_plane.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": {"limits": limits}})
    assert doctor(namespace)["limit range"]["verdict"] == "ok"
    found = doctor(namespace, nodes=2)["limit range"]
    assert found["verdict"] == "warn" and "(init-pytorch) asks for 50m" in found["message"]
    job = submit(control_plane, namespace, nodes=2)
    eventually(lambda: doctor(namespace, job.name)["pods made"]["verdict"] == "fail")
    found = doctor(namespace, job.name)["pods made"]
    assert "minimum cpu usage per Container is 200m, but request is 50m" in found["message"]
    assert found["fix"] == "see the layer limit range"


def test_what_is_on_a_claim_that_goes_is_kept_by_what_the_doctor_says(control_plane: Cluster, doctor: Doctor) -> None:
    namespace = control_plane.namespace("going")
    job = submit(control_plane, namespace)
    job.await_pod()
    claim = control_plane.get("pvc", "mtft", "-n", namespace)
    volume = claim["spec"]["volumeName"]
    before = control_plane.get("pv", volume)["spec"]["persistentVolumeReclaimPolicy"]
    control_plane.kubectl("delete", "pvc", "mtft", "-n", namespace, "--wait=false")
    found = doctor(namespace, job.name)["volume claim"]
    keep, words, free = re.split(r" and give the volume free for it: |; (?=once)", found["fix"])
    assert found["verdict"] == "fail" and f"spec.volumeName: {volume} and the volume's storage class" in words
    control_plane.kubectl(*shlex.split(keep.removeprefix("keep the data: kubectl ")))
    control_plane.kubectl("delete", "pytorchjob", job.name, "-n", namespace)
    eventually(lambda: control_plane.get("pv", volume)["status"]["phase"] == "Released")
    again = {key: claim["metadata"][key] for key in ("name", "namespace")}
    control_plane.apply({**claim, "metadata": again, "status": None})
    control_plane.kubectl(*shlex.split(free.removeprefix("kubectl ")))
    eventually(lambda: control_plane.get("pvc", "mtft", "-n", namespace)["status"]["phase"] == "Bound")
    assert doctor(namespace)["volume claim"]["verdict"] == "ok"
    control_plane.kubectl("patch", "pv", volume, "-p", json.dumps({"spec": {"persistentVolumeReclaimPolicy": before}}))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"service_account": "nobody"}, 'serviceaccount "nobody" not found'),
        ({"priority_class": "urgent"}, "no PriorityClass with name urgent was found"),
    ],
)
def test_what_a_pod_names_must_be_there(namespace: str, doctor: Doctor, given: dict[str, str], words: str) -> None:
    found = doctor(namespace, **given)["pod names"]
    assert found["verdict"] == "fail" and words in found["message"] and "cluster.*" in found["fix"]


def test_policies_and_webhooks_for_pods(control_plane: Cluster, doctor: Doctor) -> None:
    namespace = control_plane.namespace("policy")
    base = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": namespace}}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    owned = {"expression": "has(object.metadata.ownerReferences)", "message": "no bare pods"}
    policy = {"matchConstraints": {"resourceRules": [pods]}, "validations": [owned]}
    binding = {"policyName": namespace, "validationActions": ["Deny"], "matchResources": here}
    control_plane.apply(
        {**base, "kind": "ValidatingAdmissionPolicy", "spec": policy},
        {**base, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    )

    def found(verdict: str) -> dict[str, Any] | None:
        pod = doctor(namespace)["pod names"]
        return pod if pod["verdict"] == verdict else None

    try:
        assert "no bare pods" in eventually(lambda: found("warn"))["message"]
    finally:
        control_plane.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", namespace)
    webhook = {
        "name": "gone.example.org",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:9/mutate"},
        "rules": [pods],
        **here,
    }
    control_plane.apply({**base, "kind": "MutatingWebhookConfiguration", "webhooks": [webhook]})
    try:
        assert "gone.example.org" in eventually(lambda: found("fail"))["message"]
    finally:
        control_plane.kubectl("delete", "mutatingwebhookconfiguration", namespace)


@pytest.mark.usefixtures("idle_nodes")
def test_several_pods_in_a_restricted_namespace(control_plane: Cluster, doctor: Doctor) -> None:
    namespace = control_plane.namespace("strict", restricted=True)
    assert doctor(namespace)["pod security"]["verdict"] == "ok"
    several = doctor(namespace, nodes=2)["pod security"]
    assert several["verdict"] == "warn" and "init-pytorch" in several["message"]
    job = submit(control_plane, namespace, nodes=2)

    def refused() -> dict[str, Any] | None:
        found = doctor(namespace, job.name)["pods made"]
        return found if found["verdict"] == "fail" else None

    found = eventually(refused)
    assert "PodSecurity" in found["message"] and "init-container.yaml" in found["fix"]


def test_missing_rights_are_named(
    control_plane: Cluster, namespace: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{"apiGroups": ["kubeflow.org"], "resources": ["pytorchjobs"], "verbs": ["get", "list"]}]
    monkeypatch.setenv("KUBECONFIG", str(control_plane.user(namespace, rules)))
    found = doctor(namespace)
    assert found["permissions"]["verdict"] == "fail"
    assert "watch, create, patch pytorchjobs.kubeflow.org" in found["permissions"]["message"]
    assert "get pods/log" in found["permissions"]["message"]
    # What may not be looked at is no fault of the cluster.
    for layer in ("quota", "nodes", "webhook", "pod security", "volume claim"):
        assert found[layer]["verdict"] == "skip", found[layer]


def test_a_launcher_in_the_cluster_needs_no_right_that_is_for_people(
    control_plane: Cluster, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = yaml.safe_load_all((CHECKOUT / "manifests" / "base" / "launcher.yaml").read_text())
    (role,) = [each for each in documents if each["kind"] == "Role"]
    namespace = control_plane.namespace("in-cluster")
    monkeypatch.setenv("KUBECONFIG", str(control_plane.user(namespace, role["rules"])))
    found = doctor(namespace)
    assert not [each for each in found.values() if each["verdict"] == "fail"]
    assert found["permissions"]["verdict"] == "ok"
    more = found["more permissions"]
    assert more["verdict"] == "warn" and "delete pytorchjobs.kubeflow.org (for retry, delete)" in more["message"]


@pytest.mark.usefixtures("idle_nodes")
def test_why_a_job_waits_and_why_it_failed(control_plane: Cluster, namespace: str, doctor: Doctor) -> None:
    waiting = submit(control_plane, namespace, gpus_per_node=8)

    def diagnosis() -> dict[str, Any]:
        return doctor(namespace, waiting.name)["job"]

    eventually(lambda: "not tolerated" in diagnosis()["message"])
    assert diagnosis()["verdict"] == "warn"
    failed = submit(control_plane, namespace)
    failed.await_pod()
    failed.ends(3, {"exit_code": 3, "reason": "training diverged: loss is nan at step 7"})
    eventually(lambda: failed.has("Failed"))
    found = doctor(namespace, failed.name)["job"]
    assert found["verdict"] == "fail" and "loss is nan at step 7" in found["message"]
    assert "mtft-launch delete" in found["fix"]
    assert "train.learning_rate" in found["fix"]


def test_a_job_that_is_there_is_not_counted_against_itself(
    control_plane: Cluster, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.pod_reasons._LOOKED_SECONDS", 0.0)
    namespace = control_plane.namespace("one-pod")
    cap(control_plane, namespace, {"pods": "1", "count/pytorchjobs.kubeflow.org": "1"})
    job = submit(control_plane, namespace, scheduler="volcano")
    eventually(lambda: "no scheduler `volcano`" in doctor(namespace, job.name)["job"]["message"])
    found = doctor(namespace, job.name)
    assert found["job"]["verdict"] == "fail" and "install the scheduler" in found["job"]["fix"]
    assert found["quota"] == {"layer": "quota", "verdict": "ok", "message": "the job's pods are within it", "fix": None}
    another = doctor(namespace)["quota"]
    assert another["verdict"] == "fail" and "1 of 1 used; the job asks for 1 more and is refused" in another["message"]
    with pytest.raises(KubectlFailed, match="exceeded quota"):
        submit(control_plane, namespace)


@pytest.mark.parametrize("name", ["configmaps", "count/configmaps"])
def test_a_namespace_has_a_config_map_of_its_own(control_plane: Cluster, doctor: Doctor, name: str) -> None:
    namespace = control_plane.namespace("one-config")
    cap(control_plane, namespace, {name: "1"})
    eventually(lambda: doctor(namespace)["quota"]["verdict"] == "fail")
    assert doctor(namespace)["quota"]["message"] == f"q: {name} 1 of 1 used; the job asks for 1 more and is refused"


@pytest.mark.usefixtures("idle_nodes")
def test_a_job_whose_service_is_refused(
    control_plane: Cluster, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.pod_reasons._TOLD_SECONDS", 0.0)
    namespace = control_plane.namespace("no-services")
    cap(control_plane, namespace, {"services": "0"})
    found = doctor(namespace)["quota"]
    assert found["verdict"] == "fail" and "nobody is told that the job runs or has ended" in found["message"]
    job = submit(control_plane, namespace)
    job.await_pod()
    job.runs()
    eventually(lambda: "exceeded quota: q" in doctor(namespace, job.name)["job"]["message"])
    found = doctor(namespace, job.name)["job"]
    assert found["verdict"] == "fail" and "cannot make the job's Service" in found["message"]
    assert f"kubectl describe quota q -n {namespace}" in found["fix"]
    assert doctor(namespace, job.name)["pods made"]["verdict"] == "fail"
    cap(control_plane, namespace, {"services": "1"})
    eventually(lambda: job.has("Running"))
    # A pod that is only said to run has no log.
    found = doctor(namespace, job.name)["job"]
    assert found["verdict"] == "warn" and "its log cannot be read" in found["message"]


def test_who_may_not_list_nodes_is_told_who_sees_why_a_job_waits(
    control_plane: Cluster, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = control_plane.namespace("no-nodes")
    job = submit(control_plane, namespace, gpus_per_node=64)
    documents = yaml.safe_load_all((CHECKOUT / "manifests" / "base" / "launcher.yaml").read_text())
    (role,) = [each for each in documents if each["kind"] == "Role"]
    monkeypatch.setenv("KUBECONFIG", str(control_plane.user(namespace, role["rules"])))
    eventually(lambda: "no node fits" in doctor(namespace, job.name)["job"]["message"])
    found = doctor(namespace, job.name)
    assert found["nodes"]["verdict"] == "skip" and found["job"]["verdict"] == "warn"
    assert "you may not list nodes" in found["job"]["fix"] and "layers above" not in found["job"]["fix"]


def test_an_image_that_cannot_be_pulled(control_plane: Cluster, namespace: str, doctor: Doctor) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "pull", "namespace": namespace},
        "involvedObject": {"kind": "Pod", "name": "x-master-0", "namespace": namespace},
        "reason": "Failed",
        "type": "Warning",
        "message": 'Failed to pull image "example.org/broken:2": not found',
    }
    control_plane.apply(event)
    found = doctor(namespace, image="example.org/broken:2")["image"]
    assert found["verdict"] == "fail" and "not found" in found["message"]
    assert doctor(namespace)["image"]["verdict"] == "skip"


def test_without_a_configuration_or_a_cluster(
    namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "-n", namespace]) in (exit_codes.DONE, exit_codes.FAILED)
    shown = capsys.readouterr().out
    assert shown.startswith("ok    cluster") and "skip  image" in shown and "-> cluster.image: " in shown
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert main(["doctor"]) == exit_codes.CLUSTER_REFUSED
