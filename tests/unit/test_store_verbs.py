"""`promote`, `rollback` and `history` as a person gives them, here and through a pod; `fetch` agrees with the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from launcher import storekeeping, transfer
from launcher.cli import main
from launcher.storekeeping import Ask, far_keeper
from launcher.transfer import Remote
from launcher.verbs.translate import find_run
from mtft import exit_codes, files, journal, lease, promotion, runs, store
from mtft.errors import InputError
from mtft.runs import Job, RunPaths
from tests.unit.runs_on_disk import MODEL, current, make_run, run_id
from tests.unit.tiny_exec import TinyExec
from trainer import publishing

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Give a verb on the store of this folder, as typed; return exit code, output and messages."""

    def typed(verb: str, *options: str) -> tuple[int, str, str]:
        code = main([verb, MODEL, "--output", str(tmp_path), *options])
        return code, *capsys.readouterr()

    return typed


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyExec:
    monkeypatch.setattr(transfer, "_PAUSE", 0.01)
    return TinyExec(tmp_path)


@pytest.fixture
def ask(remote: Remote, tmp_path: Path) -> Ask:
    return far_keeper(remote.cluster, remote.pod, str(tmp_path), MODEL)


def test_promoted_rolled_back_and_told(say: Say, tmp_path: Path) -> None:
    for number, verdict in ((1, "promoted"), (2, "better"), (3, "regressed")):
        make_run(tmp_path, number, verdict)
    assert say("promote", "--run", run_id(1))[0] == exit_codes.DONE
    code, _, words = say("promote")
    assert (code, f"--force --output {tmp_path}` promotes that run" in words) == (exit_codes.BAD_INPUT, True)
    assert "forced: its verdict is regressed" in say("promote", "--force", "--reason", "we want it")[1]
    assert f"{run_id(3)} is current already" in say("promote", "--force")[2]
    assert f"{run_id(1)} is current again" in say("rollback")[1]
    code, _, words = say("rollback")
    assert (code, "no earlier run" in words) == (exit_codes.BAD_INPUT, True)
    told = json.loads(say("history", "-o", "json")[1])
    assert (told["current"], told["finished"]) == (run_id(1), [run_id(1), run_id(2), run_id(3)])
    told = [(each["action"], each["run"], each["forced"], each["reason"]) for each in told["promotions"]]
    forced = ("promote", run_id(3), True, "we want it")
    assert told == [("promote", run_id(1), False, ""), forced, ("rollback", run_id(1), False, "")]
    table = say("history")[1]
    assert "promote --force" in table and "we want it" in table


@pytest.mark.parametrize(("verdict", "force"), [("promoted", []), ("regressed", ["--force"])])
def test_the_way_back_after_a_pointer_was_removed_by_hand(
    say: Say, tmp_path: Path, verdict: str, force: list[str]
) -> None:
    make_run(tmp_path, 1, verdict)
    assert say("promote", *force)[0] == exit_codes.DONE
    (tmp_path / "outputs" / MODEL / "current").unlink()
    code, _, words = say("rollback")
    way = " ".join(["promote", MODEL, "--run", run_id(1), *force])
    assert (code, f"with the store; `mtft-launch {way} --output {tmp_path}` puts it back" in words) == (
        exit_codes.BAD_INPUT,
        True,
    )
    assert f"nothing, although {run_id(1)} was promoted last" in say("history")[2]
    assert say("promote", "--run", run_id(1), *force)[0] == exit_codes.DONE
    (tmp_path / "outputs" / MODEL / "current").unlink()
    RunPaths.at(tmp_path, MODEL, run_id(1)).finished.unlink()
    assert "--run RUN-ID --force" in say("rollback")[2]


def test_no_run_whose_bytes_changed_is_offered_as_the_way_back(say: Say, tmp_path: Path) -> None:
    paths = make_run(tmp_path, 1)
    files.write_json(paths.finished, files.read_json(paths.finished) | {store.FILES: files.listing(paths.lora)})
    say("promote")
    (tmp_path / "outputs" / MODEL / "current").unlink()
    (paths.lora / "adapter_model.safetensors").write_bytes(b"Weights")
    code, _, words = say("rollback")
    assert (code, "--run RUN-ID --force" in words, run_id(1) in words) == (exit_codes.BAD_INPUT, True, False)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rubb\x1b[2Jish", "Expecting value"),
        ("[1]", "sequence"),
        ("{}", "missing 4 required"),
        ('{"at": "", "action": "promote", "previous": null, "run": "../x"}', "'../x' is not a run-id"),
        ('{"at": "", "action": "a\\u001b[2J", "previous": null, "run": "x"}', r"'a\x1b[2J' is no action"),
    ],
)
def test_what_history_lacks_is_told(say: Say, tmp_path: Path, text: str, why: str) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
        say("promote", "--run", run_id(number))
    code, out, err = say("history")
    assert (code, len(out.splitlines()), err) == (exit_codes.DONE, 3, f"current: {run_id(2)}\n")
    entry = tmp_path / "outputs" / MODEL / journal.FOLDER / "000001.json"
    entry.write_text(text)
    for options in ((), ("-o", "json")):
        code, out, err = say("history", *options)
        assert code == exit_codes.DONE and run_id(1) not in err and err.count("note: ") == 1
        assert f"note: {entry}: is no entry of a journal" in err and why in err and "\x1b" not in err
    (store.find(tmp_path, MODEL).lora / "adapter_model.safetensors").unlink()
    assert f"current: {run_id(2)} (gone)\n" in say("history")[2]


@pytest.mark.parametrize("line", [("rollback",), ("promote", "--run", run_id(3)), ("promote", "--run", run_id(2))])
def test_who_changes_a_store_is_told_what_of_its_history_is_damaged(
    say: Say, tmp_path: Path, line: tuple[str, ...]
) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, number)
    for number in (1, 2):
        say("promote", "--run", run_id(number))
    entry = tmp_path / "outputs" / MODEL / journal.FOLDER / "000001.json"
    entry.write_text("rubb\x1b[2Jish")
    code, _, err = say(*line)
    assert code == exit_codes.DONE and err.count("note: ") == 1 and "\x1b" not in err
    assert f"note: {entry}: is no entry of a journal" in err and "; the history lacks it" in err


def test_a_folder_with_the_name_of_an_entry_stops_no_verb(say: Say, tmp_path: Path) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
    folder = tmp_path / "outputs" / MODEL / journal.FOLDER / "000002.json"
    folder.mkdir(parents=True)
    for line in (("promote", "--run", run_id(1)), ("promote", "--run", run_id(2)), ("rollback",), ("history",)):
        code, _, err = say(*line)
        assert (code, err.count("note: ")) == (exit_codes.DONE, 1), err
        assert f"note: {folder}: is no entry of a journal: it is a folder; the history lacks it" in err
    assert [each.number for each in journal.read(folder.parent.parent)] == [1, 3, 4] and current(tmp_path) == run_id(1)


@pytest.mark.parametrize("gate", ["x", [1], {"verdict": ["promoted"]}, {"verdict": "promoted", "reasons": "x"}])
def test_a_verdict_that_cannot_be_understood_is_one_message(say: Say, tmp_path: Path, gate: object) -> None:
    paths = make_run(tmp_path, 1, gate=gate)
    code, _, err = say("promote", "--force")
    assert (code, f"{paths.finished}: its gate cannot be understood" in err) == (exit_codes.BAD_INPUT, True), err
    with pytest.raises(InputError, match="its gate cannot be understood"):
        publishing.settle(paths, None, print)
    assert current(tmp_path) is None


@pytest.mark.parametrize("verb", ["history", "promote", "rollback", "reproduce"])
def test_a_storage_root_that_is_not_there_is_told(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "typo", tmp_path / "file"):
        assert main([verb, MODEL, "--output", str(root)]) == exit_codes.BAD_INPUT
        assert f"--output: {root} is no folder" in capsys.readouterr().err
    assert main(["history", MODEL, "--output", str(tmp_path)]) == exit_codes.DONE
    assert "nothing is promoted" in capsys.readouterr().err


@pytest.mark.parametrize("line", [("reproduce", MODEL), ("history", MODEL)])
def test_a_store_here_is_offered_where_there_is_no_cluster(
    line: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    told = f"outputs/{MODEL} is a store on this machine: --backend local takes it"
    assert main([*line]) != exit_codes.DONE and told not in capsys.readouterr().err
    make_run(tmp_path, 1)
    assert main([*line]) != exit_codes.DONE and told in capsys.readouterr().err


def test_mistakes_are_told_in_words(say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line, words in (
        (("promote",), "holds no run of"),
        (("rollback",), "holds no run of"),
        (("history", "--backend", "kubernetes"), "--output names a storage root on this machine"),
    ):
        code, _, said = say(*line)
        assert (code, words in said) == (exit_codes.BAD_INPUT, True), said
    assert main(["history", "opus", "--output", str(tmp_path)]) == exit_codes.BAD_INPUT
    assert "opus" in capsys.readouterr().err
    make_run(tmp_path, 1)
    code, _, said = say("promote", "--run", "../../other")
    assert (code, "is not a run-id" in said) == (exit_codes.BAD_INPUT, True)
    (tmp_path / "outputs" / MODEL / "promotions").write_text("a file in the way")
    code, _, said = say("promote")
    assert (code, "promotions" in said, "Traceback" in said) == (exit_codes.BAD_INPUT, True, False)


def test_translate_takes_what_is_current(say: Say, tmp_path: Path) -> None:
    made = [make_run(tmp_path, number).folder for number in (1, 2)]
    assert find_run(tmp_path, MODEL, None) == made[1]
    say("promote", "--run", run_id(1))
    assert find_run(tmp_path, MODEL, None) == made[0]
    assert find_run(tmp_path, MODEL, run_id(2)) == made[1]
    assert find_run(tmp_path / "elsewhere", MODEL, str(made[1])) == made[1]
    with pytest.raises(InputError, match="is not a run-id"):
        find_run(tmp_path, MODEL, "..")


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"verdict": "regressed", "reasons": ["en-fr: chrf -9.00", "more"]}, "(regressed: en-fr: chrf -9.00)"),
        ({"verdict": "not better", "reasons": ["a\x1b[2J\n"]}, r"(not better: a\x1b[2J\n)"),
        ({"verdict": "promoted", "reasons": []}, "(promoted)"),
        (None, "(not judged)"),
        ("damaged", "(not judged)"),
    ],
)
def test_a_run_that_stands_in_while_nothing_is_promoted_is_named_with_its_verdict(
    gate: object,
    told: str,
    remote: Remote,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [make_run(tmp_path, number, gate=gate) for number in (1, 2)]
    monkeypatch.setattr("subprocess.run", lambda *_, **__: SimpleNamespace(returncode=0))

    def translate(*options: str) -> str:
        assert main(["translate", "--model", MODEL, "--output", str(tmp_path), *options]) == exit_codes.DONE
        return capsys.readouterr().err

    def fetch(*which: str) -> str:
        remote.ask("run", str(tmp_path), MODEL, *which)
        return capsys.readouterr().err

    note = f"nothing is promoted, so this is run {made[1].run_id}, the newest finished one {told}; users of the model"
    assert translate().startswith(f"note: {note}") and fetch().startswith(f"-- {note}")
    assert translate("--run", made[1].run_id) + translate("--base") + fetch("run", made[1].run_id) == ""
    (tmp_path / "outputs" / MODEL / "current").symlink_to(f"runs/{made[0].run_id}")
    assert translate() + fetch() == ""


def test_through_a_pod_each_is_done_once_though_its_answer_is_lost(ask: Ask, pod: TinyExec, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, number)
        ask("promote", run=run_id(number), who="anna", reason="", force=False)
    pod.cut_out = [7]
    again = ask("promote", run=run_id(1), who="anna", reason="", force=False)
    assert (again["changed"], again["run"]) == (False, run_id(1))
    ask("promote", run=run_id(3), who="anna", reason="", force=False)
    pod.cut_out = [7]
    answer = ask("rollback", who="anna", reason="", away_from=run_id(3))
    assert (answer["run"], answer["previous"]) == (run_id(1), run_id(3))
    assert current(tmp_path) == run_id(1)
    assert [each["run"][-1] for each in ask("history")["promotions"]] == list("123131")
    with pytest.raises(InputError, match="is not a run-id"):
        ask("promote", run="../x", who="anna", reason="", force=False)


def test_a_rollback_from_a_lost_run_is_done_once_though_its_answer_is_lost(
    ask: Ask, pod: TinyExec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def reached(*_: object, **__: object) -> Iterator[Ask]:
        yield ask

    for number in (1, 2, 3):
        paths = make_run(tmp_path, number)
        ask("promote", run=run_id(number), who="anna", reason="", force=False)
    (tmp_path / "outputs" / MODEL / "current").unlink()
    (paths.lora / "adapter_model.safetensors").unlink()
    monkeypatch.setattr(storekeeping, "reached", reached)
    pod.cut_out = [10_000, 7]  # history, rollback
    assert main(["rollback", MODEL]) == exit_codes.DONE and not pod.cut_out
    assert f"{run_id(2)} is current again (before: {run_id(3)})" in capsys.readouterr().out
    assert current(tmp_path) == run_id(2) and len(ask("history")["promotions"]) == 4


def point_by_link(folder: Path, target: str) -> None:
    (folder / "current").symlink_to(target)


def point_by_file(folder: Path, target: str) -> None:
    (folder / "current.json").write_text(json.dumps({"run": target}))


@pytest.mark.parametrize("point", [point_by_link, point_by_file])
@pytest.mark.parametrize(
    "target", [f"runs/{run_id(1)}", f"runs/{run_id(9)}", "runs/../..", "/etc", "runs/linked", None]
)
def test_fetch_and_translate_find_the_same_run(
    point: Callable[[Path, str], None], target: str | None, remote: Remote, tmp_path: Path
) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
    folder = tmp_path / "outputs" / MODEL
    (folder / "runs" / "linked").symlink_to(folder / "runs" / run_id(1))
    if target is not None:
        point(folder, target)

    def fetched() -> Any:
        return remote.ask("run", str(tmp_path), MODEL)[0]["folder"]

    if target in (None, f"runs/{run_id(1)}"):
        assert fetched() == str(store.find(tmp_path, MODEL).folder)
        return
    for look in (fetched, lambda: store.find(tmp_path, MODEL)):
        with pytest.raises(InputError):
            look()


def test_fetch_refuses_what_translate_refuses_and_takes_what_finished_last(remote: Remote, tmp_path: Path) -> None:
    late = make_run(tmp_path, 1, finished_at="2030-01-02T09:00:00Z")
    make_run(tmp_path, 2, finished_at="2030-01-02T08:00:00Z")
    for kind in ((), ("run", run_id(1))):
        assert remote.ask("run", str(tmp_path), MODEL, *kind)[0]["folder"] == str(late.folder)
    assert store.find(tmp_path, MODEL) == late
    (late.lora / "adapter_model.safetensors").unlink()
    for kind in ((), ("run", run_id(1))):
        with pytest.raises(InputError, match="holds no safetensors"):
            remote.ask("run", str(tmp_path), MODEL, *kind)
    with pytest.raises(InputError, match="holds no safetensors"):
        store.find(tmp_path, MODEL)
    (late.lora / "adapter_model.safetensors").symlink_to(tmp_path / "elsewhere")
    for kind in ((), ("run", run_id(1)), ("job", "mine")):
        runs.write_job(tmp_path, Job("mine", MODEL, run_id(1), "c", runs.now()))
        with pytest.raises(InputError, match=r"adapter_model\.safetensors: is a link"):
            remote.ask("run", str(tmp_path), MODEL, *kind)


def test_what_is_done_is_told_though_the_pod_cannot_be_deleted(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def reached(*_: object, **__: object) -> Iterator[Ask]:
        yield ask
        raise InputError("the pod could not be deleted")

    for number in (1, 2):
        make_run(tmp_path, number)
    monkeypatch.setattr(storekeeping, "reached", reached)
    for line, told in (
        (["promote", MODEL, "--run", run_id(1)], f"{run_id(1)} is current now"),
        (["promote", MODEL, "--run", run_id(2)], f"{run_id(2)} is current now"),
        (["rollback", MODEL], f"{run_id(1)} is current again"),
    ):
        assert main(line) == exit_codes.BAD_INPUT
        said = capsys.readouterr()
        assert told in said.out and "could not be deleted" in said.err


def test_a_store_that_another_keeps_is_waited_for_with_a_word(
    say: Say, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, 1)
    kept = tmp_path / "outputs" / MODEL / ".store.lease"
    kept.write_text(json.dumps({"owner": "far:17:x", "expires": 9e9}))
    monkeypatch.setattr(promotion, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(lease, "_QUIET_SECONDS", 0.0)
    for verb in ("promote", "rollback"):
        assert "note: waiting for process 17 on far, which holds" in say(verb)[2]

    def told(text: str, **_: object) -> None:
        assert text.startswith("-- waiting for process 17 on far, which holds")
        kept.unlink()

    monkeypatch.setattr(transfer, "print", told, raising=False)
    assert ask("promote", run=None, who="anna", reason="", force=False)["changed"] and not kept.exists()


def test_a_run_id_is_looked_at_before_a_pod_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", MODEL, "--run", "../x", "--context", "none-of-these"]) == exit_codes.BAD_INPUT
    assert "is not a run-id" in capsys.readouterr().err


def test_a_run_of_another_model_is_not_translated_with(tmp_path: Path) -> None:
    make_run(tmp_path, 1, "promoted")
    folder = store.find(tmp_path, MODEL).folder
    (folder / "finished.json").write_text(json.dumps({"model": MODEL, "deliverable": "lora"}))
    assert find_run(tmp_path, MODEL, str(folder)) == folder
    with pytest.raises(InputError, match=f"is a run of {MODEL}, not of"):
        find_run(tmp_path, "m2m100_418m" if MODEL != "m2m100_418m" else "opus_mt_en_fr", str(folder))
