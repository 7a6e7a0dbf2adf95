"""Checkpoints: a run that was cut in two equals one that was not; nothing damaged is ever taken for one."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from demo.corpus import Pair
from mtft import exit_codes
from mtft.errors import Diverged, InputError
from mtft.runs import RunPaths
from tests.trainer.helpers import ALONE, KEYS, Setup, build, make_config, new_state
from trainer import checkpoints as module
from trainer import session as session_module
from trainer.checkpoints import Checkpoints, is_complete
from trainer.loop import Loop
from trainer.reasons import explain
from trainer.session import Session
from trainer.state import BestScore, State

Standins = Callable[[str], Path]
STEPS, CUT = 7, 3


def fresh(standins: Standins, pairs: list[Pair], family: str = "mbart50", method: str = "lora") -> Setup:
    """Return a setup with dropout, so that the random state matters."""
    return build(KEYS[family], standins(family), pairs, method=method, dropout=True, lora={"dropout": 0.1})


def begin(setup: Setup) -> tuple[Loop, State]:
    loop = setup.loop(STEPS)
    torch.manual_seed(11)
    return loop, new_state(loop, bins_per_step=2, bin_tokens=300, steps=STEPS)


def store(folder: Path, keep: int = 2) -> Checkpoints:
    return Checkpoints(folder=folder / "checkpoints", keep=keep, settings={"train.seed": 1, "method": "lora"})


@pytest.fixture(scope="module")
def sealed(
    standins: Standins, short_text: list[Pair], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Setup, Loop]:
    """Give a folder with the complete checkpoints step-3 and step-5; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("sealed")
    setup = fresh(standins, short_text)
    loop, state = begin(setup)

    def save(state: State, _: object) -> None:
        if state.step in (3, 5):
            store(folder).save(loop, state, ALONE)

    loop.run(state, save)
    return folder, setup, loop


@pytest.fixture
def copied(sealed: tuple[Path, Setup, Loop], tmp_path: Path) -> Checkpoints:
    """Give a copy of those checkpoints that a test may damage."""
    shutil.copytree(sealed[0] / "checkpoints", tmp_path / "checkpoints")
    return store(tmp_path)


class TestResume:
    @pytest.mark.parametrize(("family", "method"), [("mbart50", "lora"), ("marian", "full"), ("m2m100", "qlora")])
    def test_continues_bit_by_bit(
        self, family: str, method: str, standins: Standins, short_text: list[Pair], tmp_path: Path
    ) -> None:
        """Weights, losses, rates, gradient norms and order of rows, dropout included, over an epoch's end."""
        losses: list[tuple[float, ...]] = []

        def note(state: State, result: object) -> None:
            losses.append(
                tuple(getattr(result, name) for name in ("loss", "nll", "grad_norm", "learning_rate", "rows"))
            )
            if state.step == CUT and not list(tmp_path.iterdir()):
                store(tmp_path).save(loop, state, ALONE)

        loop, state = begin(fresh(standins, short_text, family, method))
        assert CUT < state.steps_per_epoch < STEPS
        loop.run(state, note)
        unbroken, expected = losses[CUT:], {name: p.detach().clone() for name, p in loop.parameters.items()}

        losses.clear()
        torch.manual_seed(999)
        setup = fresh(standins, short_text, family, method)
        loop = Loop(setup.config, ALONE, setup.model, setup.rows, torch.float32)
        latest = store(tmp_path).latest()
        assert latest is not None
        state = store(tmp_path).load(latest, loop, ALONE)
        assert (state.step, state.rows > 0) == (CUT, True)
        loop.run(state, note)
        assert losses == unbroken
        assert all(torch.equal(parameter, expected[name]) for name, parameter in loop.parameters.items())

    def test_keeps_state_of_early_stopping(self, sealed: tuple[Path, Setup, Loop], tmp_path: Path) -> None:
        _, setup, loop = sealed
        state = new_state(loop, bins_per_step=2, bin_tokens=400, steps=STEPS)
        state.step, state.best = 4, BestScore(value=2.25, step=2, waited=1)
        store(tmp_path).save(loop, state, ALONE)
        found = store(tmp_path).latest()
        assert found is not None
        assert store(tmp_path).load(found, setup.loop(STEPS), ALONE) == state

    def test_holds_no_pickle(self, sealed: tuple[Path, Setup, Loop]) -> None:
        names = {path.name for path in (sealed[0] / "checkpoints" / "step-5").iterdir()}
        tensors = {"weights.safetensors", "optimizer.safetensors", "random-0.safetensors"}
        assert names == tensors | {"state.json", "manifest.json"}

    def test_of_other_settings_is_refused_with_what_differs(
        self, copied: Checkpoints, sealed: tuple[Path, Setup, Loop]
    ) -> None:
        other = replace(copied, settings={"train.seed": 2, "method": "lora"})
        # Not by checkpoint.resume: a job whose configuration changes is refused before it comes here.
        wanted = r"step-5 was written .* \(train\.seed was 1, is 2\); start another run with --rerun$"
        with pytest.raises(InputError, match=wanted):
            other.load(other.folder / "step-5", sealed[1].loop(STEPS), ALONE)

    def test_of_a_version_with_fewer_settings_is_taken_where_the_newer_ones_change_nothing(
        self, copied: Checkpoints, sealed: tuple[Path, Setup, Loop]
    ) -> None:
        def load(**newer: float) -> State:
            settings = {**copied.settings, **{f"train.{name}": value for name, value in newer.items()}}
            return replace(copied, settings=settings).load(copied.folder / "step-5", sealed[1].loop(STEPS), ALONE)

        assert load(label_smoothing=0.1).step == 5
        with pytest.raises(InputError, match=r"\(train\.label_smoothing was 0\.1, is 0\.2\)"):
            load(label_smoothing=0.2)
        with pytest.raises(InputError, match=r"\(train\.unheard_of was not given, is 1\)"):
            load(unheard_of=1)

    def test_of_a_version_with_more_state_is_refused(
        self, copied: Checkpoints, sealed: tuple[Path, Setup, Loop]
    ) -> None:
        path = copied.folder / "step-5" / "state.json"
        values = json.loads(path.read_text())
        values["state"]["unheard_of"] = 1
        path.write_text(json.dumps(values))
        with pytest.raises(InputError, match=r"another version of mtft \(.*unheard_of.*--rerun$"):
            copied.load(path.parent, sealed[1].loop(STEPS), ALONE)

    def test_of_another_model_is_refused(self, copied: Checkpoints, standins: Standins, short_text: list[Pair]) -> None:
        loop = fresh(standins, short_text, method="full").loop(STEPS)
        with pytest.raises(InputError, match="step-5 holds other weights than this method and base train"):
            copied.load(copied.folder / "step-5", loop, ALONE)


def truncate(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip_one_bit(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def lose_a_file(folder: Path) -> None:
    (folder / "random-0.safetensors").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def cut_the_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:-20])


def empty_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def change_the_state(folder: Path) -> None:
    path = folder / "state.json"
    path.write_text(path.read_text().replace('"total_steps": 7', '"total_steps": 8'))


def list_nothing(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"files": {}}')


def turn_into_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


DAMAGE = [
    truncate,
    flip_one_bit,
    lose_a_file,
    lose_the_manifest,
    cut_the_manifest,
    empty_the_manifest,
    change_the_state,
    list_nothing,
    turn_into_a_file,
]


class TestLatest:
    def test_is_the_newest_by_number(self, copied: Checkpoints) -> None:
        assert copied.latest() == copied.folder / "step-5"
        shutil.copytree(copied.folder / "step-5", copied.folder / "step-10")
        assert copied.latest() == copied.folder / "step-10"

    @pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: str(damage.__name__))
    def test_passes_over_a_damaged_one(self, copied: Checkpoints, damage: Callable[[Path], None]) -> None:
        damage(copied.folder / "step-5")
        assert not is_complete(copied.folder / "step-5")
        assert copied.latest() == copied.folder / "step-3"
        assert copied.damaged_after(copied.folder / "step-3") == ["step-5"]
        damage(copied.folder / "step-3")
        assert copied.latest() is None and copied.damaged_after(None) == ["step-3", "step-5"]

    @pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), OSError(errno.ESTALE, "stale")])
    @pytest.mark.parametrize("where", ["pathlib.Path.iterdir", "pathlib.Path.read_text", "mtft.files.sha256_file"])
    def test_takes_a_volume_that_does_not_answer_for_no_damage(
        self, copied: Checkpoints, monkeypatch: pytest.MonkeyPatch, where: str, error: OSError
    ) -> None:
        def fails(*_: object, **__: object) -> None:
            raise error

        with monkeypatch.context() as volume:
            volume.setattr(where, fails)
            with pytest.raises(OSError, match=error.strerror) as raised:
                copied.latest()
        assert explain(raised.value, rank=0).exit_code == exit_codes.RETRY
        assert copied.latest() == copied.folder / "step-5"

    def test_passes_over_what_is_no_checkpoint(self, copied: Checkpoints) -> None:
        for name in (".step-9.tmp", "step-9x", "step-", "step-5-old"):
            shutil.copytree(copied.folder / "step-5", copied.folder / name)
        assert copied.latest() == copied.folder / "step-5"

    def test_there_is_none_before_the_first(self, tmp_path: Path) -> None:
        assert store(tmp_path).latest() is None


class TestWriting:
    @pytest.mark.parametrize("at", [1, 2, 3])
    def test_a_failed_write_leaves_nothing_visible(
        self, copied: Checkpoints, sealed: tuple[Path, Setup, Loop], at: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls: list[object] = []

        def full_disk(*arguments: object) -> None:
            calls.append(arguments)
            if len(calls) == at:
                raise OSError(28, "No space left on device")
            save_file(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(module, "save_file", full_disk)
        _, _, loop = sealed
        state = new_state(loop, bins_per_step=2, bin_tokens=400, steps=9)
        state.step = 6
        with pytest.raises(OSError, match="No space left"):
            copied.save(loop, state, ALONE)
        assert not (copied.folder / "step-6").exists()
        assert copied.latest() == copied.folder / "step-5"
        monkeypatch.undo()
        copied.save(loop, state, ALONE)
        assert copied.latest() == copied.folder / "step-6"
        assert {path.name for path in copied.folder.iterdir()} == {"step-5", "step-6"}

    def test_a_weight_that_is_no_number_is_never_written(
        self, copied: Checkpoints, sealed: tuple[Path, Setup, Loop], standins: Standins, short_text: list[Pair]
    ) -> None:
        loop, state = begin(fresh(standins, short_text))
        state.step = 6
        with torch.no_grad():
            next(iter(loop.parameters.values())).view(-1)[-1] = torch.inf
        with pytest.raises(Diverged, match="weight is not a finite number after step 6"):
            copied.save(loop, state, ALONE)
        assert {path.name for path in copied.folder.iterdir()} == {"step-3", "step-5"}

    def test_asks_for_the_room_before_it_writes(
        self, copied: Checkpoints, sealed: tuple[Path, Setup, Loop], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = shutil.disk_usage(copied.folder)._replace(free=1 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        monkeypatch.setattr(module, "save_file", pytest.fail)
        state = new_state(sealed[2], bins_per_step=2, bin_tokens=400, steps=9)
        state.step = 6
        said = pytest.raises(OSError, match=r"No space .* of [\d.]+ MiB: 1\.0 MiB are free; step-5 stays")
        with said as found, copied.named_when_full():
            copied.save(sealed[2], state, ALONE)
        assert explain(found.value, 0).kind == "input"
        assert {path.name for path in copied.folder.iterdir()} == {"step-3", "step-5"}

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (
                OSError(errno.ENOSPC, "No space left on device", "/a/.lora.tmp/x"),
                "device: '/a/.lora.tmp/x'; step-5 stays",
            ),
            (OSError(errno.EROFS, "Read-only file system"), "system; step-5 stays, the next start goes on there"),
            (SafetensorError("I/O error: No space left on device (os error 28)"), "error 28); step-5 stays"),
        ],
    )
    def test_is_named_where_anything_else_finds_the_volume_full(
        self, copied: Checkpoints, error: Exception, said: str
    ) -> None:
        with pytest.raises(OSError, match=re.escape(said)) as found, copied.named_when_full():
            raise error
        assert explain(found.value, 0).kind == "input"
        with pytest.raises(ValueError, match="another"), copied.named_when_full():
            raise ValueError("another")

    @pytest.mark.parametrize("phase", ["_record_precision", "_train", "_finish"])
    def test_is_named_in_every_phase_of_a_run(
        self, copied: Checkpoints, monkeypatch: pytest.MonkeyPatch, standins: Standins, phase: str
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        run = Mock(paths=RunPaths.of(copied.folder.parent), config=make_config("opus_mt_en_fr", standins("marian")))
        session = Session.__new__(Session)
        session.prepared_run, session.config, session.paths, session.world = run, run.config, run.paths, ALONE
        for name in ("_record_precision", "_reporter", "_open_rows", "_train", "_finish"):
            monkeypatch.setattr(Session, name, full if name == phase else lambda *_: nullcontext())
        monkeypatch.setattr(Session, "_base_and_outputs", lambda _: (None, None))
        for name in ("make_trainable", "Loop"):
            monkeypatch.setattr(session_module, name, Mock())
        session.card, session.rows, session.dtype = Mock(), Mock(), torch.float32
        with pytest.raises(OSError, match="step-5 stays, the next start goes on there"):
            session.run()

    def test_manifest_lists_every_other_file(self, copied: Checkpoints) -> None:
        folder = copied.folder / "step-5"
        listed = json.loads((folder / "manifest.json").read_text())["files"]
        assert {*listed, "manifest.json"} == {path.name for path in folder.iterdir()}


class TestRetention:
    def save(self, folder: Path, loop: Loop, steps: list[int], *, keep: int, best: int = 0) -> set[str]:
        for step in steps:
            state = new_state(loop, bins_per_step=2, bin_tokens=400, steps=99)
            state.step, state.best = step, BestScore(value=1.0, step=best)
            store(folder, keep).save(loop, state, ALONE)
        return {path.name for path in (folder / "checkpoints").iterdir()}

    def test_keeps_the_last_ones_and_the_best(self, sealed: tuple[Path, Setup, Loop], tmp_path: Path) -> None:
        kept = self.save(tmp_path, sealed[2], [2, 8, 9, 10, 11], keep=2, best=2)
        assert kept == {"step-2", "step-10", "step-11"}

    def test_the_first_one_goes_when_later_ones_are_there(
        self, sealed: tuple[Path, Setup, Loop], tmp_path: Path
    ) -> None:
        assert self.save(tmp_path, sealed[2], [0], keep=2) == {"step-0"}
        assert self.save(tmp_path, sealed[2], [4, 8], keep=2) == {"step-4", "step-8"}

    def test_the_best_may_be_among_the_last(self, sealed: tuple[Path, Setup, Loop], tmp_path: Path) -> None:
        assert self.save(tmp_path, sealed[2], [8, 9, 10], keep=1, best=10) == {"step-10"}

    def test_one_that_is_half_deleted_has_no_name_of_a_checkpoint(
        self, sealed: tuple[Path, Setup, Loop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as killed:
            killed.setattr(shutil, "rmtree", lambda *_, **__: None)
            kept = self.save(tmp_path, sealed[2], [8, 9, 10], keep=1)
        assert {name for name in kept if name.startswith("step-")} == {"step-10"}
        assert self.save(tmp_path, sealed[2], [11], keep=1) == {"step-11"}

    def test_a_damaged_newer_one_does_not_push_out_a_good_one(
        self, sealed: tuple[Path, Setup, Loop], tmp_path: Path
    ) -> None:
        """The run went on from before it, so what is written next has a smaller number."""
        self.save(tmp_path, sealed[2], [10, 20], keep=2)
        truncate(tmp_path / "checkpoints" / "step-20")
        assert self.save(tmp_path, sealed[2], [15], keep=2) == {"step-10", "step-15"}
        truncate(tmp_path / "checkpoints" / "step-15")
        assert store(tmp_path).latest() == tmp_path / "checkpoints" / "step-10"
