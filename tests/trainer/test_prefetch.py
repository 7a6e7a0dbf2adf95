"""Bases are fetched once for all jobs, from a small hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any, ClassVar

import pytest

from mtft.models import MODELS
from tests.conftest import CHECKOUT

OPUS = MODELS["opus_mt_en_fr"].base
MBART = MODELS["mbart50_mmt_fr"].base
PICKLED = MODELS["opus_mt_fr_en"].base
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"a pickle"}


def files_of(base: str) -> dict[str, bytes]:
    return {name: content for name, content in FILES.items() if base != PICKLED or not name.endswith(".safetensors")}


class Hub(BaseHTTPRequestHandler):
    """Serves the same files of every checkpoint in ``known``, slowly enough for another process to meet it.

    One has no safetensors.
    """

    known: ClassVar[set[str]] = set()
    drops: ClassVar[int] = 0  # of the next requests, without an answer
    sent: ClassVar[Counter[str]] = Counter()
    lock: ClassVar[Lock] = Lock()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/models").strip("/").split("/")
        base, rest = "/".join(path[:2]), path[2:]
        if Hub.drops:
            Hub.drops -= 1
            self.close_connection = True
        elif base not in self.known:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["resolve"]:
            self._file(base, rest[-1])
        elif rest[:1] == ["tree"]:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files_of(base).items()
            ]
            self._answer(200, json.dumps(tree).encode())
        else:
            siblings = [{"rfilename": name} for name in files_of(base)]
            self._answer(200, json.dumps({"id": base, "sha": COMMIT, "siblings": siblings}).encode())

    def do_HEAD(self) -> None:
        self.do_GET()

    def _file(self, base: str, name: str) -> None:
        content = FILES[name]
        if self.command == "GET":
            with self.lock:
                self.sent[f"{base}/{name}"] += 1
            time.sleep(1)
        etag = hashlib.sha1(content).hexdigest()
        self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Hub, "known", {OPUS, MBART, PICKLED})
    monkeypatch.setattr(Hub, "sent", Counter())
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# As ``python -m trainer.prefetch``, but that nobody waits long for a hub that is away.
PREFETCH = "from trainer import hub, prefetch; hub._PAUSES = (0.1, 0.1); raise SystemExit(prefetch.main())"


def start(hub: str, folder: Path, document: dict[str, Any], offline: str = "0") -> subprocess.Popen[str]:
    (folder / "config.json").write_text(json.dumps(document))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", PREFETCH, "--config", folder / "config.json"],
        env={
            **environment,
            "PYTHONPATH": str(CHECKOUT),
            "HF_ENDPOINT": hub,
            "HF_HOME": str(folder / "hub"),
            "HF_HUB_OFFLINE": offline,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def batch(*models: str, **override: Any) -> dict[str, Any]:
    return {"data": {"train": "/data/train.jsonl"}, "models": dict.fromkeys(models, override)}


def test_two_at_once_fetch_each_base_once(hub: str, tmp_path: Path) -> None:
    document = batch("mbart50_mmt_fr", "mbart50_mmt_en", "opus_mt_en_fr")
    document["models"]["m2m100_418m"] = {"enabled": False}
    document["models"]["opus_mt_fr_en"] = {"model": {"path": "/models/opus"}}
    both = [start(hub, tmp_path, document) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert any("which does the same work" in errors for _, errors in said)
    for process, (output, errors) in zip(both, said, strict=True):
        assert process.returncode == 0, errors
        assert "opus_mt_fr_en: nothing to fetch, its base is the folder /models/opus" in output
        assert output.count(f"in the cache, at {COMMIT}") == 2
    wanted = {f"{base}/{name}" for base in (OPUS, MBART) for name in FILES if not name.endswith(".bin")}
    assert Hub.sent == dict.fromkeys(wanted, 1)
    again = start(hub, tmp_path, document, offline="1")
    assert again.wait(60) == 0, again.communicate()[1]


def test_a_hub_that_is_away_is_waited_for(hub: str, tmp_path: Path) -> None:
    Hub.drops = 2
    process = start(hub, tmp_path, batch("opus_mt_en_fr"))
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and f"{OPUS}: in the cache" in output
    assert "because the hub does not answer (RemoteProtocolError): check the network" in errors


def test_a_hub_that_stays_away_may_be_asked_by_another_start(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as closed:
        nowhere = f"http://127.0.0.1:{closed.server_port}"
    process = start(nowhere, tmp_path, batch("opus_mt_en_fr"))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "the hub does not answer (ConnectError): check the network, or give" in errors.splitlines()[-1]
    assert "Traceback" not in errors


def test_what_cannot_be_fetched_is_named_and_the_others_are(hub: str, tmp_path: Path) -> None:
    process = start(hub, tmp_path, batch("m2m100_418m", "opus_mt_en_fr"))
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"prefetch: {MODELS['m2m100_418m'].base} is neither in the hub cache nor can it be downloaded" in errors
    assert f"{OPUS}: in the cache" in output and "Traceback" not in errors


def test_a_base_that_is_only_a_pickle_is_refused_when_it_is_fetched(hub: str, tmp_path: Path) -> None:
    process = start(hub, tmp_path, batch("opus_mt_fr_en"))
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert f"{PICKLED} at {COMMIT} holds its weights only as a pickle (pytorch_model.bin)" in errors
    assert f'from_pretrained("{PICKLED}", revision="{COMMIT}").save_pretrained("FOLDER")' in errors
    assert "--set model.revision=refs/pr/N" in errors and "Traceback" not in errors
    assert Hub.sent == {f"{PICKLED}/config.json": 1}
    offline = start(hub, tmp_path, batch("opus_mt_fr_en"), offline="1").communicate(timeout=120)[1]
    assert f"the hub cache has {PICKLED} at {COMMIT} without weights" in offline and "Traceback" not in offline


def test_offline_and_a_broken_document_are_one_message(hub: str, tmp_path: Path) -> None:
    offline = start(hub, tmp_path, batch("opus_mt_en_fr"), offline="1").communicate(timeout=120)[1]
    assert "check the network and HF_HUB_OFFLINE" in offline and "Traceback" not in offline
    broken = start(hub, tmp_path, batch("opus_mt_en_fr", lora={"rank": 8}))
    assert "lora.rank" in broken.communicate(timeout=120)[1]
    assert broken.returncode == 2
    assert not Hub.sent
