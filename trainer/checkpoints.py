"""Checkpoints: complete or absent, safetensors and JSON only.

``checkpoints/step-<n>/`` holds the trainable weights, the optimizer, each rank's random state and the
run's state. ``manifest.json``, with the size and SHA-256 of every file, is written last; then the
folder gets its name. A folder that does not match its manifest is not a checkpoint.
"""

from __future__ import annotations

import errno
import json
import math
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mtft import files
from mtft.errors import Diverged, InputError, error_number
from mtft.fields import fields
from mtft.naming import differences
from mtft.paths import flattened
from trainer.distributed import World
from trainer.loop import Loop
from trainer.reasons import is_disk_full
from trainer.state import State
from trainer.weights import read_tensors

MANIFEST = "manifest.json"
STATE = "state.json"
_NAME = re.compile(r"step-(\d+)")
_ROOM_FOR_THE_REST = 1 << 20  # bytes: headers, state and manifest


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: ``checkpoints/`` of the run.
        keep: complete checkpoints kept besides the best.
        settings: what shapes the training, as flat names and values; others are refused on loading.
    """

    folder: Path
    keep: int
    settings: dict[str, Any]

    def save(self, loop: Loop, state: State, world: World) -> None:
        """Write a checkpoint of this step and drop those no longer kept; every rank has to call it.

        Raises:
            Diverged: a weight is not a finite number; nothing was written.
            OSError: the volume has no room for it, or failed; what was written before stays.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in loop.parameters.values()):
            raise Diverged(f"training diverged: a trained weight is not a finite number after step {state.step}")
        random = world.gather(_random_state(world.device))
        if world.is_main:
            self._write(loop, state, random)
            self._retain(state.step, state.best.step)
        world.barrier()

    @contextmanager
    def named_when_full(self) -> Iterator[None]:
        """Let an error of a volume that has no room, whatever was written, say from where the next start goes on."""
        try:
            yield
        except Exception as error:
            if not is_disk_full(error):
                raise
            named = sorted(self._named(), reverse=True)
            kept = f"{named[0][1].name} stays, the next start goes on there" if named else "there is no checkpoint yet"
            # As OSError shows them, but for the number, which the one raised here shows again.
            file = f": {error.filename!r}" if isinstance(error, OSError) and error.filename else ""
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise OSError(error_number(error) or errno.ENOSPC, f"{text}{file}; {kept}") from error

    def latest(self, until: float = math.inf) -> Path | None:
        """Return the newest complete checkpoint, of this step or an earlier one; incomplete ones are passed over.

        Raises:
            OSError: the volume does not answer.
        """
        named = sorted(self._named(), reverse=True)
        return next((path for step, path in named if step <= until and is_complete(path)), None)

    def damaged_after(self, chosen: Path | None) -> list[str]:
        """Return the names of the checkpoints that were passed over for an older one, or for none."""
        oldest = -1 if chosen is None else int(chosen.name.removeprefix("step-"))
        return [path.name for step, path in sorted(self._named()) if step > oldest]

    def load(self, path: Path, loop: Loop, world: World) -> State:
        """Put a checkpoint's weights, optimizer, schedule and random state in place and return its state.

        Raises:
            InputError: it was written under other settings, or by another version of mtft.
        """
        values = json.loads((path / STATE).read_text(encoding="utf-8"))
        if differing := _differing(values.get("settings", {}), self.settings):
            raise InputError(
                f"checkpoint {path.name} was written with other training settings ({'; '.join(differing)}); "
                "start another run with --rerun"
            )
        try:
            state = State.from_dict(values["state"])
        except (TypeError, KeyError) as error:
            raise InputError(
                f"checkpoint {path.name} was written by another version of mtft ({error}); go on with that one's "
                "image, or start another run with --rerun"
            ) from None
        load_weights(path, loop.parameters)
        _load_optimizer(loop, read_tensors(path / "optimizer.safetensors"))
        loop.start(state.total_steps, state.rate_factor, taken=values["schedule"])
        loop.scaler.load_state_dict(values["scaler"])
        random = path / f"random-{world.rank}.safetensors"
        if random.exists():  # absent on a rank that the earlier world did not have
            _restore_random(read_tensors(random), world.device)
        return state

    def _write(self, loop: Loop, state: State, random: list[dict[str, Tensor]]) -> None:
        assert loop.scheduler is not None
        weights = {name: parameter.detach().contiguous() for name, parameter in loop.parameters.items()}
        tensors = {"weights": weights, "optimizer": _optimizer_tensors(loop)}
        tensors |= {f"random-{rank}": its for rank, its in enumerate(random)}
        values = {
            "settings": self.settings,
            "state": state.to_dict(),
            "schedule": loop.scheduler.last_epoch,
            "scaler": loop.scaler.state_dict(),
        }
        temporary = self.folder / f".step-{state.step}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            self._check_room(temporary, tensors)
            for name, its in tensors.items():
                save_file(its, temporary / f"{name}.safetensors")
            files.write_json(temporary / STATE, values)
            _seal(temporary)
            files.publish_folder(temporary, self.folder / f"step-{state.step}")
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # a volume that is full needs its room

    def _check_room(self, folder: Path, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Ask for the room before anything is written: a volume that fills up hurts every other job on it."""
        needed = sum(tensor.numel() * tensor.element_size() for its in tensors.values() for tensor in its.values())
        free = shutil.disk_usage(folder).free
        if free < needed + _ROOM_FOR_THE_REST:
            text = f"No space left on device for a checkpoint of {_mib(needed)}: {_mib(free)} are free"
            raise OSError(errno.ENOSPC, text)

    def drop_after(self, step: int) -> None:
        """Drop every checkpoint that is newer than one that the run goes back to; one rank calls it.

        Raises:
            OSError: the volume does not answer.
        """
        for number, path in self._named():
            if number > step:
                self._drop(number, path)

    def _retain(self, newest: int, best: int) -> None:
        named = sorted(self._named(), reverse=True)
        # What is newer than the checkpoint just written was damaged, or the run would have gone on from there.
        kept = {step for step, _ in named if step <= newest}
        kept = {*sorted(kept)[-self.keep :], *([best] if best else [])}  # step 0 is the untouched base
        for leftover in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        for step, path in named:
            if step not in kept:
                self._drop(step, path)

    def _drop(self, step: int, path: Path) -> None:
        # Without its name first: a kill in the middle leaves nothing that looks like a checkpoint.
        aside = path.rename(self.folder / f".step-{step}.tmp")
        shutil.rmtree(aside, ignore_errors=True)

    def _named(self) -> list[tuple[int, Path]]:
        # Not glob(), which passes over a folder that cannot be listed.
        paths = list(self.folder.iterdir()) if self.folder.exists() else []
        found = [(_NAME.fullmatch(path.name), path) for path in paths]
        return [(int(match[1]), path) for match, path in found if match]


def is_complete(path: Path) -> bool:
    """Whether every file of a checkpoint is there with the size and SHA-256 of its manifest.

    Raises:
        OSError: the volume does not answer, which says nothing about the checkpoint: what is damaged is deleted.
    """
    try:
        listed = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        return STATE in listed and files.damage(path, listed, hashed=True) is None
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return False


def load_weights(path: Path, parameters: dict[str, nn.Parameter]) -> None:
    """Copy a checkpoint's trainable weights into the model.

    Raises:
        InputError: names or shapes differ.
    """
    weights = read_tensors(path / "weights.safetensors")
    if {name: tuple(w.shape) for name, w in weights.items()} != {n: tuple(p.shape) for n, p in parameters.items()}:
        raise InputError(f"checkpoint {path.name} holds other weights than this method and base train")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Name the settings that differ; one that came after the checkpoint had its built-in value then."""
    olds, news = ({".".join(path): value for path, value in flattened(each).items()} for each in (before, now))
    added = {name: field for name in news.keys() - olds.keys() if (field := fields().get(name))}
    return differences({name: its.default for name, its in added.items() if not its.required} | olds, news)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _seal(folder: Path) -> None:
    files.write_json(folder / MANIFEST, {"files": files.listing(folder)})


def _optimizer_tensors(loop: Loop) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in loop.parameters.items():
        for field, value in loop.optimizer.state.get(parameter, {}).items():
            tensors[f"{field}/{name}"] = torch.as_tensor(value).detach().contiguous()
    return tensors


def _load_optimizer(loop: Loop, tensors: dict[str, Tensor]) -> None:
    loop.optimizer.state.clear()  # there is something when a run goes back to a checkpoint
    for key, value in tensors.items():
        field, name = key.split("/", 1)
        parameter = loop.parameters[name]
        # AdamW counts steps on the CPU unless it is fused.
        on_device = field != "step" or parameter.device.type == "cuda"
        loop.optimizer.state[parameter][field] = value.to(parameter.device) if on_device else value


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore_random(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
