"""What `run`, `batch` and `diff` make of a configuration before a cluster is asked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from launcher.cli import main
from launcher.cluster_errors import NoConnection, WebhookSilent
from launcher.differences import _compare
from launcher.states import JobState
from launcher.submit import Submission
from mtft.models import MODELS
from mtft.settings import resolve
from tests.conftest import CHECKOUT

CLUSTER = {"image": "localhost/none:1"}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster, and a folder of its own."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def volume() -> Iterator[Path]:
    """Give a folder that could be the volume's; /tmp could not, because each pod has one of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def shown(capsys: pytest.CaptureFixture[str], verb: str, document: dict[str, Any], *more: str) -> list[dict[str, Any]]:
    """Return the objects that `--dry-run` prints for a document."""
    Path("given.json").write_text(json.dumps(document))
    assert main([verb, "--config", "given.json", "--dry-run", *more]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


def configs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(each["data"]["config.json"]) for each in objects if each["kind"] == "ConfigMap"]


def test_dry_run_needs_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"model": "m2m100_418m", "data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": CLUSTER}
    objects = shown(capsys, "run", document)
    assert [each["kind"] for each in objects] == ["ConfigMap", "PyTorchJob"]
    assert "namespace" not in objects[0]["metadata"]
    assert shown(capsys, "run", document, "-n", "team")[1]["metadata"]["namespace"] == "team"
    first, second = (shown(capsys, "run", document, "--rerun")[1]["metadata"]["name"] for _ in range(2))
    assert len({first, second, objects[1]["metadata"]["name"]}) == 3


def test_digest_is_filled_in_where_the_data_are_seen(volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = volume / "mtft"
    data = root / "data" / "train.jsonl"
    document = {
        "model": "m2m100_418m",
        "data": {"train": str(data)},
        "storage": {"root": str(root)},
        "cluster": CLUSTER,
    }
    unseen = shown(capsys, "run", document)
    assert configs(unseen)[0]["data"] == {"train": str(data)}
    data.parent.mkdir(parents=True)
    data.write_text("one\n")
    seen = shown(capsys, "run", document)
    assert configs(seen)[0]["data"]["sha256"] == hashlib.sha256(b"one\n").hexdigest()
    assert seen[1]["metadata"]["name"] == shown(capsys, "run", document)[1]["metadata"]["name"]
    data.write_text("two\n")
    names = {each[1]["metadata"]["name"] for each in (unseen, seen, shown(capsys, "run", document))}
    assert len(names) == 3  # new data make a new job


@pytest.mark.parametrize("field", ["train", "dev", "test"])
def test_data_that_are_not_on_a_volume_seen_here_are_refused(
    field: str, volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (volume / "data").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (volume / "data" / name).write_text("one\n")
    data: dict[str, Any] = {"train": str(volume / "data"), field: [f"{volume}/data/a.jsonl", f"{volume}/data/late/c"]}
    document: dict[str, Any] = {"data": data, "storage": {"root": str(volume)}, "cluster": CLUSTER}
    Path("given.json").write_text(json.dumps(document))
    assert main(["batch", "--config", "given.json", "--all", "--dry-run"]) == 2
    shown_to, said = capsys.readouterr()
    assert not shown_to
    assert f"data.{field}: there is no {volume}/data/late/c; {volume}/data holds a.jsonl, b.jsonl; put it there" in said
    # A digest says the caller knows what is meant.
    assert len(shown(capsys, "batch", {**document, "data": {**data, "sha256": "0" * 64}}, "--all")) == 2 * len(MODELS)


def test_data_of_this_machine_are_refused_with_the_way_to_the_volume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.jsonl").write_text("")
    for path in ("train.jsonl", str(tmp_path / "train.jsonl"), "gone.jsonl"):
        assert main(["run", "--model", "m2m100_418m", "--data", path, "--set", "cluster.image=a/b:1"]) == 2
        said = capsys.readouterr().err
        assert f"data push {path}" in said and f"give /mnt/mtft/data/{Path(path).name}" in said
    assert (
        main(["run", "--model", "m2m100_418m", "--data", "gone.jsonl", "--set", "cluster.image=a:1", "-n", "team"]) == 2
    )
    assert "`mtft-launch data push gone.jsonl -n team` puts it there" in capsys.readouterr().err
    elsewhere = ("-n", "team", "--context", "gpu cluster")
    assert main(["run", "--model", "m2m100_418m", "--data", "gone.jsonl", *elsewhere]) == 2
    assert "`mtft-launch data push gone.jsonl -n team --context 'gpu cluster'` puts it" in capsys.readouterr().err
    assert main(["run", "--model", "m2m100_418m", "--data", "x" * 300, "--set", "cluster.image=a:1"]) == 2
    assert capsys.readouterr().err.endswith(f"{'x' * 300}: File name too long\n")
    # The image may hold a file that is not here; a digest says the caller knows what is meant.
    document = {"model": "m2m100_418m", "data": {"train": "/opt/there.jsonl"}, "cluster": CLUSTER}
    shown(capsys, "run", document)
    given = {"train": str(tmp_path / "train.jsonl"), "sha256": "0" * 64}
    assert configs(shown(capsys, "run", {**document, "data": given}))[0]["data"] == given


def test_gpu_that_is_too_small_is_refused_unless_forced(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"model": "m2m100_418m", "data": {"train": "/mnt/mtft/t"}, "cluster": {**CLUSTER, "gpu_memory_gib": 1}}
    Path("given.json").write_text(json.dumps(document))
    assert main(["run", "--config", "given.json", "--dry-run"]) == 2
    assert "--force of run and batch sends it all the same" in capsys.readouterr().err
    assert len(shown(capsys, "run", document, "--force")) == 2


def test_batch_takes_the_models_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": CLUSTER}

    def models(document: dict[str, Any], *more: str) -> list[str]:
        objects = shown(capsys, "batch", document, *more)
        return [each["metadata"]["labels"]["mtft/model"] for each in objects if each["kind"] == "PyTorchJob"]

    named = {**shared, "models": {"opus_mt_en_fr": {}, "m2m100_418m": {"enabled": False}}}
    assert models(named) == ["opus_mt_en_fr"]
    assert len(models(named, "--all")) == 4
    assert models(named, "--all", "--skip", "opus_mt_fr_en,mbart50_mmt_fr") == ["mbart50_mmt_en", "opus_mt_en_fr"]
    assert len(models(shared, "--all")) == len(MODELS)
    off, on = ("--set", "models.opus_mt_fr_en.enabled=false"), ("--set", "models.m2m100_418m.enabled=true")
    assert "opus_mt_fr_en" not in models(named, *off) and "opus_mt_fr_en" not in models(shared, "--all", *off)
    assert "m2m100_418m" in models(named, *on) and "m2m100_418m" in models(named, "--all", *on)
    assert models({**shared, "model": "m2m100_418m"}) == ["m2m100_418m"]
    assert models(shared, "--models", "opus_mt_fr_en,m2m100_418m") == ["opus_mt_fr_en", "m2m100_418m"]


def test_batch_keeps_the_checkpoint_of_a_single_model_to_that_model(capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "model": {"key": "m2m100_418m", "path": "/mnt/mtft/mine"},
        "data": {"train": "/mnt/mtft/t.jsonl"},
        "cluster": CLUSTER,
    }
    (config, *_) = configs(shown(capsys, "batch", document, "--all"))
    assert config["models"]["m2m100_418m"] == {"model": {"path": "/mnt/mtft/mine"}}
    assert config["models"]["opus_mt_en_fr"] == {} and "model" not in config


def test_batch_names_each_job_as_it_would_be_named_beside_others(capsys: pytest.CaptureFixture[str]) -> None:
    shared = {"data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": CLUSTER}
    alone = shown(capsys, "batch", shared, "--models", "m2m100_418m", "--name", "b")
    together = shown(capsys, "batch", shared, "--all", "--name", "b")
    assert alone[1]["metadata"]["name"] in {each["metadata"]["name"] for each in together}
    assert all(each["metadata"]["labels"]["mtft/batch"] == "b" for each in together)


def test_batch_gives_each_model_the_digest_of_its_own_data(volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (volume / name).write_text(name)
    document = {
        "data": {"train": str(volume / "a")},
        "storage": {"root": str(volume)},
        "cluster": CLUSTER,
        "models": {"m2m100_418m": {}, "opus_mt_en_fr": {"data": {"train": str(volume / "b")}}},
    }
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("a", "b")}
    (config, other) = configs(shown(capsys, "batch", document))
    assert config == other
    assert config["models"]["m2m100_418m"]["data"]["sha256"] == digests["a"]
    assert config["models"]["opus_mt_en_fr"]["data"]["sha256"] == digests["b"]
    # The same bytes at two places: what is said for all models is of the shared place alone.
    (volume / "b").write_text("a")
    config = configs(shown(capsys, "batch", document))[0]
    assert resolve(config, model="opus_mt_en_fr").config.data.sha256 == digests["a"]
    assert resolve(config, model="m2m100_418m").config.data.sha256 == digests["a"]
    del document["models"]["opus_mt_en_fr"]["data"]  # type: ignore[index]
    assert configs(shown(capsys, "batch", document))[0]["data"]["sha256"] == digests["a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "m2m100"], "did you mean m2m100_418m?"),
        (["--all", "--skip", "nothing"], "there is no model 'nothing'"),
        ([], "no model is chosen"),
        (["--model", "m2m100_418m"], "a batch takes --models m2m100_418m"),
    ],
)
def test_batch_of_unknown_models_is_bad_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_every_verb_without_a_cluster_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    document = {"model": "m2m100_418m", "data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": CLUSTER}
    Path("given.json").write_text(json.dumps(document))
    config = ["--config", "given.json"]
    for verb in (["run", *config], ["diff", *config], ["validate", "--server", *config], ["suspend", "a"]):
        assert main(verb) == 3
        assert "there is no kubeconfig" in capsys.readouterr().err


READING = ("status", "list", "logs a", "wait a", "describe a", "delete a --yes", "fetch a", "doctor a", "diff a")


@pytest.mark.parametrize("verb", [*READING, *(f"{verb} a" for verb in ("suspend", "resume", "retry", "cancel"))])
def test_namespace_of_the_file_counts_where_none_is_given(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str | None] = []

    def connect(context: str | None, namespace: str | None) -> None:
        asked.append(namespace)
        raise NoConnection("nowhere")

    monkeypatch.setattr("launcher.cluster.connect", connect)
    assert main(verb.split()) == 3
    Path("mtft.yaml").write_text("cluster: {namespace: team}\n")
    assert main(verb.split()) == 3
    assert main([*verb.split(), "-n", "mine"]) == 3
    assert asked == [None, "team", "mine"]
    Path("mtft.yaml").write_text("cluster: {namespace: 7}\n")
    capsys.readouterr()
    assert main(verb.split()) == 2 and len(asked) == 3
    assert "mtft.yaml:1: cluster.namespace: is no text; got 7" in capsys.readouterr().err


def test_other_namespaces_need_no_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mtft.yaml").write_text("[")
    assert main(["status", "-A"]) == 3
    assert main(["status"]) == 2
    with pytest.raises(SystemExit):
        main(["status", "--help"])
    assert "cluster.namespace" in capsys.readouterr().out


def test_help_of_every_verb_loads_nothing_heavy() -> None:
    program = """
import contextlib, io, sys
from launcher.cli import VERBS, main
from launcher.cluster_errors import NoConnection, WebhookSilent
below = {"data": ("check", "split", "push"), "models": ("", "pin")}
for verb in ((verb, action) for verb in VERBS for action in below.get(verb, ("",))):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main([*filter(None, verb), "--help"])
    assert "example" in said.getvalue(), verb
    for option in ("-n NAME, --namespace NAME", "--context NAME", "-o {table,json,yaml}"):
        assert option in said.getvalue(), (verb, option)
print(*sorted({"kubernetes", "kubeflow", "urllib3", "pydantic", "yaml", "torch"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert done.stdout.split() == []


def test_comparison_goes_by_name_and_place() -> None:
    live = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["x", "y"], "same": {"a": [1]}}
    wanted = {"env": [{"name": "B", "value": "3"}], "args": ["x", "z"], "same": {"a": [1]}, "new": None}
    found = {each.path: (each.live, each.wanted) for each in _compare(live, wanted, "")}
    assert found == {
        "args[1]": ("y", "z"),
        "env[A]": ({"name": "A", "value": "1"}, "(absent)"),
        "env[B].value": ("2", "3"),
        "new": ("(absent)", None),
    }


def test_an_interrupted_wait_prints_the_table_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states: list[Any] = ["Running"]

    def wait_for(
        _: object, names: list[str], *__: object, report: Callable[[JobState], None], sent: bool
    ) -> dict[str, int]:
        common: dict[str, Any] = {"namespace": "team", "model": "m", "batch": "b", "phase": ""}
        report(JobState(name=names[0], state="Failed", reason="3 rows are bad. The first of them:\nrow 7", **common))
        for name, state in zip(names[1:], states, strict=False):
            report(JobState(name=name, state=state, **common))
        raise KeyboardInterrupt

    def send_all(_: object, rows: list[Any]) -> bool:
        for row in rows:
            row.result = "submitted"
        return True

    monkeypatch.setattr("launcher.waiting.wait_for", wait_for)
    monkeypatch.setattr("launcher.verbs.batch._send_all", send_all)
    monkeypatch.setattr("launcher.cluster.connect", lambda *_: SimpleNamespace(namespace="team", find=lambda *_: None))
    document = {"data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": {**CLUSTER, "gpus_per_node": 0}}
    Path("given.json").write_text(json.dumps(document))
    models = ["m2m100_418m", "opus_mt_en_fr", "opus_mt_fr_en"]
    assert main(["batch", "--models", ",".join(models), "--wait", "--config", "given.json"]) == 130
    out, err = capsys.readouterr()
    table = [line.split()[2] for line in out.splitlines()[1:]]
    assert table == ["Failed", "Running", "submitted"] and "The first of them: row 7" in out
    running = [line.split()[1] for line in out.splitlines()[2:]]
    assert f"`mtft-launch cancel {' '.join(running)} -n team`" in err
    assert main(["batch", "--models", "m2m100_418m", "--timeout", "1h", "--config", "given.json"]) == 0
    assert "note: --timeout does nothing without --wait" in capsys.readouterr().err
    states[:] = ["Deleted", "Running"]
    assert main(["batch", "--models", ",".join(models), "--wait", "--config", "given.json"]) == 130
    assert f"`mtft-launch cancel {running[1]} -n team`" in capsys.readouterr().err
    states[:] = ["Deleted", "Cancelled"]
    assert main(["batch", "--models", ",".join(models), "--wait", "--config", "given.json"]) == 130
    assert "cancel" not in capsys.readouterr().err


@pytest.mark.parametrize("step", ["dry_run", "send"])
def test_a_batch_ends_at_the_first_webhook_that_does_not_answer(
    step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def hangs(_: object, objects: list[Any]) -> Submission:
        asked.append(objects[-1]["metadata"]["name"])
        if len(asked) == 2:
            raise WebhookSilent("create PyTorchJob: a webhook that must agree does not answer", hangs=True)
        return Submission(job=objects[-1], outcome="created")

    monkeypatch.setattr("launcher.submit.existing", lambda *_: None)
    monkeypatch.setattr("launcher.submit.dry_run", lambda *_: None)
    monkeypatch.setattr(f"launcher.submit.{step}", hangs)
    monkeypatch.setattr("launcher.cluster.connect", lambda *_: SimpleNamespace(namespace="team", find=lambda *_: None))
    document = {"data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": {**CLUSTER, "gpus_per_node": 0}}
    Path("given.json").write_text(json.dumps(document))
    assert main(["batch", "--models", ",".join(list(MODELS)[:4]), "--config", "given.json", "-o", "json"]) == 3
    rows = json.loads(capsys.readouterr().out)
    first = ["not sent", "refused"] if step == "dry_run" else ["submitted", "failed"]
    assert [row["result"] for row in rows] == [*first, "not tried", "not tried"] and len(asked) == 2
    assert [row["exit_code"] for row in rows] == [0, 3, 3, 3] and asked[1] in rows[3]["note"]


def test_help_of_batch_offers_no_single_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["batch", "--help"])
    assert "--model " not in capsys.readouterr().out
    assert main(["batch", "--model", "m2m100_418m"]) == 2
    assert "a batch takes --models m2m100_418m" in capsys.readouterr().err
