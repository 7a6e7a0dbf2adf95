"""What a queue writes into a job that it admits is none of the job's own.

No Kueue runs here: the templates are written as it writes them.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from launcher import actions
from launcher.cluster_errors import Denied, Invalid
from launcher.differences import differences
from launcher.pytorchjob import render
from launcher.resources import CONFIG_MAPS, Resource

MODEL = "opus_mt_en_fr"
FLAVOR = {"cloud.example.org/pool": "a100"}
TOLERATED = {"key": "spot", "operator": "Exists"}


class Held:
    """A cluster that has the ConfigMap of one job, and takes whatever is sent as it is."""

    def __init__(self, config: dict[str, Any] | None) -> None:
        self.config = config

    def find(self, resource: Resource, name: str, *, namespace: str) -> dict[str, Any] | None:
        assert resource is CONFIG_MAPS
        return self.config

    def patch(self, _: Resource, name: str, changes: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        assert options["dry_run"]
        return {"spec": changes[0]["value"]}


def objects(**cluster: Any) -> list[dict[str, Any]]:
    given = {"image": "example.org/mtft:1", "nodes": 2, **cluster}
    document = {"data": {"train": "/mnt/mtft/data/x.jsonl"}, "cluster": given}
    return render(document, MODEL, batch="night-1", namespace="team")


def admitted(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job as Kueue leaves it when it lets it run."""
    live = deepcopy(job)
    live["metadata"]["uid"] = "u"
    live["spec"]["runPolicy"]["suspend"] = False
    for name, role in live["spec"]["pytorchReplicaSpecs"].items():
        template = role["template"]
        template["metadata"].setdefault("labels", {})["kueue.x-k8s.io/podset"] = name.lower()
        template["metadata"].setdefault("annotations", {})["kueue.x-k8s.io/workload"] = "pytorchjob-a"
        for group in ("autoscaling.x-k8s.io", "cluster-autoscaler.kubernetes.io"):
            template["metadata"]["annotations"][f"{group}/consume-provisioning-request"] = "a"
            template["metadata"]["annotations"][f"{group}/provisioning-class-name"] = "b"
        template["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/topology"}]
        template["spec"]["nodeSelector"] = {**template["spec"].get("nodeSelector", {}), **FLAVOR}
        template["spec"]["tolerations"] = [*template["spec"].get("tolerations", []), TOLERATED]
    return live


@pytest.mark.parametrize(
    "own",
    [
        {},
        {
            "node_selector": {"disk": "fast"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "topology": {"required": "rack.example.org/name"},
        },
    ],
)
def test_it_is_neither_a_difference_nor_sent_again(own: dict[str, Any]) -> None:
    config, job = objects(queue="night", **own)
    live, held = admitted(job), Held(config)
    cluster: Any = held
    assert differences(cluster, [config, job], live) == []
    anew, note = actions._without_flavor(cluster, live)
    assert anew["spec"]["pytorchReplicaSpecs"] == job["spec"]["pytorchReplicaSpecs"]
    by_hand = deepcopy(live)
    meant = by_hand["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]
    meant["labels"]["cost-center"] = "7"
    meant["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] = "false"
    kept, _ = actions._without_flavor(cluster, by_hand)
    left = kept["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]
    assert (left["labels"]["cost-center"], left["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"]) == (
        "7",
        "false",
    )
    assert str(note).endswith(": cloud.example.org/pool, spot"), "what was given by hand is not lost without a word"
    live["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["nodeSelector"] = {"disk": "slow"}
    found = [each.path.rpartition(".")[2] for each in differences(cluster, [config, job], live)]
    assert found == (["disk"] if "node_selector" in own else [])


@pytest.mark.parametrize("refused", [Invalid("spec is immutable"), Denied("a policy denied the request")])
def test_what_may_not_be_changed_in_place_is_told_as_a_difference(
    refused: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise refused

    monkeypatch.setattr(Held, "patch", refuse)
    config, job = objects()
    cluster: Any = Held(config)
    found = differences(cluster, [config, objects(image="example.org/mtft:2")[1]], job)
    assert {each.path.rpartition(".")[2] for each in found} == {"image"}


def test_what_a_batch_asks_of_other_models_is_no_difference() -> None:
    def sent(**models: Any) -> list[dict[str, Any]]:
        given = {"image": "example.org/mtft:1"}
        document = {"data": {"train": "/mnt/mtft/data/x.jsonl"}, "cluster": given, "models": models}
        return render(document, MODEL, namespace="team")

    config, job = sent(**{MODEL: {"lora": {"r": 8}}, "m2m100_418m": {}})
    cluster: Any = Held(config)
    assert differences(cluster, sent(**{MODEL: {"lora": {"r": 8}}}), job) == []
    found = differences(cluster, sent(**{MODEL: {"lora": {"r": 9}}}), job)
    told = [(each.path, each.live, each.wanted) for each in found if each.path.startswith("config: ")]
    assert told == [("config: lora.r", 8, 9)]
    config["data"]["config.json"] = '{"models": [1]}'
    assert differences(cluster, sent(**{MODEL: {}}), job)


def test_nothing_is_taken_from_a_job_without_a_queue() -> None:
    config, job = objects()
    live = admitted(job)
    cluster: Any = Held(config)
    assert len(differences(cluster, [config, job], live)) == 18
    assert actions._without_flavor(cluster, live) == (live, None)


def test_where_the_configuration_cannot_be_read_the_nodes_stay() -> None:
    live = admitted(objects(queue="night")[1])
    for held in (None, *({"data": {"config.json": text}} for text in ("{", "[]", "null", '{"later": 1}'))):
        cluster: Any = Held(held)
        anew, note = actions._without_flavor(cluster, live)
        template = anew["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
        assert template["spec"]["nodeSelector"] == FLAVOR and note is None
        assert not any("kueue" in key for key in template["metadata"]["labels"])
        assert "schedulingGates" not in template["spec"]
