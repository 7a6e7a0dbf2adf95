"""Who reaches whom once ``chart.network_policy`` is on, worked out of the policies as the network plugin does."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml

from launcher.pytorchjob import render
from tests.chart.helm import Helm
from tests.chart.rendered import SMALL, Objects, Pod, of_kind, small_pods, trainer_pods, whole
from tests.conftest import CHECKOUT

MANIFESTS = CHECKOUT / "manifests"
VALUES: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
    "cluster": {"image": "example.org/mtft:1.0", "labels": {"team": "nlp"}},
}
CHART: dict[str, Any] = {"network_policy": True, "prefetch": {"enabled": True}}
WEEKLY = {"schedule": {"cron": "@weekly"}}
STRANGER: Pod = {"metadata": {"labels": {"app": "web"}}, "spec": {}}
DNS = [("UDP", 53), ("TCP", 53)]
TLS, API, WEB, GLOO = ("TCP", 443), ("TCP", 6443), ("TCP", 80), ("TCP", 41234)


def selects(selector: dict[str, Any], pod: Pod) -> bool:
    labels = pod["metadata"]["labels"]
    rules = selector.get("matchExpressions", [])
    assert all(rule["operator"] == "In" for rule in rules)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(rule["key"]) in rule["values"] for rule in rules
    )


def passes(rules: list[dict[str, Any]], side: str, peer: Pod | None, port: tuple[str, int]) -> bool:
    """Say whether one of the rules lets through ``port`` to or from a pod; None is what is outside the cluster."""
    for rule in rules:
        peers = rule.get(side)
        fits = not peers or (peer is not None and any(selects(each["podSelector"], peer) for each in peers))
        ports = [(each["protocol"], each["port"]) for each in rule.get("ports") or []]
        if fits and (not ports or port in ports):
            return True
    return False


def reaches(objects: Objects, pod: Pod, peer: Pod | None, port: tuple[str, int]) -> bool:
    """Say whether a pod gets through to another, or to what is outside, on a port."""
    for side, one, other, rules in (("Egress", pod, peer, "to"), ("Ingress", peer, pod, "from")):
        policies = [
            each["spec"]
            for each in of_kind(objects, "NetworkPolicy")
            if one is not None and selects(each["spec"]["podSelector"], one) and side in each["spec"]["policyTypes"]
        ]
        if policies and not any(passes(each.get(side.lower(), []), rules, other, port) for each in policies):
            return False
    return True


@pytest.mark.parametrize("rule", [{}, {"from": []}, {"from": None, "ports": []}])
def test_a_rule_that_names_nobody_lets_everybody_through(rule: dict[str, Any]) -> None:
    """The measure itself: an empty list is no refusal to Kubernetes."""
    assert passes([rule], "from", STRANGER, WEB) and passes([rule], "from", None, WEB)
    assert not passes([], "from", STRANGER, WEB)
    assert not passes([{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}], "from", STRANGER, WEB)


@pytest.fixture(scope="module")
def direct(helm: Helm) -> Objects:
    return whole(helm, {**VALUES, "chart": CHART})


@pytest.fixture(scope="module")
def scheduled(helm: Helm) -> Objects:
    return whole(helm, {**VALUES, "chart": {**CHART, **WEEKLY}})


@pytest.fixture(scope="module")
def launched() -> list[Pod]:
    """Give the pods of two jobs as the launcher of a schedule would make them, with the operator's labels."""
    jobs = [render(VALUES, model, batch="night")[1] for model in ("m2m100_418m", "opus_mt_en_fr")]
    return list(trainer_pods({("PyTorchJob", job["metadata"]["name"]): job for job in jobs}).values())


def assert_trainers_reach_only_what_they_need(objects: Objects, pods: list[Pod]) -> None:
    for pod in pods:
        assert all(reaches(objects, pod, None, port) for port in (*DNS, TLS))
        assert not any(reaches(objects, pod, peer, port) for peer in (None, STRANGER) for port in (API, WEB, GLOO))
        assert reaches(objects, pod, pod, GLOO), "gloo and NCCL choose their ports at random"
        assert not any(reaches(objects, STRANGER, pod, port) for port in (TLS, WEB, GLOO))
        assert not any(reaches(objects, small, pod, TLS) for small in small_pods(objects).values())


def test_a_job_is_apart_from_the_other_jobs(direct: Objects) -> None:
    pods = list(trainer_pods(direct).values())
    assert_trainers_reach_only_what_they_need(direct, pods)
    assert not any(reaches(direct, one, other, GLOO) for one, other in itertools.permutations(pods, 2))


def test_jobs_of_a_schedule_are_held_to_the_same(scheduled: Objects, launched: list[Pod]) -> None:
    assert not trainer_pods(scheduled)
    assert_trainers_reach_only_what_they_need(scheduled, launched)


def test_small_pods_reach_dns_api_and_tls_and_nothing_reaches_them(scheduled: Objects) -> None:
    pods = small_pods(scheduled)
    assert set(pods) == set(SMALL)
    for name, pod in pods.items():
        assert all(reaches(scheduled, pod, None, port) for port in (*DNS, TLS)), name
        assert reaches(scheduled, pod, None, API) is (name != "prefetch"), name
        assert not any(reaches(scheduled, pod, None, port) for port in (WEB, GLOO)), name
        assert not any(reaches(scheduled, STRANGER, pod, port) for port in (TLS, WEB, GLOO)), name


@pytest.mark.parametrize("create", [False, True])
def test_the_prefetch_is_held_to_it_before_the_release_is_there(helm: Helm, create: bool) -> None:
    """Of the first install only hooks exist by then, those of the same event and of a lower weight."""
    objects = whole(helm, {**VALUES, "chart": {**CHART, "claim": {"create": create}}})
    notes = objects["Job", "night-prefetch"]["metadata"]["annotations"]
    early = {
        key: each
        for key, each in objects.items()
        for hook in [each["metadata"].get("annotations", {})]
        if hook.get("helm.sh/hook") == notes["helm.sh/hook"]
        and int(hook["helm.sh/hook-weight"]) < int(notes["helm.sh/hook-weight"])
    }
    pod = small_pods(objects)["prefetch"]
    assert all(reaches(early, pod, None, port) for port in (*DNS, TLS))
    assert not any(reaches(early, pod, None, port) for port in (API, WEB, GLOO))
    assert not reaches(early, STRANGER, pod, TLS)
    (policy,) = of_kind(early, "NetworkPolicy")
    removed = set(policy["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(","))
    assert removed == {"before-hook-creation", "hook-succeeded", "hook-failed"}, "uninstall leaves no hook"


@pytest.fixture(scope="module")
def online() -> Objects:
    """Give the policies of manifests/online."""
    files = [MANIFESTS / "base" / "network.yaml", MANIFESTS / "components" / "egress" / "network.yaml"]
    policies = [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    return {(each["kind"], each["metadata"]["name"]): each for each in policies}


def test_a_namespace_set_up_online_lets_pods_reach_what_they_need(helm: Helm, online: Objects) -> None:
    """``kubectl apply -k manifests/online``; without the component, the model hub is out of reach."""
    released = whole(helm, {**VALUES, "chart": {"prefetch": {"enabled": True}, **WEEKLY, "jobs": True}})
    pods = {**small_pods(released), "trainer": next(iter(trainer_pods(released).values()))}
    base = {key: each for key, each in online.items() if key[1] != "mtft-egress"}
    assert len(base) == 2 and len(online) == 3
    for name, pod in pods.items():
        assert all(reaches(online, pod, None, port) for port in (*DNS, TLS)), name
        assert reaches(online, pod, None, API) is (name in ("launcher", "self-test")), name
        assert reaches(base, pod, None, TLS) is (name in ("launcher", "self-test")), name
        assert not any(reaches(online, pod, None, port) for port in (WEB, GLOO)), name
        assert not reaches(online, STRANGER, pod, TLS), name


def test_strangers_and_other_releases_are_left_alone(helm: Helm, scheduled: Objects, direct: Objects) -> None:
    other = whole(helm, {**VALUES, "chart": {**CHART, **WEEKLY, "jobs": True}}, release="day")
    bystanders = [STRANGER, *small_pods(other).values(), *trainer_pods(other).values()]
    for policy in (*of_kind(scheduled, "NetworkPolicy"), *of_kind(direct, "NetworkPolicy")):
        assert not any(selects(policy["spec"]["podSelector"], pod) for pod in bystanders)
