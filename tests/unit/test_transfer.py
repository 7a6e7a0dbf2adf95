"""Files to and from a volume: the real far end, over connections that break."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient, Configuration

from launcher import exec_stream, transfer
from launcher.cluster import Cluster
from launcher.cluster_errors import Busy, ClusterError, Forbidden, NotFound, Unauthorized
from launcher.pushing import data_sha256, local_files
from launcher.transfer import Remote, safe_path
from launcher.transport import Transport
from mtft.errors import InputError
from mtft.files import sha256_file
from mtft.sources import content_sha256
from tests.unit.tiny_exec import TinyExec, serve


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl.gz"
    path.write_bytes(os.urandom(3 << 20))
    return path


def test_a_pushed_file_is_the_same(pod: TinyExec, remote: Remote, big: Path) -> None:
    target, seen = pod.root / "data" / "train.jsonl.gz", list[int]()
    assert remote.push(big, str(target), seen.append)
    assert target.read_bytes() == big.read_bytes()
    assert seen[0] == 0 and seen[-1] == big.stat().st_size and seen == sorted(seen)
    assert target.stat().st_mode & 0o777 == 0o664 and target.parent.stat().st_mode & 0o020
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    # The second time nothing is sent.
    assert not remote.push(big, str(target))
    # Another file is replaced only where the one that is there was seen.
    old = sha256_file(big)
    big.write_bytes(b"other")
    for known in (None, "0" * 64):
        with pytest.raises(InputError, match="somebody else put another file there"):
            remote.push(big, str(target), in_place_of=known)
    assert remote.push(big, str(target), in_place_of=old) and target.read_bytes() == b"other"
    with pytest.raises(InputError, match="is a folder of the volume"):
        remote.push(big, str(target.parent))


def test_two_who_fetch_one_file_get_it_whole(pod: TinyExec, remote: Remote, big: Path, tmp_path: Path) -> None:
    (pod.root / "a").write_bytes(big.read_bytes())
    here = tmp_path / "a"
    begun = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(remote.fetch, str(pod.root / "a"), here, lambda _: begun.set())
        begun.wait(30)
        second = pool.submit(remote.fetch, str(pod.root / "a"), here)
        first.result(60)
        assert here.read_bytes() == big.read_bytes()
        second.result(60)
    assert here.read_bytes() == big.read_bytes() and not list(tmp_path.glob(".*.part"))


def test_an_empty_file_is_pushed_and_fetched(pod: TinyExec, remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert remote.push(tmp_path / "empty", str(pod.root / "empty"))
    remote.fetch(str(pod.root / "empty"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


def test_a_cut_push_goes_on_where_it_was(pod: TinyExec, remote: Remote, big: Path) -> None:
    pod.cut_in = [1_000_000, 700_001, 1]
    assert remote.push(big, str(pod.root / "a"))
    assert (pod.root / "a").read_bytes() == big.read_bytes()
    assert len(pod.commands) == 4
    assert pod.fed == big.stat().st_size  # nothing that had arrived was sent again


def test_what_is_left_of_another_version_is_not_continued(pod: TinyExec, remote: Remote, big: Path) -> None:
    pod.cut_in = [1_000_000]
    old = big.read_bytes()
    other = Remote(remote.cluster, remote.pod, "team")
    transfer_tries, transfer._TRIES = transfer._TRIES, 0
    try:
        with pytest.raises(ClusterError, match="was cut"):
            other.push(big, str(pod.root / "a"))
    finally:
        transfer._TRIES = transfer_tries
    big.write_bytes(old[::-1])
    assert remote.push(big, str(pod.root / "a"))
    assert (pod.root / "a").read_bytes() == old[::-1]


def test_damage_on_the_volume_is_found(pod: TinyExec, remote: Remote, big: Path) -> None:
    digest = hashlib.sha256(big.read_bytes()).hexdigest()
    (pod.root / f".a.{digest[:16]}.part").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match="the SHA-256 of what arrived is"):
        remote.push(big, str(pod.root / "a"))
    assert not list(pod.root.iterdir())
    assert remote.push(big, str(pod.root / "a"))


def test_what_a_cut_push_of_another_version_left_goes(pod: TinyExec, remote: Remote, big: Path) -> None:
    left, held, others = f".a.{'0' * 16}.part", f".a.{'1' * 16}.part", f".a.jsonl.{'0' * 16}.part"
    for name in (left, held, others):
        (pod.root / name).touch()
    with (pod.root / held).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # somebody is pushing that one
        assert remote.push(big, str(pod.root / "a"))
    assert sorted(each.name for each in pod.root.iterdir()) == [held, others, "a"]


def test_two_pushes_of_one_file_send_it_once(pod: TinyExec, remote: Remote, big: Path) -> None:
    remotes = [remote, Remote(remote.cluster, "mtft-transfer-2", "team")]
    with ThreadPoolExecutor(2) as pool:
        sent = list(pool.map(lambda each: each.push(big, str(pod.root / "a")), remotes))
    assert sorted(sent) == [False, True] and pod.fed == big.stat().st_size
    assert (pod.root / "a").read_bytes() == big.read_bytes()
    assert [path.name for path in pod.root.iterdir()] == ["a"]


def test_a_push_waits_for_another_of_the_same_file_and_goes_on_where_that_broke_off(
    pod: TinyExec, remote: Remote, big: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(big.read_bytes()).hexdigest()
    with ThreadPoolExecutor(1) as pool, (pod.root / f".a.{digest[:16]}.part").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        pushed, said = pool.submit(remote.push, big, str(pod.root / "a")), ""
        end = time.monotonic() + 30
        while "another push of" not in said and time.monotonic() < end:
            said += capsys.readouterr().err
            time.sleep(0.02)
        assert "another push of" in said
        other.write(big.read_bytes()[:1000])
        other.close()
        assert pushed.result(30)
    assert (pod.root / "a").read_bytes() == big.read_bytes() and pod.fed == big.stat().st_size - 1000


def test_long_hashing_is_not_taken_for_a_cut(
    pod: TinyExec, remote: Remote, big: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_stream, "_SILENCE", 1.0)
    slow = remote.modules["launcher.remote_runs"].replace(
        '    with path.open("rb") as source:\n        return', "    time.sleep(2)\n    return"
    )
    slow = slow.replace("hashlib.file_digest(source,", 'hashlib.file_digest(path.open("rb"),')
    assert slow.count("time.sleep(2)") == 1
    remote.modules["launcher.remote_runs"] = f"import time\n{slow.partition('import annotations')[2]}"
    remote.program = remote.program.replace("ALIVE_SECONDS = 20.0", "ALIVE_SECONDS = 0.2")
    assert remote.push(big, str(pod.root / "a")) and len(pod.commands) == 1


def test_what_the_far_end_cannot_do_is_said(pod: TinyExec, remote: Remote, big: Path, tmp_path: Path) -> None:
    (pod.root / "file").touch()
    with pytest.raises(InputError, match=r"file.*: (Not a directory|File exists)"):
        remote.push(big, str(pod.root / "file" / "below"))
    with pytest.raises(InputError, match="No such file"):
        remote.fetch(str(pod.root / "nothing"), tmp_path / "x")
    remote.program = "import sys; sys.exit(7)"
    with pytest.raises(ClusterError, match="exit code 7"):
        remote.ask("list", "/")
    remote.program = "print('Python 2')"
    with pytest.raises(InputError, match="is its image mtft's"):
        remote.ask("list", "/")


FREE = "usage = part.stat().st_size, shutil.disk_usage(part.parent)"


def test_what_a_volume_has_no_room_for_is_not_sent(pod: TinyExec, remote: Remote, big: Path) -> None:
    program = remote.program
    small = "__import__('types').SimpleNamespace(total=3 << 20, free={free})"
    part = pod.root / f".a.{sha256_file(big)[:16]}.part"
    for have, free in ((0, 1 << 20), (1 << 20, (2 << 20) - 1)):
        part.write_bytes(big.read_bytes()[:have])
        remote.program = program.replace(FREE, FREE.partition("shutil")[0] + small.format(free=free))
        assert remote.program != program
        with pytest.raises(InputError, match=rf"{pod.root}/a: No space left on device: the file has 3\.0 MiB") as told:
            remote.push(big, str(pod.root / "a"))
        assert ("1.0 MiB of it were there" in str(told.value)) == (have > 0)
        assert pod.fed == 0 and not list(pod.root.iterdir())
    # What is there counts: the rest fits to the byte. A volume that does not say how large it is is believed.
    part.write_bytes(big.read_bytes()[: 1 << 20])
    remote.program = program.replace(FREE, FREE.partition("shutil")[0] + small.format(free=2 << 20))
    assert remote.push(big, str(pod.root / "a")) and pod.fed == 2 << 20
    remote.program = program.replace(FREE, FREE.partition("shutil")[0] + small.format(free=0).replace("3 << 20", "0"))
    assert remote.push(big, str(pod.root / "b"))


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT"])
def test_a_volume_that_fills_up_keeps_nothing_of_the_file(pod: TinyExec, remote: Remote, big: Path, name: str) -> None:
    count = "        have += len(block)\n"
    full = f"        if have > 1 << 20:\n            raise OSError(errno.{name}, os.strerror(errno.{name}))\n"
    assert remote.program.count(count) == 1
    remote.program = remote.program.replace(count, full + count)
    said = rf"{pod.root}/a: {os.strerror(getattr(errno, name))}: the file has 3\.0 MiB, .* give the command again"
    with pytest.raises(InputError, match=said):
        remote.push(big, str(pod.root / "a"))
    assert not list(pod.root.iterdir())


def refused(code: int, message: str, **details: str) -> tuple[int, bytes]:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": message, "details": details}
    return code, json.dumps(body).encode()


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        ([refused(401, "Unauthorized")] * 2, Unauthorized, r"\(401\).* log in to the cluster again"),
        (
            [
                refused(
                    403,
                    'pods "p" is forbidden: User "jo" cannot get resource "pods/exec" in API group ""'
                    ' in the namespace "team"',
                )
            ],
            Forbidden,
            r'jo may not get pods/exec in namespace team\n(.*\n)+ *resources: \["pods/exec"\]\n *verbs: \["get"\]',
        ),
        ([refused(404, 'pods "p" not found', name="p", kind="pods")], NotFound, "is gone: .* the same command again"),
        ([(404, b"pod does not exist")], NotFound, "is gone: it was deleted or evicted, or it ended"),
        (
            [refused(500, 'container not found ("pytorch")')],
            NotFound,
            "is gone: it was deleted or evicted, or it ended",
        ),
        ([refused(503, "apiserver not ready")] * 8, Busy, r"\(503\): apiserver not ready"),
    ],
    ids=["401", "403", "404", "404-kubelet", "evicted", "503"],
)
def test_a_refused_connection_is_told_as_any_other_refusal(
    pod: TinyExec, remote: Remote, answers: list[tuple[int, bytes]], kind: type[ClusterError], words: str
) -> None:
    pod.refusals = [*answers]
    with pytest.raises(ClusterError, match=words) as caught:
        remote.ask("look", "/")
    assert type(caught.value) is kind and not pod.refusals
    pod.refusals = [refused(503, "apiserver not ready")] * 3
    with pytest.raises(Busy):
        remote.ask("look", "/", tries=2)
    assert len(pod.refusals) == 1


def test_a_busy_server_and_an_ended_login_are_lived_through(pod: TinyExec, big: Path) -> None:
    pod.refusals = [refused(429, "too many"), refused(401, "Unauthorized"), refused(503, "starting")]
    with serve(pod) as plain:
        tokens = iter(("old", "new"))

        def login() -> ApiClient:
            key = {"authorization": f"Bearer {next(tokens)}"}
            return ApiClient(Configuration(host=plain.server, api_key=key))

        remote = Remote(Cluster(Transport(login), "team", "here"), "mtft-transfer-1", "team")
        assert remote.push(big, str(pod.root / "a"))
    assert pod.logins == ["Bearer old", "Bearer old", "Bearer new", "Bearer new"]


def test_a_cut_fetch_goes_on_where_it_was(pod: TinyExec, remote: Remote, big: Path, tmp_path: Path) -> None:
    (pod.root / "model.safetensors").write_bytes(big.read_bytes())
    pod.cut_out = [1_500_000, 100_000]
    remote.fetch(str(pod.root / "model.safetensors"), tmp_path / "to" / "model.safetensors")
    assert (tmp_path / "to" / "model.safetensors").read_bytes() == big.read_bytes()
    offsets = [int(command[-1]) for command in pod.commands]
    assert offsets[0] == 0 and 0 < offsets[1] <= 1_500_000 and offsets[1] < offsets[2] <= 1_600_000
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["model.safetensors"]


def test_a_damaged_part_is_not_kept(pod: TinyExec, remote: Remote, big: Path, tmp_path: Path) -> None:
    (pod.root / "a").write_bytes(big.read_bytes())
    (tmp_path / ".a.part").write_bytes(b"something else")
    with pytest.raises(InputError, match="fetch it again"):
        remote.fetch(str(pod.root / "a"), tmp_path / "a")
    assert not (tmp_path / "a").exists() and not (tmp_path / ".a.part").exists()
    remote.fetch(str(pod.root / "a"), tmp_path / "a")


def test_the_run_of_a_job_and_of_a_model(pod: TinyExec, remote: Remote) -> None:
    outputs = pod.root / "outputs" / "m"
    for run, finished in (("1", '{"deliverable": "lora"}'), ("2", '{"deliverable": "model"}'), ("3", None)):
        (outputs / "runs" / run).mkdir(parents=True)
        for deliverable in ("lora", "model"):
            (outputs / "runs" / run / deliverable).mkdir()
            (outputs / "runs" / run / deliverable / "weights.safetensors").touch()
        if finished:
            (outputs / "runs" / run / "finished.json").write_text(finished)
    (outputs / "jobs").mkdir()
    (outputs / "jobs" / "m-1.json").write_text('{"run_id": "3"}')

    def run_of(job: str) -> tuple[str, Any]:
        [found] = remote.ask("run", str(pod.root), "m", *(["job", job] if job else []))
        return Path(found["folder"]).name, found["deliverable"]

    assert run_of("m-1") == ("3", None)
    assert run_of("") == ("2", "model")  # the newest that is finished
    (outputs / "current").symlink_to("runs/1")
    assert run_of("") == ("1", "lora")
    assert remote.ask("run", str(pod.root), "m", "job", "m-2") == [{"folder": None, "deliverable": None}]
    for name in ("report.html", ".hidden"):
        (outputs / "runs" / "1" / name).write_text(name)
    (outputs / "runs" / "1" / "lora" / "link").symlink_to("/etc/hostname")
    listed = remote.ask("list", str(outputs / "runs" / "1"), ".")
    assert [each["path"] for each in listed] == [
        "finished.json",
        "lora/weights.safetensors",
        "model/weights.safetensors",
        "report.html",
    ]
    (outputs / "runs" / "1" / "lora" / "link").unlink()
    (outputs / "runs" / "1" / "lora" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="holds no safetensors"):
        run_of("")
    assert [each["path"] for each in remote.ask("list", str(outputs / "runs" / "1"), "report.html")] == ["report.html"]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\\..\\x", "a\0b"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="not fetched"):
        safe_path(tmp_path, name)


def test_links_in_the_way_are_refused(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "lora").symlink_to(tmp_path)
    with pytest.raises(InputError, match="is a link"):
        safe_path(tmp_path / "to", "lora/x")
    assert safe_path(tmp_path / "to", "a/b") == tmp_path / "to" / "a" / "b"


def test_what_is_pushed_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "news"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", ".hidden"):
        (folder / name).write_text(name)
    assert [each.name for each in local_files(folder)] == ["news/a.jsonl", "news/b.jsonl", "news/deep/c.jsonl"]
    assert [each.name for each in local_files(folder / "a.jsonl")] == ["a.jsonl"]
    # The trainer reads the rows of the folder itself, not of those below.
    assert data_sha256(local_files(folder)) == content_sha256([folder / "a.jsonl", folder / "b.jsonl"])
    assert data_sha256(local_files(folder / "a.jsonl")) == hashlib.sha256(b"a.jsonl").hexdigest()
    (folder / "deep" / "c.jsonl").rename(folder / "deep" / "config.json")
    assert data_sha256(local_files(folder / "deep")) is None
    assert [each.name for each in local_files(folder / "deep", "old")] == ["old/config.json"]
    (tmp_path / "latest.jsonl").symlink_to(folder / "a.jsonl")
    [latest] = local_files(tmp_path / "latest.jsonl")
    assert (latest.path, latest.name) == (folder / "a.jsonl", "latest.jsonl")
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="is a link"):
        local_files(folder)
    with pytest.raises(InputError, match="no such file"):
        local_files(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        local_files(tmp_path / "empty")
