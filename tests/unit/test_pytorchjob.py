"""The objects of a job: what they depend on, what a cluster would refuse, and that no text breaks out of them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher import labels
from launcher.manifests import as_json, as_yaml
from launcher.pytorchjob import render
from launcher.surroundings import claim, network_policy
from mtft.errors import ConfigError, InputError
from mtft.models import MODELS
from mtft.naming import config_hash
from mtft.paths import look_up
from mtft.presets import PRESETS
from mtft.settings import _card_values
from mtft.stopping import KILL_AFTER_SECONDS, STOP_SECONDS
from tests.goldens import cases, objects

MODEL = "opus_mt_en_fr"
GIVEN: dict[str, Any] = {"model": MODEL, "data": {"train": "/mnt/mtft/data/a.jsonl"}}


def document(**cluster: Any) -> dict[str, Any]:
    return GIVEN | {"cluster": {"image": "example.org/mtft:1.0", **cluster}}


def job(**cluster: Any) -> dict[str, Any]:
    return render(document(**cluster), MODEL)[1]


def pod(**cluster: Any) -> dict[str, Any]:
    template: dict[str, Any] = job(**cluster)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    return template


def container(**cluster: Any) -> dict[str, Any]:
    found: dict[str, Any] = pod(**cluster)["spec"]["containers"][0]
    return found


def problems(**cluster: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        job(**cluster)
    return str(refused.value)


class TestWhatItDependsOn:
    def test_no_card_and_no_preset_places_a_job(self) -> None:
        for values in [*PRESETS.values(), *map(_card_values, MODELS.values())]:
            assert values.keys().isdisjoint({"cluster", "storage"})

    @pytest.mark.parametrize("preset", PRESETS)
    def test_a_preset_changes_nothing_but_the_document(self, preset: str) -> None:
        chosen = document() | {"preset": preset}
        plain, other = render(document(), MODEL, name="same"), render(chosen, MODEL, name="same")
        assert json.loads(other[0]["data"]["config.json"]) == chosen
        run = config_hash(chosen, MODEL)
        assert as_json([other[1]]) == as_json([plain[1]]).replace(config_hash(document(), MODEL), run)

    def test_a_models_own_part_goes_over_the_shared_one(self) -> None:
        batch = {name: value for name, value in document(node_selector={"a": "1"}).items() if name != "model"}
        own = {"cluster": {"node_selector": {"b": "2"}, "cpus": 8}, "storage": {"root": "/data"}}
        manifests = render(batch | {"models": {MODEL: own, "m2m100_418m": None}}, MODEL)
        spec = manifests[1]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
        assert spec["nodeSelector"] == {"a": "1", "b": "2"}
        assert spec["containers"][0]["resources"]["limits"]["cpu"] == "8"
        assert {"name": "storage", "mountPath": "/data"} in spec["containers"][0]["volumeMounts"]

    def test_the_pod_mounts_the_document_as_given(self) -> None:
        given_ = document(cpus=2.0) | {"train": {"epochs": None}, "chart": {"schedule": "@daily"}, "grad_accum": 4}
        del given_["train"]
        mounted = render(given_, MODEL)[0]["data"]["config.json"]
        assert json.loads(mounted) == {name: value for name, value in given_.items() if name != "chart"}

    def test_old_names_place_a_job_too(self) -> None:
        manifest = render(document() | {"output_directory": "/elsewhere"}, MODEL)[1]
        spec = manifest["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
        assert {"name": "storage", "mountPath": "/elsewhere"} in spec["containers"][0]["volumeMounts"]

    def test_rendering_changes_nothing_and_shares_nothing(self) -> None:
        given_ = document(nodes=2, labels={"team": "a"})
        before = json.dumps(given_)
        manifests = render(given_, MODEL)
        manifests[1]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"].clear()
        manifests[0]["metadata"]["labels"].clear()
        assert json.dumps(given_) == before
        assert manifests[1]["metadata"]["labels"]["team"] == "a"
        assert manifests[1]["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["metadata"]["labels"]["team"] == "a"


class TestNames:
    def test_of_job_batch_and_rerun(self) -> None:
        hashes = [config_hash(document(), MODEL), config_hash(document(), MODEL, nonce="1")]
        alone, batch, again = (render(document(), MODEL, **more) for more in ({}, {"batch": "w"}, {"nonce": "1"}))
        assert [manifest["metadata"]["name"] for manifest in alone] == [f"opus-mt-en-fr-{hashes[0]}"] * 2
        assert batch[1]["metadata"]["name"] == f"w-opus-mt-en-fr-{hashes[0]}"
        assert again[1]["metadata"]["name"] == f"opus-mt-en-fr-{hashes[1]}"

    def test_labels_are_on_every_object_and_on_the_pods(self) -> None:
        mounted, sent = render(document(nodes=2, labels={"team": "a"}), MODEL, batch="weekly")
        replicas = sent["spec"]["pytorchReplicaSpecs"]
        for each in (mounted, sent, replicas["Master"]["template"], replicas["Worker"]["template"]):
            own = each["metadata"]["labels"]
            assert own[labels.PART_OF] == "mtft"
            assert (own[labels.MODEL], own[labels.BATCH], own[labels.INSTANCE]) == (MODEL, "weekly", "weekly")
            assert (own[labels.RUN], own["team"]) == (config_hash(document(), MODEL), "a")

    @pytest.mark.parametrize("name", ["Weekly", "a" * 54, "a-", "a_b", "a\nb", "2026.11"])
    def test_a_batch_of_no_name(self, name: str) -> None:
        with pytest.raises(InputError, match="is not a batch name"):
            render(document(), MODEL, batch=name)

    @pytest.mark.parametrize("name", ["Job", "1job", "job-", "a" * 51, "job\n"])
    def test_a_job_of_no_name(self, name: str) -> None:
        with pytest.raises(InputError, match="is not a job name"):
            render(document(), MODEL, name=name)

    def test_namespace(self) -> None:
        assert "namespace" not in job()["metadata"]
        assert job(namespace="team")["metadata"]["namespace"] == "team"
        for manifest in render(document(namespace="team"), MODEL, namespace="other"):
            assert manifest["metadata"]["namespace"] == "other"


class TestForm:
    def test_one_pod_is_a_master_alone(self) -> None:
        assert job()["spec"]["pytorchReplicaSpecs"].keys() == {"Master"}

    def test_more_pods_are_master_and_workers_of_one_template(self) -> None:
        replicas = job(nodes=3, gpus_per_node=4)["spec"]["pytorchReplicaSpecs"]
        assert {name: one["replicas"] for name, one in replicas.items()} == {"Master": 1, "Worker": 2}
        assert replicas["Master"]["template"] == replicas["Worker"]["template"]
        assert {one["restartPolicy"] for one in replicas.values()} == {"ExitCode"}

    @pytest.mark.parametrize(
        ("cluster", "processes"),
        [({}, "1"), ({"gpus_per_node": 4}, "4"), ({"gpus_per_node": 0}, "1"), ({"processes_per_node": 3}, "3")],
    )
    def test_processes_are_a_number(self, cluster: dict[str, Any], processes: str) -> None:
        assert job(**cluster)["spec"]["nprocPerNode"] == processes

    def test_budget_deadline_and_suspension_are_not_the_operators(self) -> None:
        spec = job(ttl_minutes=5, max_restarts=7, deadline_minutes=9, queue="q")["spec"]
        assert spec["runPolicy"] == {"cleanPodPolicy": "Running", "ttlSecondsAfterFinished": 300}

    def test_no_gpu_is_asked_for_without_one(self) -> None:
        resources = container(gpus_per_node=0, cpus=0.5, memory_gib=2)["resources"]
        assert resources["requests"] == resources["limits"] == {"cpu": "0.5", "memory": "2Gi"}

    def test_queue_labels_are_on_the_job_alone(self) -> None:
        sent = job(queue="mt", queue_priority="low")
        assert sent["metadata"]["labels"][labels.QUEUE] == "mt"
        assert sent["metadata"]["labels"][labels.QUEUE_PRIORITY] == "low"
        assert labels.QUEUE not in pod(queue="mt")["metadata"]["labels"]

    def test_the_digest_of_the_image_is_told(self) -> None:
        digest = "sha256:" + hashlib.sha256(b"an image").hexdigest()
        entries = {entry["name"]: entry for entry in container(image=f"example.org/mtft@{digest}")["env"]}
        assert entries["MTFT_IMAGE_DIGEST"]["value"] == digest


class TestSecurity:
    """The Pod Security Standard "restricted", as its page lists it; the API server is asked in tests/cluster."""

    def test_restricted(self) -> None:
        template = pod()["spec"]
        inside = template["containers"][0]["securityContext"]
        assert inside["allowPrivilegeEscalation"] is False
        assert inside["capabilities"] == {"drop": ["ALL"]}
        for context in (template["securityContext"], inside):
            assert context["runAsNonRoot"] is True
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        allowed = {"name", "configMap", "emptyDir", "persistentVolumeClaim"}
        assert all(volume.keys() <= allowed for volume in template["volumes"])
        assert template["automountServiceAccountToken"] is False

    def test_everything_written_has_a_place(self) -> None:
        writable = {mount["mountPath"] for mount in container()["volumeMounts"] if not mount.get("readOnly")}
        assert container()["securityContext"]["readOnlyRootFilesystem"] is True
        folders = {
            entry["name"]: entry["value"] for entry in container()["env"] if entry.get("value", "").startswith("/")
        }
        assert len(folders) >= 7
        for folder in folders.values():
            assert any(folder == place or folder.startswith(place + "/") for place in writable), folder

    def test_user_and_group(self) -> None:
        assert "runAsUser" not in pod()["spec"]["securityContext"]
        security = pod(run_as_user=1234, fs_group=None)["spec"]["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"]) == (1234, 0)
        assert "fsGroup" not in security

    def test_secrets_are_references_and_trackers_optional(self) -> None:
        refs = {"HF_TOKEN": {"name": "hub", "key": "t"}, "WANDB_API_KEY": {"name": "w", "key": "k"}}
        entries = {entry["name"]: entry for entry in container(secrets=refs)["env"]}
        assert entries["HF_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "t", "optional": False}
        assert entries["WANDB_API_KEY"]["valueFrom"]["secretKeyRef"]["optional"] is True

    @pytest.mark.parametrize(
        "env",
        [{"HF_TOKEN": "abc"}, {"HF_TOKEN": "truth"}, {"WANDB_API_KEY": "abc"}, {"URL": "https://me:pass@example.org"}],
    )
    def test_a_secret_in_env_is_refused_and_not_shown(self, env: dict[str, str]) -> None:
        text = problems(env=env)
        assert "a secret is given by reference only" in text
        assert not any(value in text for value in env.values())

    @pytest.mark.parametrize("switch", ["1", "0", "true", "False", ""])
    def test_a_switch_named_after_a_secret_is_none(self, switch: str) -> None:
        assert {"name": "A_TOKEN", "value": switch} in container(env={"A_TOKEN": switch})["env"]

    def test_also_in_the_part_of_another_model(self) -> None:
        other = {"m2m100_418m": {"enabled": False, "cluster": {"env": {"S3_SECRET": "abc"}}}, MODEL: None}
        batch = {name: value for name, value in document().items() if name != "model"} | {"models": other}
        with pytest.raises(ConfigError, match=r"models\.m2m100_418m\.cluster\.env\.S3_SECRET: a secret is given"):
            render(batch, MODEL)


class TestRefused:
    def test_no_image(self) -> None:
        with pytest.raises(ConfigError, match=r"cluster\.image: is required in a cluster.*--set cluster\.image="):
            render(GIVEN, MODEL)

    @pytest.mark.parametrize("root", ["outputs", "/", "/tmp", "/etc", "/dev/shm/x", "/home", "/a/../b", "/a:b"])
    def test_a_root_that_cannot_be_mounted(self, root: str) -> None:
        with pytest.raises(ConfigError, match=r"storage\.root: "):
            render(document() | {"storage": {"root": root}}, MODEL)

    @pytest.mark.parametrize(
        "name", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "PET_NNODES", "PYTHONUNBUFFERED", "A B", "1A"]
    )
    def test_variables(self, name: str) -> None:
        assert f"cluster.env.{name}: " in problems(env={name: "1"})
        shown = name if name.isidentifier() else "(a key)"  # which may be the secret itself
        assert f"cluster.secrets.{shown}: " in problems(secrets={name: {"name": "a", "key": "b"}})

    def test_a_variable_given_twice(self) -> None:
        assert "A: in env and in secrets" in problems(env={"A": "1"}, secrets={"A": {"name": "a", "key": "b"}})

    @pytest.mark.parametrize(
        ("cluster", "path"),
        [
            ({"image": "Example.org/MTFT"}, "image"),
            ({"image": "a b"}, "image"),
            ({"image": "a:b:c"}, "image"),
            ({"image": "a:1\nevil: true"}, "image"),
            ({"labels": {"mtft/model": "x"}}, "labels"),
            ({"labels": {"app.kubernetes.io/name": "x"}}, "labels"),
            ({"labels": {"a": "b c"}}, "labels"),
            ({"labels": {"a": "b" * 64}}, "labels"),
            ({"labels": {"-a": "b"}}, "labels"),
            ({"annotations": {"a b": "c"}}, "annotations"),
            ({"node_selector": {"pool": "a/b"}}, "node_selector"),
            ({"affinity": {"required": {"pool": []}}}, "affinity.required"),
            ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "tolerations[0]"),
            ({"tolerations": [{"value": "b"}]}, "tolerations[0]"),
            ({"claim": "My_Claim"}, "claim"),
            ({"priority_class": "a" * 254}, "priority_class"),
            ({"queue": "a.b"}, "queue"),
            ({"gpu_resource": "gpu"}, "gpu_resource"),
            ({"topology": {"required": "rack", "preferred": "zone"}}, "topology"),
            ({"secrets": {"A": {"name": "a", "key": "b/c"}}}, "secrets.A.key"),
            ({"gang": {"que": "a"}}, "gang.que"),
            ({"longest_step_seconds": STOP_SECONDS + 1}, "longest_step_seconds"),
            ({"grace_seconds": KILL_AFTER_SECONDS}, "grace_seconds"),
        ],
    )
    def test_values(self, cluster: dict[str, Any], path: str) -> None:
        assert f"cluster.{path}" in problems(**cluster)

    def test_the_order_of_the_times(self) -> None:
        assert container()  # the built-in values keep it
        assert look_up(pod(), "spec.terminationGracePeriodSeconds") > KILL_AFTER_SECONDS > STOP_SECONDS >= 90


class TestText:
    @pytest.mark.parametrize("case", cases())
    def test_yaml_and_json_read_back_equal(self, case: str) -> None:
        manifests = objects(case)
        assert list(yaml.safe_load_all(as_yaml(manifests))) == manifests
        assert json.loads(as_json(manifests))["items"] == manifests

    @settings(deadline=None, max_examples=100)
    @given(
        value=st.text(st.characters(exclude_categories=["Cs"])),
        path=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    )
    def test_no_text_breaks_out(self, value: str, path: str) -> None:
        given_ = document(env={"TEXT": value}, annotations={"note": value}) | {"data": {"train": path}}
        try:
            manifests = render(given_, MODEL)
        except ConfigError as refused:  # it happened to look like a secret
            assert "by reference only" in str(refused)
            return
        assert json.loads(manifests[0]["data"]["config.json"]) == given_
        assert list(yaml.safe_load_all(as_yaml(manifests))) == manifests


class TestSurroundings:
    def test_claim(self) -> None:
        made = claim("mtft", "100Gi", "nfs", "team")
        assert made["spec"]["accessModes"] == ["ReadWriteMany"]
        assert made["spec"]["resources"]["requests"] == {"storage": "100Gi"}
        assert (made["spec"]["storageClassName"], made["metadata"]["namespace"]) == ("nfs", "team")
        assert "storageClassName" not in claim("mtft", "1Gi", None, None)["spec"]

    def test_network_policy_opens_the_pods_of_one_job_to_each_other(self) -> None:
        sent = job(namespace="team")
        policy = network_policy(sent)
        pods = {"podSelector": {"matchLabels": {labels.OPERATOR_JOB: sent["metadata"]["name"]}}}
        assert policy["spec"]["podSelector"] == pods["podSelector"]
        assert policy["spec"]["ingress"] == [{"from": [pods]}]
        assert {"to": [pods]} in policy["spec"]["egress"]
        assert policy["metadata"]["namespace"] == "team"
