"""What the doctor says of quota, limits, Pod Security, claim, secrets and queue."""

from __future__ import annotations

from typing import Any

import pytest

from launcher import doctor_namespace as doctor


def template(**spec: Any) -> dict[str, Any]:
    limits = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "2"}
    return {"spec": {"containers": [{"name": "pytorch", "resources": {"limits": limits, "requests": limits}}], **spec}}


def quota(hard: dict[str, str], used: dict[str, str] | None = None) -> dict[str, Any]:
    return {"metadata": {"name": "team", "namespace": "mt"}, "status": {"hard": hard, "used": used or {}}}


REFUSED = "the job asks for 1 more and is refused"
UNTOLD = "the operator makes {} more for the job's pods, and without them nobody is told that the job runs or has ended"


@pytest.mark.parametrize(
    ("quotas", "count", "verdict", "words"),
    [
        ([], 1, "ok", "has none"),
        ([quota({"requests.nvidia.com/gpu": "4"})], 2, "ok", "fits"),
        ([quota({"requests.nvidia.com/gpu": "4"})], 3, "fail", "alone asks for 6"),
        ([quota({"requests.nvidia.com/gpu": "4"}, {"requests.nvidia.com/gpu": "3"})], 1, "warn", "3 of 4 used"),
        ([quota({"memory": "64Gi"}, {"memory": "60Gi"})], 1, "warn", "asks for 16Gi more"),
        ([quota({"pods": "2"}, {"pods": "2"})], 1, "warn", "pods 2 of 2 used"),
        ([quota({"count/pytorchjobs.kubeflow.org": "0"})], 1, "fail", "count/pytorchjobs"),
        ([quota({"count/pytorchjobs.kubeflow.org": "1"}, {"count/pytorchjobs.kubeflow.org": "1"})], 1, "fail", REFUSED),
        ([quota({"configmaps": "2"}, {"configmaps": "1"})], 4, "ok", "fits"),
        ([quota({"configmaps": "2"}, {"configmaps": "2"})], 1, "fail", REFUSED),
        ([quota({"count/configmaps": "1"}, {"count/configmaps": "3"})], 1, "fail", REFUSED),
        ([quota({"services": "4"}, {"services": "2"})], 2, "ok", "fits"),
        ([quota({"services": "4"}, {"services": "3"})], 2, "fail", UNTOLD.format(2)),
        ([quota({"count/services": "0"})], 1, "fail", UNTOLD.format(1)),
        ([quota({"persistentvolumeclaims": "1"}, {"persistentvolumeclaims": "1"})], 1, "ok", "fits"),
        ([quota({"pods": "1"}, {"pods": "1"}), quota({"configmaps": "1"}, {"configmaps": "1"})], 1, "fail", REFUSED),
    ],
)
def test_quota(quotas: list[Any], count: int, verdict: str, words: str) -> None:
    finding = doctor.check_quota(quotas, template(), count)
    assert finding.verdict == verdict and words in finding.message


@pytest.mark.parametrize(
    ("hard", "used", "count", "there", "verdict", "words"),
    [
        ({"pods": "1"}, {"pods": "1"}, 1, 1, "ok", "the job's pods are within it"),
        ({"pods": "2"}, {"pods": "1"}, 2, 1, "ok", "fits"),
        ({"pods": "2"}, {"pods": "2"}, 2, 1, "warn", "asks for 1 more"),
        ({"pods": "1"}, {"pods": "1"}, 2, 1, "fail", "alone asks for 2"),
        ({"count/pytorchjobs.kubeflow.org": "1"}, {"count/pytorchjobs.kubeflow.org": "1"}, 1, 0, "ok", "fits"),
        ({"configmaps": "1"}, {"configmaps": "2"}, 1, 0, "ok", "fits"),
        ({"services": "2"}, {"services": "1"}, 2, 1, "ok", "fits"),
        ({"services": "2"}, {"services": "2"}, 2, 1, "warn", "missing pods ask for up to 1 more"),
        ({"services": "0"}, {}, 2, 1, "fail", UNTOLD.format(1)),
    ],
)
def test_the_pods_of_a_job_are_not_counted_against_it(
    hard: dict[str, str], used: dict[str, str], count: int, there: int, verdict: str, words: str
) -> None:
    finding = doctor.check_quota([quota(hard, used)], template(), count, there=there)
    assert finding.verdict == verdict and words in finding.message


def test_what_finished_jobs_keep_is_freed_by_deleting_them() -> None:
    used_up = doctor.check_quota([quota({"services": "1"}, {"services": "1"})], template(), 1)
    assert "mtft-launch delete NAME -n mt" in (used_up.fix or "")
    assert doctor.check_quota([quota({"services": "0"})], template(), 1).fix == "ask for a larger quota"


@pytest.mark.parametrize(
    ("rule", "verdict", "words"),
    [
        ({"type": "Container", "max": {"memory": "16Gi"}}, "ok", "within"),
        ({"type": "Container", "max": {"memory": "8Gi"}}, "fail", "at most 8Gi memory; a pod asks for 16Gi"),
        ({"type": "Pod", "min": {"cpu": "8"}}, "fail", "at least 8 cpu; a pod asks for 4"),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}, "ok", "within"),
    ],
)
def test_limit_range(rule: dict[str, Any], verdict: str, words: str) -> None:
    finding = doctor.check_limits([{"metadata": {"name": "l"}, "spec": {"limits": [rule]}}], template())
    assert finding.verdict == verdict and words in finding.message


@pytest.mark.parametrize(
    ("rule", "pods", "given", "verdict", "words"),
    [
        ({"min": {"cpu": "200m", "memory": "128Mi"}}, 2, False, "fail", "at least 200m cpu; the training operator's"),
        ({"min": {"cpu": "200m"}}, 1, False, "ok", "within"),
        ({"min": {"cpu": "200m"}}, 2, None, "warn", "asks for 50m"),
        ({"min": {"cpu": "200m"}}, 2, True, "warn", "asks for 50m; its template may ask for other amounts by now"),
        ({"min": {"memory": "32Mi"}, "maxLimitRequestRatio": {"memory": "1"}}, 2, True, "ok", "within"),
        ({"min": {"cpu": "50m"}, "maxLimitRequestRatio": {"cpu": "2"}}, 2, False, "ok", "within"),
        ({"maxLimitRequestRatio": {"cpu": "1"}}, 2, False, "fail", "cpu limits of at most 1 times the requests"),
    ],
)
def test_a_limit_range_is_held_against_the_operators_container_too(
    rule: dict[str, Any], pods: int, given: bool | None, verdict: str, words: str
) -> None:
    ranges = [{"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", **rule}]}}]
    finding = doctor.check_limits(ranges, template(), pods, given)
    assert finding.verdict == verdict and words in finding.message
    assert finding.fix is None or "init-container.yaml with resources that fit, or set" in finding.fix


def test_everything_that_is_beyond_a_limit_is_named() -> None:
    rules = [{"type": "Container", "max": {"cpu": "2", "memory": "8Gi"}}, {"type": "Pod", "min": {"cpu": "8"}}]
    finding = doctor.check_limits([{"metadata": {"name": "l"}, "spec": {"limits": rules}}], template())
    for words in ("at most 2 cpu", "at most 8Gi memory; a pod asks for 16Gi", "at least 8 cpu"):
        assert words in finding.message
    assert "lower cluster.cpus" in (finding.fix or "") and "raise cluster.cpus" in (finding.fix or "")


@pytest.mark.parametrize(
    ("level", "pods", "operator_template", "verdict"),
    [
        (None, 2, False, "ok"),
        ("baseline", 2, False, "ok"),
        ("restricted", 1, False, "ok"),
        ("restricted", 2, True, "ok"),
        ("restricted", 2, None, "warn"),
        ("restricted", 2, False, "fail"),
    ],
)
def test_pod_security(level: str | None, pods: int, operator_template: bool | None, verdict: str) -> None:
    namespace = {"metadata": {"name": "team", "labels": {doctor.ENFORCE: level} if level else {}}}
    finding = doctor.check_pod_security(namespace, pods, operator_template)
    assert finding.verdict == verdict
    assert verdict == "ok" or "init-container.yaml" in (finding.fix or "")


def test_the_operators_template_is_seen_in_its_arguments() -> None:
    def deployment(*arguments: str) -> dict[str, Any]:
        return {"spec": {"template": {"spec": {"containers": [{"command": ["/manager"], "args": list(arguments)}]}}}}

    assert doctor.check_operator_template(None) is None
    assert doctor.check_operator_template(deployment()) is False
    assert doctor.check_operator_template(deployment("--pytorch-init-container-template-file=/etc/x.yaml")) is True


def claim(phase: str, *modes: str, **meta: str) -> dict[str, Any]:
    status = {"phase": phase, "capacity": {"storage": "100Gi"}}
    return {"metadata": {"name": "mtft", **meta}, "spec": {"accessModes": list(modes)}, "status": status}


@pytest.mark.parametrize(
    ("found", "pods", "verdict", "words"),
    [
        (None, 1, "fail", "there is no claim mtft"),
        (claim("Bound", "ReadWriteMany"), 4, "ok", "capacity 100Gi"),
        (claim("Bound", "ReadWriteOnce"), 1, "warn", "one node"),
        (claim("Bound", "ReadWriteOnce"), 2, "fail", "one node"),
        (claim("Pending", "ReadWriteMany"), 1, "warn", "not bound yet: Pending"),
        (claim("Lost", "ReadWriteMany"), 1, "fail", "lost"),
        (claim("Bound", "ReadWriteMany", deletionTimestamp="2030-01-02T03:04:05Z"), 1, "fail", "is being deleted"),
    ],
)
def test_claim(found: dict[str, Any] | None, pods: int, verdict: str, words: str) -> None:
    finding = doctor.check_claim("mtft", found, pods, "team")
    assert finding.verdict == verdict and words in finding.message
    if words == "there is no claim mtft":
        assert finding.fix is not None and "--set cluster.claim=mtft -n team | kubectl apply -f -" in finding.fix


def test_a_claim_that_goes_keeps_its_data_where_it_has_a_volume() -> None:
    going = claim("Bound", "ReadWriteMany", deletionTimestamp="2030-01-02T03:04:05Z")
    assert doctor.check_claim("mtft", going, 1, "team").fix == "once it is gone, make the claim again"
    going["spec"]["volumeName"] = "v-1"
    fix = doctor.check_claim("mtft", going, 1, "team").fix or ""
    assert fix.index('kubectl patch pv v-1 -p \'{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}\'') < fix.index(
        "spec.volumeName: v-1"
    )
    assert fix.endswith("""kubectl patch pv v-1 -p '{"spec":{"claimRef":{"uid":null,"resourceVersion":null}}}'""")


def secret_env(name: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    ref = {"name": name, "key": key, "optional": optional}
    return {"name": key.upper(), "valueFrom": {"secretKeyRef": ref}}


def test_secrets() -> None:
    env = [
        {"name": "PLAIN", "value": "x"},
        secret_env("hub", "token"),
        secret_env("wandb", "key", optional=True),
        secret_env("store", "user"),
        secret_env("store", "password"),
        secret_env("hidden", "key"),
    ]
    asked = {
        "spec": {
            "containers": [{"env": env}],
            "imagePullSecrets": [{"name": name} for name in ("registry", "pulls", "gone")],
        }
    }

    def read(name: str) -> dict[str, Any] | None:
        if name == "hidden":
            raise PermissionError
        known: dict[str, dict[str, Any]] = {"store": {"data": {"user": "eA=="}}, "registry": {"type": "Opaque"}}
        return known.get(name) or ({"type": "kubernetes.io/dockerconfigjson"} if name == "pulls" else None)

    found = {each.layer: each for each in doctor.check_secrets(asked, read, "team")}
    assert {layer: each.verdict for layer, each in found.items()} == {
        "secret hub": "fail",
        "secret wandb": "warn",
        "secret store": "fail",
        "secret hidden": "skip",
        "secret registry": "fail",
        "secret pulls": "ok",
        "secret gone": "fail",
    }
    make = "kubectl create secret docker-registry gone --docker-server="
    assert (found["secret gone"].fix or "").startswith(make)
    assert found["secret registry"].message == "is of type Opaque, which pulls no image"
    assert found["secret hub"].fix == "kubectl create secret generic hub --from-literal=token=... -n team"
    assert found["secret store"].fix == "kubectl edit secret store -n team, or change cluster.secrets"
    assert found["secret store"].message == "has no key password"
    assert [each.message for each in doctor.check_secrets(template(), read, "team")] == ["none is needed"]


@pytest.mark.parametrize(
    ("queue", "local", "installed", "verdict", "words"),
    [
        (None, None, False, "ok", "none is asked for"),
        ("night", None, False, "fail", "Kueue is not installed"),
        ("night", None, True, "fail", "no LocalQueue night"),
        ("night", {"status": {"pendingWorkloads": 3}}, True, "ok", "0 admitted, 3 waiting"),
        (
            "night",
            {"status": {"conditions": [{"type": "Active", "status": "False", "message": "Can't submit"}]}},
            True,
            "fail",
            "Can't submit",
        ),
    ],
)
def test_queue(queue: str | None, local: dict[str, Any] | None, installed: bool, verdict: str, words: str) -> None:
    finding = doctor.check_queue(queue, local, "team", installed=installed)
    assert finding.verdict == verdict and words in finding.message
    assert ("kubectl" in (finding.fix or "")) == (" -n team" in (finding.fix or ""))


ANYWHERE: dict[str, Any] = {"namespaceSelector": {}}
AFFINE = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [ANYWHERE]}}


@pytest.mark.parametrize(
    ("scopes", "selector", "spec", "verdict"),
    [
        ([], None, {}, "fail"),
        (["NotBestEffort"], None, {}, "fail"),
        (["BestEffort"], None, {}, "ok"),
        (["NotTerminating"], None, {}, "fail"),
        (["NotTerminating"], None, {"activeDeadlineSeconds": 9}, "ok"),
        (["Terminating"], None, {}, "ok"),
        (["Terminating"], None, {"activeDeadlineSeconds": 9}, "fail"),
        (["PriorityClass"], None, {}, "ok"),
        (["PriorityClass"], None, {"priorityClassName": "high"}, "fail"),
        ([], ("In", ["high"]), {}, "ok"),
        ([], ("In", ["high"]), {"priorityClassName": "high"}, "fail"),
        ([], ("NotIn", ["high"]), {"priorityClassName": "high"}, "ok"),
        ([], ("NotIn", ["high"]), {"priorityClassName": "low"}, "fail"),
        ([], ("DoesNotExist", []), {}, "fail"),
        (["CrossNamespacePodAffinity"], None, {}, "ok"),
        (["CrossNamespacePodAffinity"], None, {"affinity": AFFINE}, "fail"),
        (["Unheard"], None, {}, "fail"),
    ],
)
def test_a_quota_with_scopes_counts_the_pods_they_mean(
    scopes: list[str], selector: tuple[str, list[str]] | None, spec: dict[str, Any], verdict: str
) -> None:
    asked = template()
    asked["spec"] |= spec
    rules = [{"scopeName": "PriorityClass", "operator": selector[0], "values": selector[1]}] if selector else []
    given = {**quota({"pods": "0"}), "spec": {"scopes": scopes, "scopeSelector": {"matchExpressions": rules}}}
    assert doctor.check_quota([given], asked, 1).verdict == verdict
