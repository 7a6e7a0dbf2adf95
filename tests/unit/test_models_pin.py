"""``mtft-launch models pin``: the hub's own client asks a small hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
import yaml

from mtft.models import MODELS
from mtft.settings import resolve
from tests.conftest import CHECKOUT

pytest.importorskip("huggingface_hub")


def commit_of(base: str) -> str:
    return hashlib.sha1(base.encode()).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Answers for the bases of the registry; ``answers`` gives other ones, as status and body."""

    asked: ClassVar[list[str]] = []
    answers: ClassVar[dict[str, tuple[int, bytes]]] = {}

    def do_GET(self) -> None:
        status, body = 404, b"{}"  # the client asks for other things of its own accord
        if self.path.startswith("/api/models/"):
            base = self.path.removeprefix("/api/models/")
            self.asked.append(base)
            usual = (200, json.dumps({"id": base, "sha": commit_of(base)}).encode())
            status, body = self.answers.get(base, usual)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    # What the client keeps between calls, a user's token included, stays out of the test.
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(Hub, "answers", {})
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pin(hub: str, *arguments: str, offline: str = "0", code: str = "") -> subprocess.CompletedProcess[str]:
    program = code + "import sys; from launcher.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, "models", *arguments],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": offline},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_base_is_asked_for_once(hub: str) -> None:
    done = pin(hub, "pin")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = [line.split() for line in done.stdout.splitlines()]
    assert head == ["KEY", "BASE", "REVISION"]
    assert rows == [[card.key, card.base, commit_of(card.base)] for card in MODELS.values()]
    assert sorted(Hub.asked) == sorted({card.base for card in MODELS.values()})


@pytest.mark.parametrize("arguments", [("pin", "opus_mt_en_fr", "-o", "yaml"), ("-o", "json", "pin", "opus_mt_en_fr")])
def test_one_model_is_a_document_for_one_job(hub: str, arguments: tuple[str, ...]) -> None:
    document = yaml.safe_load(pin(hub, *arguments).stdout)
    commit = commit_of(MODELS["opus_mt_en_fr"].base)
    assert document == {"model": {"key": "opus_mt_en_fr", "revision": commit}}
    assert resolve(document | {"data": {"train": "a"}}).config.model.revision == commit


def test_several_models_are_a_document_for_a_batch(hub: str) -> None:
    document = json.loads(pin(hub, "pin", "m2m100_418m", "opus_mt_fr_en", "-o", "json").stdout)
    assert list(document["models"]) == ["m2m100_418m", "opus_mt_fr_en"]
    for key in document["models"]:
        resolved = resolve(document | {"data": {"train": "a"}}, model=key)
        assert resolved.config.model.revision == commit_of(MODELS[key].base)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, b"{}"), "does not tell the commit of Helsinki-NLP/opus-mt-tc-big-en-fr: status 404"),
        ((401, b"{}"), "status 401; HF_TOKEN gives access"),
        ((200, b"<html>welcome</html>"), "check the network and HF_ENDPOINT"),
        ((200, b'{"id": "a/b"}'), "check HF_ENDPOINT"),
        ((200, b'{"id": "a/b", "sha": "main"}'), "check HF_ENDPOINT"),
    ],
)
def test_what_was_not_fetched_is_never_printed(hub: str, answer: tuple[int, bytes], message: str) -> None:
    Hub.answers[MODELS["opus_mt_en_fr"].base] = answer
    done = pin(hub, "pin")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert hub in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hub_that_cannot_be_asked(hub: str) -> None:
    offline = pin(hub, "pin", offline="1")
    assert (offline.returncode, offline.stdout) == (2, "")
    assert "not asked while HF_HUB_OFFLINE is set" in offline.stderr
    assert Hub.asked == []
    absent = pin("http://127.0.0.1:9", "pin")
    assert (absent.returncode, absent.stdout) == (2, "")
    assert "http://127.0.0.1:9 does not tell the commit" in absent.stderr
    without = pin(hub, "pin", code="import sys; sys.modules['huggingface_hub'] = None; ")
    assert (without.returncode, without.stdout) == (2, "")
    assert "pip install 'mtft[train]'" in without.stderr


def test_an_unknown_key_asks_nobody(hub: str) -> None:
    done = pin(hub, "pin", "opus")
    assert done.returncode == 2
    assert "did you mean opus_mt_en_fr or opus_mt_fr_en?" in done.stderr
    assert Hub.asked == []
