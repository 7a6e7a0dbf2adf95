"""Whose claim and storage root a verb takes from a configuration of several models, or of none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher.cli import main
from launcher.cluster import Cluster
from launcher.partial import cluster_config, filled
from launcher.transfer_pod import root_of
from mtft import exit_codes
from mtft.errors import ConfigError, InputError
from mtft.models import MODELS
from mtft.settings import resolve
from tests.unit.tiny_exec import TinyExec, serve

FIRST, OTHER, THIRD, UNNAMED = "m2m100_418m", "opus_mt_en_fr", "mbart50_mmt_fr", "opus_mt_fr_en"
SHARED: dict[str, Any] = {"cluster": {"image": "example.org/mtft:1.0", "claim": "shared"}}


def part(claim: str, root: str = "/mnt/mtft", **more: Any) -> dict[str, Any]:
    return {"cluster": {"claim": claim}, "storage": {"root": root}, **more}


BATCH = {
    **SHARED,
    "models": {FIRST: part("big", "/mnt/big", enabled=False), OTHER: part("small"), THIRD: part("small")},
}
APART = {**SHARED, "models": {**BATCH["models"], THIRD: part("third")}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Give the pods that were started on a cluster without any job; nothing else happens there."""
    pods: list[dict[str, Any]] = []

    @contextmanager
    def runs(_: Cluster, pod: dict[str, Any]) -> Iterator[str]:
        pods.append(pod["spec"])
        raise InputError("that is enough")
        yield ""

    monkeypatch.setattr("launcher.transfer_pod.running", runs)
    monkeypatch.setattr(Cluster, "list", lambda *_, **__: SimpleNamespace(items=[]))
    with serve(TinyExec(tmp_path)) as there:
        monkeypatch.setattr("launcher.cluster.connect", lambda *_: there)
        yield pods


def write(document: dict[str, Any]) -> Path:
    path = Path("mtft.yaml")
    path.write_text(json.dumps(document))
    return path


def place(document: dict[str, Any], model: str | None = None, *sets: str) -> tuple[str, str]:
    config = cluster_config(write(document), sets, model)
    return config.cluster.claim, config.storage.root


def place_of(pod: dict[str, Any]) -> tuple[str, str]:
    return pod["volumes"][0]["persistentVolumeClaim"]["claimName"], root_of(pod)


@pytest.mark.parametrize(
    ("document", "model", "found"),
    [
        (SHARED, None, ("shared", "/mnt/mtft")),
        (BATCH, None, ("small", "/mnt/mtft")),
        (BATCH, FIRST, ("big", "/mnt/big")),
        (BATCH, OTHER, ("small", "/mnt/mtft")),
        (BATCH, UNNAMED, ("shared", "/mnt/mtft")),
        (APART, THIRD, ("third", "/mnt/mtft")),
        ({**SHARED, "model": {"key": OTHER, "path": "/base"}}, FIRST, ("shared", "/mnt/mtft")),
        ({**SHARED, "models": {}}, None, ("shared", "/mnt/mtft")),
        ({**SHARED, "models": {key: part("off", enabled=False) for key in MODELS}}, None, ("shared", "/mnt/mtft")),
    ],
)
def test_the_place_is_that_of_the_model_else_of_the_enabled_ones(
    document: dict[str, Any], model: str | None, found: tuple[str, str]
) -> None:
    assert place(document, model) == found


def test_models_that_keep_their_files_apart_are_a_question_to_the_person() -> None:
    with pytest.raises(InputError, match=rf"{OTHER}: claim small.*{THIRD}: claim third.*choose with --model KEY"):
        place(APART)
    assert place(APART, None, "cluster.claim=one") == ("one", "/mnt/mtft")
    with pytest.raises(ConfigError, match="models: is not a mapping"):
        place({**SHARED, "models": 5}, OTHER)


@pytest.mark.parametrize("verb", ["fetch", "history", "promote", "rollback", "reproduce"])
def test_a_verb_reaches_the_volume_of_its_model_when_the_job_is_gone(verb: str, started: list[dict[str, Any]]) -> None:
    write(APART)
    for model in (FIRST, THIRD):
        assert main([verb, model]) == exit_codes.BAD_INPUT
    assert [place_of(pod) for pod in started] == [("big", "/mnt/big"), ("third", "/mnt/mtft")]


def test_data_go_to_the_enabled_models(started: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.jsonl").write_text('{"source": "The sea.", "target": "La mer."}\n')
    push = ["data", "push", "train.jsonl"]
    write(BATCH)
    assert main(push) == exit_codes.BAD_INPUT
    write(APART)
    assert main(push) == exit_codes.BAD_INPUT and "choose with --model KEY" in capsys.readouterr().err
    assert main([*push, "--model", THIRD]) == exit_codes.BAD_INPUT
    assert [place_of(pod) for pod in started] == [("small", "/mnt/mtft"), ("third", "/mnt/mtft")]
    namespaces = {key: {"cluster": {"namespace": name}} for key, name in ((OTHER, "a"), (THIRD, "b"))}
    write({**SHARED, "models": namespaces})
    assert main(push) == exit_codes.BAD_INPUT and "namespace a; " in capsys.readouterr().err
    assert main([*push, "-n", "team"]) == exit_codes.BAD_INPUT and len(started) == 3


def test_what_a_model_says_itself_is_no_gap() -> None:
    own = {OTHER: {"cluster": {"image": "example.org/own:1"}, "data": {"train": "/own.jsonl"}}, THIRD: {}}
    document, keys = filled({"models": own}, image="none:1")
    configs = [resolve(document, model=key).config for key in keys]
    assert [(each.cluster.image, each.data.train) for each in configs] == [
        ("example.org/own:1", "/own.jsonl"),
        ("none:1", "data"),
    ]
    assert filled({"data_path": "/x.jsonl"})[0] == {"data_path": "/x.jsonl"}, "an old name is no gap"
