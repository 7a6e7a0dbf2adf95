"""What the chart refuses, it refuses with the path; and the launcher refuses the same documents."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from launcher.pytorchjob import render
from mtft.errors import ConfigError
from mtft.legacy import OLD_NAMES
from mtft.models import MODELS
from mtft.paths import overlay
from mtft.settings import models_of
from tests.chart.helm import Helm, HelmFailed

GOOD: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl.gz"},
    "cluster": {"image": "example.org/mtft:1.0"},
    "models": {"m2m100_418m": {}},
}
TOKEN = "hf_" + "a" * 34

# What is wrong -> what is written over GOOD, and what the refusal says.
BOTH: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no data": ({"data": None}, ("  data.train: is required",)),
    "no data for one": (
        {"data": None, "models": {"m2m100_418m": {"data": {"train": "a"}}, "opus_mt_en_fr": None}},
        ("models.opus_mt_en_fr.data.train: is required",),
    ),
    "no image": ({"cluster": {"image": None}}, ("cluster.image: is required", "--set cluster.image=")),
    "no dev rows": ({"data": {"dev_fraction": 0}}, ("data: no dev rows",)),
    "two sizes": (
        {"train": {"batch_size": 8, "tokens_per_batch": 512}},
        ("train.tokens_per_batch exclude", "8 and 512"),
    ),
    "no size": ({"train": {"batch_size": None}}, ("train: give either train.batch_size",)),
    "root": ({"storage": {"root": "data"}}, ("storage.root: cannot be mounted", "got data", "/mnt/mtft")),
    "root of two slashes": ({"storage": {"root": "//mnt/mtft"}}, ("storage.root: cannot be mounted",)),
    "root with a colon": ({"storage": {"root": "/mnt/a:b"}}, ("storage.root: cannot be mounted", "got /mnt/a:b")),
    "root above ours": ({"storage": {"root": "/etc"}}, ("storage.root: overlaps /etc/mtft", "got /etc;")),
    "root above all": ({"storage": {"root": "/"}}, ("storage.root: overlaps /tmp", "storage.root: overlaps /dev/shm")),
    "root of the image": ({"storage": {"root": "/opt"}}, ("storage.root: overlaps /opt/mtft", "got /opt")),
    "root in the image": ({"storage": {"root": "/usr/local/lib/x"}}, ("storage.root: overlaps /usr", "got /usr/")),
    "root taken": ({"storage": {"root": "/tmp/x"}}, ("storage.root: overlaps /tmp", "got /tmp/x")),
    "two topologies": ({"cluster": {"topology": {"required": "a", "preferred": "b"}}}, ("cluster.topology",)),
    "variable twice": (
        {"cluster": {"env": {"A": "1"}, "secrets": {"A": {"name": "n", "key": "k"}}}},
        ("cluster: A: in env and in secrets",),
    ),
    "operator's variable": (
        {"cluster": {"env": {"RANK": "0"}}},
        ("cluster.env.RANK: is set by the training operator",),
    ),
    "operator's variable by reference": (
        {"cluster": {"secrets": {"RANK": {"name": "n", "key": "k"}}}},
        ("cluster.secrets.RANK: is set by the training operator",),
    ),
    "what a pod is told of itself": (
        {"cluster": {"env": {"MTFT_RUN": "0123456789"}}},
        ("cluster.env.MTFT_RUN: is set by the training operator or mtft",),
    ),
    "our label": ({"cluster": {"labels": {"mtft/model": "x"}}}, ("cluster.labels.mtft/model: is set by mtft",)),
    "Helm's annotation": (
        {"cluster": {"annotations": {"helm.sh/resource-policy": "keep"}}},
        ("cluster.annotations.helm.sh/resource-policy: is set by",),
    ),
    "Helm's owner": (
        {"cluster": {"annotations": {"meta.helm.sh/release-name": "x"}}},
        ("cluster.annotations.meta.helm.sh/release-name: is set by",),
    ),
    "a Job's label": (
        {"cluster": {"labels": {"batch.kubernetes.io/job-name": "x", "controller-uid": "y"}}},
        ("cluster.labels.batch.kubernetes.io/job-name: is set by", "cluster.labels.controller-uid: is set by"),
    ),
    "another model's key": (
        {"models": {"m2m100_418m": {"model": {"key": "opus_mt_en_fr"}}}},
        ("models.m2m100_418m.model.key: is another model; got opus_mt_en_fr; allowed: m2m100_418m",),
    ),
    "another model": (
        {"models": {"m2m100_418m": {"model": "opus_mt_en_fr"}}},
        ("models.m2m100_418m.model.key: is another model; got opus_mt_en_fr; allowed: m2m100_418m",),
    ),
    "toleration": (
        {"cluster": {"tolerations": [{"value": "x"}]}},
        ("cluster.tolerations[0]: operator Equal needs a key",),
    ),
    "toleration's value": (
        {"cluster": {"tolerations": [{"operator": "Exists", "value": "x"}]}},
        ("cluster.tolerations[0]: operator Exists takes no value",),
    ),
    "toleration's seconds": (
        {"cluster": {"tolerations": [{"key": "a", "tolerationSeconds": 5}]}},
        ("cluster.tolerations[0]: tolerationSeconds needs effect NoExecute",),
    ),
    "secret by value": ({"cluster": {"secrets": {"HF_TOKEN": TOKEN}}}, ("/cluster/secrets/HF_TOKEN", "want object")),
    "secret in env": ({"cluster": {"env": {"HF_TOKEN": "x"}}}, ("cluster.env.HF_TOKEN", "cluster.secrets.<VARIABLE>=")),
    "secret in the env of one": (
        {"models": {"m2m100_418m": {"cluster": {"env": {"HF_TOKEN": "x"}}}}},
        ("models.m2m100_418m.cluster.env.HF_TOKEN: a secret is given by reference only",),
    ),
    "secret in a list": ({"data": {"test": ["a", f"s3://u:{TOKEN}@h"]}}, ("data.test[1]: a secret is given",)),
    "secret for one": (
        {"models": {"m2m100_418m": {"cluster": {"annotations": {"note": TOKEN}}}}},
        ("models.m2m100_418m.cluster.annotations.note: a secret is given",),
    ),
    "half a reference": ({"cluster": {"secrets": {"A": {"key": "k"}}}}, ("cluster.secrets.A.name: is required",)),
    "half a reference of one": (
        {"models": {"m2m100_418m": {"cluster": {"secrets": {"A": {"name": "n"}}}}}},
        ("cluster.secrets.A.key: is required",),
    ),
    "models left empty": ({"models": None}, ("models: is not a mapping; allowed: {key: {enabled:",)),
    "no such field": ({"cluster": {"nodez": 2}}, ("/cluster", "'nodez' not allowed")),
    "no such part": ({"trian": {}}, ("'trian' not allowed",)),
    "no such field of one": (
        {"models": {"m2m100_418m": {"lora": {"rank": 8}}}},
        ("/models/m2m100_418m/lora", "'rank'"),
    ),
    "no such model": (
        {"models": {"opus; rm -rf /": {}}},
        ("at '/models': additional properties 'opus; rm -rf /' not allowed",),
    ),
    "template for a model": ({"models": {"{{ .Values }}": {}}}, ("/models", "'{{ .Values }}' not allowed")),
    "no switch": ({"models": {"m2m100_418m": {"enabled": "yes"}}}, ("/models/m2m100_418m/enabled", "want boolean")),
    "no choice": ({"method": "qlora-full"}, ("/method", "'lora', 'qlora', 'full'")),
    "text for a number": ({"train": {"epochs": "2"}}, ("/train/epochs", "got string, want number")),
    "too small": ({"cluster": {"nodes": 0}}, ("/cluster/nodes", "got 0, want 1")),
    "ends too early": ({"cluster": {"grace_seconds": 60}}, ("/cluster/grace_seconds", "got 60, want 135")),
    "32 bits": ({"cluster": {"run_as_user": 2**31}}, ("/cluster/run_as_user", "maximum: got")),
    "group of 32 bits": ({"cluster": {"fs_group": 2**31}}, ("/cluster/fs_group", "maximum: got")),
    "patience of 32 bits": ({"cluster": {"gang": {"timeout_seconds": 2**31}}}, ("/gang/timeout_seconds",)),
    "no shared memory": ({"cluster": {"shared_memory_gib": 1e-9}}, ("/cluster/shared_memory_gib", "want 0.0625")),
    "no such disk": ({"cluster": {"ephemeral_storage_gib": 1e9}}, ("/cluster/ephemeral_storage_gib", "want 65,536")),
    "NUL in a path": ({"storage": {"root": "/mnt/a\0b"}}, ("/storage/root",)),
    "line break in a path": ({"data": {"train": ["/mnt/mtft/a\nb"]}}, ("/data/train",)),
    "line break in a guard set's path": (
        {"gate": {"guard_sets": {"a": "/mnt/mtft/a\nb"}}},
        ("/gate/guard_sets/a",),
    ),
    "no image name": (
        {"cluster": {"image": "Not An Image"}},
        ('cluster.image: has the wrong form; got "Not An Image"',),
    ),
    "image without a tag": (
        {"cluster": {"image": "example.org/mtft"}},
        ("cluster.image: has the wrong form", "with tag or digest"),
    ),
}


def document(change: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(GOOD)
    overlay(result, change)
    return result


def assert_refused(helm: Helm, values: dict[str, Any], *said: str, release: str = "weekly") -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.template(release, values=values)
    text = str(refused.value)
    assert [each for each in said if each not in text] == [], text
    assert TOKEN not in text


def test_the_document_that_is_changed_is_good(helm: Helm) -> None:
    assert helm.template("weekly", values=GOOD) == helm.template("weekly", "--set", "global=null", values=GOOD)


@pytest.mark.parametrize("case", BOTH)
def test_what_the_launcher_refuses_the_chart_refuses(helm: Helm, case: str) -> None:
    change, said = BOTH[case]
    wrong = document(change)
    assert_refused(helm, wrong, *said)
    with pytest.raises(ConfigError):
        for model in models_of(wrong):
            render(wrong, model)


def test_a_model_that_is_none_is_told_at_its_place_alone(helm: Helm) -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.template("weekly", values=document({"models": {"opus": {}}}))
    assert re.findall(r"at '(.*?)'", str(refused.value)) == ["/models"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "opus_mt_en_fr", "models": {"m2m100_418m": {"method": "full"}}}, "models: stands beside model"),
        ({"model": {"path": "/models/mine"}, "models": {}}, "model.key: is required"),
        ({"model": "opus"}, "'opus_mt_en_fr'"),
        ({"models": {key: {"enabled": False} for key in MODELS}}, "models: has no enabled model"),
        ({"lora_r": 8}, "lora_r: is an old name; write lora.r"),
        ({"models": {"m2m100_418m": {"use_qlora": True}}, "method": "full"}, "models.m2m100_418m.use_qlora: is an old"),
        ({"models": {"opus_mt_en_fr": {"cluster": {"namespace": "b"}}}}, "one namespace, not to b, default"),
        ({"chart": {"claim": {"create": True, "access_mode": "ReadWriteOnce"}}}, "chart.claim.access_mode: got"),
        ({"chart": {"claim": {"access_mode": "ReadWriteOnce"}}}, "chart.claim.access_mode: got ReadWriteOnce"),
        (
            {"chart": {"claim": {"access_mode": "ReadWriteOnce"}, "schedule": {"cron": "@weekly"}}},
            "chart.claim.access_mode: got ReadWriteOnce",
        ),
        (
            {
                "model": "opus_mt_en_fr",
                "models": {},
                "chart": {
                    "claim": {"create": True, "access_mode": "ReadWriteOnce"},
                    "schedule": {"cron": "@weekly", "wait": True},
                },
            },
            "chart.schedule.wait: the waiting launcher would hold the volume",
        ),
        ({"chart": {"claims": {}}}, "'claims' not allowed"),
        # The pod of `helm test` mounts the shared root.
        (
            {"storage": {"root": "x"}, "models": {key: {"storage": {"root": f"/mnt/{key}"}} for key in MODELS}},
            "the values have 1 problem:\n  storage.root: cannot be mounted in a pod; got x;",
        ),
    ],
)
def test_what_only_the_chart_refuses(helm: Helm, change: dict[str, Any], said: str) -> None:
    assert_refused(helm, document(change), said)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data": {"train": "gone/train.jsonl.gz"}}, "data.train"),
        ({"data": {"train": "~/train.jsonl.gz", "sha256": "0" * 64}}, "data.train"),
        ({"data": {"dev": ["/mnt/mtft/data/dev.jsonl", "./gone.jsonl"]}}, "data.dev"),
        ({"models": {"opus_mt_en_fr": {"data": {"test": "gone"}}}}, "models.opus_mt_en_fr.data.test"),
        ({"gate": {"guard_sets": {"a": "/mnt/mtft/a", "b": ["gone"]}}}, "gate.guard_sets.b"),
        (
            {"data": {"train": "s3://corpus/a", "dev": "/opt/in/the/image", "test": ["/mnt/mtft/a", "/mnt/mtft/b"]}},
            None,
        ),
    ],
)
def test_paths_no_pod_knows_are_refused_by_both(
    helm: Helm,
    change: dict[str, Any],
    field: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    values = document(change)
    Path("given.json").write_text(json.dumps(values))
    code = main(["batch", "--config", "given.json", "--all", "--dry-run"])
    said = capsys.readouterr().err
    if field is None:
        assert code == 0 and helm.template("weekly", values=values)
        return
    assert code == 2 and f"{field.removeprefix('models.opus_mt_en_fr.')}: " in said
    assert "a path of this machine, but the pods see only /mnt/mtft" in said
    assert_refused(helm, values, f"{field}: ", "a path of this machine, but the pods see only /mnt/mtft")


def test_no_share_is_needed_where_dev_rows_are_given(helm: Helm) -> None:
    values = document({"data": {"dev": "/mnt/mtft/data/dev.jsonl", "dev_fraction": 0}})
    assert helm.template("weekly", values=values) and render(values, "m2m100_418m")


ALONE = {key: {"enabled": False} for key in MODELS if key != "m2m100_418m"}
HALF = {"cluster": {"secrets": {"A": {"name": "n"}}}}


@pytest.mark.parametrize(
    ("shared", "own", "said"),
    [
        ({}, {"data": {"dev": "dev.jsonl"}}, "models.m2m100_418m.data.dev: dev.jsonl is a path"),
        ({}, {"data": {"test": ["dev.jsonl"]}}, "models.m2m100_418m.data.test: dev.jsonl is a path"),
        ({}, {"data": {"dev_fraction": 0}}, "models.m2m100_418m.data: no dev rows"),
        ({}, {"gate": {"guard_sets": {"a": "x"}}}, "models.m2m100_418m.gate.guard_sets.a: x is a path"),
        ({}, {"train": {"batch_size": 8, "tokens_per_batch": 512}}, "models.m2m100_418m.train: train.batch_size and"),
        ({"train": {"batch_size": 8}}, {"train": {"tokens_per_batch": 512}}, "models.m2m100_418m.train: train.batch"),
        ({"train": {"tokens_per_batch": 512}}, {"train": {"batch_size": 8}}, "models.m2m100_418m.train: train.batch"),
        (
            {"data": {**GOOD["data"], "dev": "/a", "dev_fraction": 0}},
            {"data": {"dev": None}},
            "models.m2m100_418m.data: no dev rows",
        ),
        (
            {"cluster": {"env": {"A": "x"}}},
            {"cluster": {"secrets": {"A": {"name": "n", "key": "k"}}}},
            "models.m2m100_418m.cluster: A: in",
        ),
        ({}, {"storage": {"root": "x"}}, "models.m2m100_418m.storage.root: cannot be mounted"),
        ({}, {"cluster": {"tolerations": [{"value": "x"}]}}, "models.m2m100_418m.cluster.tolerations[0]: operator"),
        ({}, {"cluster": {"labels": {"mtft/a": "x"}}}, "models.m2m100_418m.cluster.labels.mtft/a: is set by"),
        ({}, {"cluster": {"labels": {"helm.sh/a": "x"}}}, "models.m2m100_418m.cluster.labels.helm.sh/a: is set by"),
        ({}, {"cluster": {"env": {"RANK": "0"}}}, "models.m2m100_418m.cluster.env.RANK: is set by"),
        (HALF, {"cluster": {"env": {"A": "x"}, "secrets": {"A": {"key": "k"}}}}, "models.m2m100_418m.cluster: A: in"),
        ({}, HALF, "models.m2m100_418m.cluster.secrets.A.key: is required"),
        # What the shared part says is told there, and what nobody says, too.
        ({"data": {"dev": "dev.jsonl"}}, {"data": {"test": "/a"}}, "data.dev: dev.jsonl is a path"),
        (
            {"train": {"batch_size": 8, "tokens_per_batch": 512}},
            {"train": {"epochs": 1}},
            "train: train.batch_size and train.tokens_per_batch",
        ),
        (HALF, {"cluster": {"secrets": {"B": {"name": "n", "key": "k"}}}}, "cluster.secrets.A.key: is required"),
        ({"data": None}, {"data": {"test": "/a"}}, "data.train: is required"),
    ],
)
def test_a_value_is_told_where_it_stands(helm: Helm, shared: dict[str, Any], own: dict[str, Any], said: str) -> None:
    """Also where one model alone is enabled."""
    values = document({**shared, "models": {**ALONE, "m2m100_418m": own}})
    assert_refused(helm, values, f"the values have 1 problem:\n  {said}")


def test_what_all_but_one_take_from_the_shared_part_is_told_once(helm: Helm) -> None:
    own = {"m2m100_418m": {"storage": {"root": "/mnt/own"}}}
    assert_refused(helm, document({"storage": {"root": "x"}, "models": own}), "1 problem:\n  storage.root: cannot be")


def test_models_left_empty_beside_a_model_are_not_missed(helm: Helm) -> None:
    one = document({"model": "opus_mt_en_fr", "models": None})
    assert helm.template("weekly", values=one) == helm.template("weekly", values={**one, "models": {}})


def test_one_pod_may_have_a_claim_of_its_own_node(helm: Helm) -> None:
    claim = {"claim": {"create": True, "access_mode": "ReadWriteOnce"}}
    shared = {"data": GOOD["data"], "cluster": GOOD["cluster"]}
    one = {"model": "opus_mt_en_fr", "chart": claim}
    assert helm.template("weekly", values={**shared, **one})
    assert_refused(helm, document({**one, "cluster": {"nodes": 2}}), "the enabled models have 2 on claim mtft")
    elsewhere = {key: {"cluster": {"claim": "other", "nodes": 2}} for key in MODELS}
    assert helm.template("weekly", values={**shared, "models": {**elsewhere, "opus_mt_en_fr": {}}, "chart": claim})


def test_a_model_left_empty_within_its_own_part_is_itself(helm: Helm) -> None:
    batch = {key: {"enabled": key == "m2m100_418m"} for key in MODELS}
    values = document({"models": batch | {"m2m100_418m": {"model": None, "lora": {"r": 8}}}})
    made = [each for each in helm.template("weekly", values=values) if each["kind"] == "PyTorchJob"]
    assert made[0]["metadata"]["name"] == render(values, "m2m100_418m", batch="weekly")[1]["metadata"]["name"]


def test_every_old_name_is_told_the_new_one(helm: Helm) -> None:
    assert_refused(helm, GOOD | dict.fromkeys(OLD_NAMES, 1), *(f"{old}: is an old" for old in OLD_NAMES))


def test_all_problems_are_told_at_once(helm: Helm) -> None:
    wrong = document({"data": None, "cluster": {"image": None}, "storage": {"root": "x"}})
    assert_refused(helm, wrong, "the values have 3 problems", "data.train", "cluster.image", "storage.root")


@pytest.mark.parametrize("name", ["a.b", "A", "x" * 54, "x" * 300, "$(id)", "{{ 1 }}"])
def test_a_release_name_that_names_no_batch_is_refused(helm: Helm, name: str) -> None:
    assert_refused(helm, GOOD, "release name", release=name)


def test_a_file_with_tabs_is_refused(helm: Helm, tmp_path: pytest.TempPathFactory) -> None:
    file = tmp_path / "tabs.yaml"  # type: ignore[operator]
    file.write_text("data:\n\ttrain: x\n")
    with pytest.raises(HelmFailed, match=r"tabs.yaml.*line 2"):
        helm.template("weekly", "-f", file)
