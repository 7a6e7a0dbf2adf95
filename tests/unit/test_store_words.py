"""What is said of a store: commands that reach it again, and a promotion whose entry found no room."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.storekeeping import far_keeper
from launcher.transfer import Remote
from launcher.verbs.fetch import _model_of
from launcher.verbs.translate import find_run, tell_unpromoted
from mtft import exit_codes, journal, store
from mtft.errors import InputError
from mtft.promotion import changing
from tests.unit.runs_on_disk import MODEL, current, make_run, run_id
from tests.unit.tiny_exec import TinyExec, serve

Verb = Callable[..., int]


@pytest.fixture
def verb(tmp_path: Path) -> Verb:
    return lambda name, *options: main([name, MODEL, "--output", str(tmp_path), *options])


def test_a_command_names_the_store_it_is_about(verb: Verb, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 1, "regressed")
    overruled = f"`mtft-launch promote {MODEL} --run {run_id(1)} --force --output {tmp_path}`"
    assert verb("promote") == exit_codes.BAD_INPUT
    assert overruled in capsys.readouterr().err
    verb("promote", "--force")
    (tmp_path / "outputs" / MODEL / "current").unlink()
    tell_unpromoted(tmp_path, MODEL, store.find(tmp_path, MODEL).folder)
    assert overruled in capsys.readouterr().err
    assert verb("rollback") == exit_codes.BAD_INPUT
    assert overruled in capsys.readouterr().err
    with pytest.raises(InputError, match=rf"`mtft-launch history {MODEL} --output {tmp_path}`"):
        find_run(tmp_path, MODEL, run_id(2))


@pytest.mark.parametrize("verdict", ["promoted", "regressed"])
def test_a_lost_pointer_is_told_alike_here_and_in_the_pod(
    tmp_path: Path, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, 1, verdict)
    with changing(tmp_path, MODEL) as held:
        held.promote(run_id(1), who="anna", force=True)
    (tmp_path / "outputs" / MODEL / "current").unlink()
    far = " --force" if verdict == "regressed" else ""
    with serve(TinyExec(tmp_path)) as cluster:
        Remote(cluster, "mtft-transfer-1", "team").ask("run", str(tmp_path), MODEL)
        assert f"--run {run_id(1)}{far} -n team` puts it back" in capsys.readouterr().err
    assert f"--run {run_id(1)}{far}` puts it back" in store.unpromoted(store.find(tmp_path, MODEL))


def test_a_command_for_the_store_of_this_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, 1, "regressed")
    monkeypatch.chdir(tmp_path)
    assert main(["promote", MODEL, "--backend", "local"]) == exit_codes.BAD_INPUT
    assert f"--run {run_id(1)} --force --backend local`" in capsys.readouterr().err


def test_a_command_for_the_store_of_a_cluster(tmp_path: Path) -> None:
    make_run(tmp_path, 1, "regressed")
    with serve(TinyExec(tmp_path)) as cluster:
        remote = Remote(cluster, "mtft-transfer-1", "team")
        ask = far_keeper(remote.cluster, remote.pod, str(tmp_path), MODEL)
        with pytest.raises(InputError, match=rf"--run {run_id(1)} --force -n {cluster.namespace}`"):
            ask("promote", run=None, who="anna", reason="", force=False)


def test_a_promotion_whose_entry_finds_no_room_is_done_and_written_later(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        make_run(tmp_path, number, "promoted")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as volume:
        volume.setattr(journal, "_append", full)
        assert verb("promote", "--run", run_id(1)) == exit_codes.DONE
        said = capsys.readouterr()
        assert f"{run_id(1)} is current now" in said.out and "the next change writes it" in said.err
        assert verb("promote", "--run", run_id(1)) == exit_codes.DONE
        assert f"{run_id(1)} is current already" in capsys.readouterr().err
        assert verb("promote", "--run", run_id(2), "--force") == exit_codes.BAD_INPUT, "nothing before it is forgotten"
        assert current(tmp_path) == run_id(1)
    assert verb("promote", "--run", run_id(2), "--force") == exit_codes.DONE
    assert [entry.run for entry in journal.read(tmp_path / "outputs" / MODEL)] == [run_id(1), run_id(2)]
    assert verb("rollback") == exit_codes.DONE and current(tmp_path) == run_id(1)


@pytest.mark.parametrize(
    ("job", "model"),
    [
        ("night-opus-mt-en-fr-0123456789", "opus_mt_en_fr"),
        ("m2m100-418m-0a1b2c3d4e", "m2m100_418m"),
        ("xopus-mt-en-fr-0123456789", None),
        ("mine", None),
    ],
)
def test_the_model_of_a_job_that_is_gone(job: str, model: str | None) -> None:
    assert _model_of(job) == model


def test_what_killed_readers_left_goes_with_the_next_change(tmp_path: Path) -> None:
    paths = make_run(tmp_path, 1, "promoted")
    left = paths.folder / ".use.0123456789abcdef.lease"
    left.write_text('{"owner": "gone", "expires": 1.0}')
    begun = paths.folder / "..use.0123456789abcdef.lease.01234567.tmp"
    begun.touch()
    with store.using(paths):
        (live,) = set(paths.folder.glob(".use.*")) - {left}
        with changing(tmp_path, MODEL):
            assert not left.exists() and live.exists() and begun.exists()
        os.utime(begun, (0, 0))
        with changing(tmp_path, MODEL):
            assert not begun.exists()
