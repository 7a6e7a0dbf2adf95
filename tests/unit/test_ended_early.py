"""Verbs that end before their work does: interrupted, read by nobody any more, or with their jobs deleted meanwhile."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import acting, waiting
from launcher.backends import kubernetes
from launcher.cli import main
from launcher.states import JobState
from launcher.submit import Submission
from mtft import exit_codes
from mtft.errors import InputError
from tests.conftest import CHECKOUT

TEAM: Any = SimpleNamespace(namespace="team", find=lambda *_: None, now=lambda: datetime.now(UTC))


def test_a_batch_interrupted_while_it_sends_tells_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[str] = []

    def send(_: object, objects: list[Any]) -> Submission:
        sent.append(objects[-1]["metadata"]["name"])
        if len(sent) == 2:
            raise KeyboardInterrupt
        return Submission(job=objects[-1], outcome="created")

    monkeypatch.setattr("launcher.submit.existing", lambda *_: None)
    monkeypatch.setattr("launcher.submit.dry_run", lambda *_: None)
    monkeypatch.setattr("launcher.submit.send", send)
    monkeypatch.setattr("launcher.cluster.connect", lambda *_: TEAM)
    cluster = {"image": "localhost/none:1", "gpus_per_node": 0}
    config = tmp_path / "given.json"
    config.write_text(json.dumps({"data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": cluster}))
    models = "m2m100_418m,opus_mt_en_fr,opus_mt_fr_en"
    assert main(["batch", "--models", models, "--config", str(config), "-o", "json"]) == exit_codes.INTERRUPTED
    out, err = capsys.readouterr()
    assert [row["result"] for row in json.loads(out)] == ["submitted", "being sent", "not sent"]
    assert f"`mtft-launch cancel {' '.join(sent)} -n team` stops it" in err


def test_a_job_that_is_interrupted_while_it_is_sent_may_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def submit(*_: object) -> Submission:
        raise KeyboardInterrupt

    monkeypatch.setattr("launcher.submit.submit", submit)
    monkeypatch.setattr("launcher.cluster.connect", lambda *_: TEAM)
    cluster = {"image": "localhost/none:1", "gpus_per_node": 0}
    config = tmp_path / "given.json"
    config.write_text(json.dumps({"data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": cluster}))
    assert main(["run", "--model", "m2m100_418m", "--config", str(config)]) == exit_codes.INTERRUPTED
    assert "may have been sent: `mtft-launch status m2m100-418m-" in capsys.readouterr().err


def test_a_verb_on_several_jobs_that_is_interrupted_tells_what_came_of_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def action(_: object, job: dict[str, Any]) -> str:
        if job["metadata"]["name"] == "c":
            raise KeyboardInterrupt
        if job["metadata"]["name"] == "b":
            raise InputError("b is not there")
        return "deleted"

    jobs: list[dict[str, Any]] = [{"metadata": {"name": name}} for name in "abcd"]
    with pytest.raises(KeyboardInterrupt):
        acting.act(TEAM, jobs, action, "json")
    results = [row["result"] for row in json.loads(capsys.readouterr().out)]
    assert results == ["deleted", "b is not there", "interrupted; it may be done or not", "not tried"]


def test_a_job_that_is_deleted_before_it_is_waited_for_has_failed() -> None:
    told: list[JobState] = []
    cluster: Any = SimpleNamespace(namespace="team", list=lambda *_, **__: SimpleNamespace(items=[], version="1"))
    codes = waiting.wait_for(cluster, ["a", "b"], report=told.append, sent=True)
    assert codes == {"a": exit_codes.FAILED, "b": exit_codes.FAILED}
    assert [(state.name, state.state, state.launcher_code) for state in told] == [
        ("a", "Deleted", exit_codes.FAILED),
        ("b", "Deleted", exit_codes.FAILED),
    ]
    with pytest.raises(InputError, match="there is no job"):
        waiting.wait_for(cluster, ["a"])


@pytest.mark.parametrize("wait", [False, True])
def test_a_job_whose_lines_nobody_reads_any_more_is_not_called_done(
    wait: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def follow(*_: object, **__: object) -> None:
        raise BrokenPipeError

    discarded: list[bool] = []
    monkeypatch.setattr("launcher.verbs.logs.follow", follow)
    monkeypatch.setattr("launcher.output.discard", lambda: discarded.append(True))
    monkeypatch.setattr("launcher.waiting.wait_for", lambda *_, **__: {"j": exit_codes.NOT_PROMOTED})
    args = argparse.Namespace(follow=True, wait=wait, timeout=None, output_format="table")
    if wait:
        assert kubernetes._see_through(TEAM, "j", args) == exit_codes.NOT_PROMOTED
    else:
        with pytest.raises(KeyboardInterrupt):
            kubernetes._see_through(TEAM, "j", args)
        assert "`mtft-launch cancel j -n team`" in capsys.readouterr().err
    assert discarded == [True]


def test_a_job_that_is_sent_is_waited_for_though_nobody_reads_how_to_follow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(*_: object, **__: object) -> None:
        raise BrokenPipeError

    sent: list[dict[str, Any]] = []

    def submit(_: object, objects: list[Any]) -> Submission:
        sent.append(objects[-1])
        return Submission(job=objects[-1], outcome="created")

    monkeypatch.setattr("launcher.submit.submit", submit)
    monkeypatch.setattr("launcher.cluster.connect", lambda *_: TEAM)
    monkeypatch.setattr("launcher.output.discard", lambda: None)
    monkeypatch.setattr("launcher.waiting.wait_for", lambda *_, **__: {"j": exit_codes.NOT_PROMOTED})
    cluster = {"image": "localhost/none:1", "gpus_per_node": 0}
    config = tmp_path / "given.json"
    config.write_text(json.dumps({"data": {"train": "/mnt/mtft/t.jsonl"}, "cluster": cluster}))
    with monkeypatch.context() as patched:
        patched.setattr("launcher.output.print", unread, raising=False)
        code = main(["run", "--model", "m2m100_418m", "--config", str(config), "--wait"])
    assert (len(sent), code) == (1, exit_codes.NOT_PROMOTED)


def test_who_has_stopped_reading_before_the_first_line_follows_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("launcher.output.is_read", lambda: False)
    monkeypatch.setattr("launcher.verbs.logs.follow", lambda *_, **__: pytest.fail("nobody reads it"))
    with pytest.raises(KeyboardInterrupt):
        kubernetes._see_through(TEAM, "j", argparse.Namespace(follow=True, wait=False, timeout=None))
    assert "`mtft-launch cancel j -n team`" in capsys.readouterr().err


def test_lines_that_are_followed_come_as_json_where_the_answer_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    followed: list[bool] = []
    monkeypatch.setattr("launcher.verbs.logs.follow", lambda *_, as_json, **__: followed.append(as_json))
    monkeypatch.setattr("launcher.waiting.wait_for", lambda *_, **__: {"j": exit_codes.DONE})
    for output_format in ("json", "table"):
        args = argparse.Namespace(follow=True, wait=False, timeout=None, output_format=output_format)
        assert kubernetes._see_through(TEAM, "j", args) == exit_codes.DONE
    assert followed == [True, False]
    assert main(["run", "--model", "m2m100_418m", "--follow", "-o", "yaml"]) == exit_codes.BAD_INPUT
    assert "run --follow -o yaml is not offered" in capsys.readouterr().err


_UNREAD = {
    "data check {rows}": exit_codes.BAD_INPUT,
    "data check {rows} -o json": exit_codes.BAD_INPUT,
    "validate --config {config}": exit_codes.DONE,
    "validate --config {config} --server": exit_codes.CLUSTER_REFUSED,
    "validate --config nowhere.yaml": exit_codes.BAD_INPUT,
    "nothing": exit_codes.BAD_INPUT,
}


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("errors_too", [False, True])
def test_what_a_verb_found_stays_true_though_nobody_reads_it(tmp_path: Path, errors_too: bool, unbuffered: str) -> None:
    rows, config = tmp_path / "rows.jsonl", tmp_path / "given.json"
    rows.write_text('{"source": "no target"}\n')
    document = {"model": "m2m100_418m", "cluster": {"image": "localhost/none:1"}}
    config.write_text(json.dumps({**document, "data": {"train": "/mnt/mtft/data/t.jsonl"}}))
    read, unread = os.pipe()
    os.close(read)
    started = {
        verb: subprocess.Popen(
            [sys.executable, "-m", "launcher", *verb.format(rows=rows, config=config).split()],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "KUBECONFIG": str(tmp_path / "none")},
            stdout=unread,
            stderr=unread if errors_too else subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )
        for verb in _UNREAD
    }
    os.close(unread)
    said = {verb: process.communicate()[1] or "" for verb, process in started.items()}
    assert {verb: process.returncode for verb, process in started.items()} == _UNREAD
    assert not [text for text in said.values() if "Traceback" in text or "BrokenPipe" in text]


def test_a_verb_that_its_lost_reader_ends_early_is_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(_: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("launcher.cli._dispatch", unread)
    monkeypatch.setattr("launcher.output.discard", lambda: None)
    assert main(["list"]) == exit_codes.INTERRUPTED


def test_a_log_whose_reader_has_seen_enough_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def shows(*_: object) -> int:
        raise BrokenPipeError

    job = {"metadata": {"name": "j"}, "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1}}}}
    cluster: Any = SimpleNamespace(namespace="team", list=lambda *_, **__: SimpleNamespace(items=[job]))
    monkeypatch.setattr("launcher.cluster.connect", lambda *_: cluster)
    monkeypatch.setattr("launcher.logs.show", shows)
    monkeypatch.setattr("launcher.output.discard", lambda: None)
    assert main(["logs", "j"]) == exit_codes.DONE


def test_an_interrupt_waits_for_no_log_that_hangs() -> None:
    program = """
import os, signal, sys, threading, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)
from launcher import cli, watching

def hangs(*_):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    time.sleep(3600)

def run(_):
    watching.pods_of = watching.queue_words = lambda *_, **__: {}
    watching._said, watching._with_log = lambda *_, **__: None, hangs
    job = {"metadata": {"name": "m", "namespace": "team", "uid": "u"}}
    watching.states_of(types.SimpleNamespace(now=time.time), [job])

sys.modules["slow"] = types.SimpleNamespace(add_arguments=lambda _: None, run=run)
cli.VERBS["slow"] = ("slow", "take long")
sys.argv = ["mtft-launch", "slow"]
sys.exit(cli.main())
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (exit_codes.INTERRUPTED, "", "mtft-launch: interrupted\n")
