"""Checkpoints: complete or absent, safetensors and JSON only.

``checkpoints/step-<n>/`` holds the trainable weights, the optimizer, each rank's random state and the
run's state. ``manifest.json``, with the size and SHA-256 of every file, is written last; then the
folder gets its name. A folder that does not match its manifest is not a checkpoint.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtft import files
from mtft.errors import InputError
from trainer.distributed import World
from trainer.loop import Loop
from trainer.state import State

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: ``checkpoints/`` of the run.
        keep: complete checkpoints kept besides the best.
        config_hash: hash of the settings that shape the training; another one is refused on loading.
    """

    folder: Path
    keep: int
    config_hash: str

    def save(self, loop: Loop, state: State, world: World) -> None:
        """Write a checkpoint of this step and drop those no longer kept; every rank has to call it."""
        random = world.gather(_random_state(world.device))
        if world.is_main:
            self._write(loop, state, random)
            self._retain(state.step, state.best.step)
        world.barrier()

    def latest(self) -> Path | None:
        """Return the newest complete checkpoint; incomplete ones are passed over."""
        return next((path for _, path in sorted(self._named(), reverse=True) if is_complete(path)), None)

    def load(self, path: Path, loop: Loop, world: World) -> State:
        """Put a checkpoint's weights, optimizer, schedule and random state in place and return its state.

        Raises:
            InputError: it was written under other settings.
        """
        values = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if values["config_hash"] != self.config_hash:
            raise InputError(
                f"checkpoint {path.name} was written with other training settings; "
                "start another run, or set checkpoint.resume to 'never'"
            )
        state = State.from_dict(values["state"])
        load_weights(path, loop.parameters)
        _load_optimizer(loop, load_file(path / "optimizer.safetensors"))
        loop.start(state.total_steps)
        assert loop.scheduler is not None
        # The schedule's functions are the configuration's, never a file's.
        loop.scheduler.load_state_dict({**values["scheduler"], "lr_lambdas": [None] * len(loop.optimizer.param_groups)})
        for group, rate in zip(loop.optimizer.param_groups, values["scheduler"]["_last_lr"], strict=True):
            group["lr"] = rate
        loop.scaler.load_state_dict(values["scaler"])
        random = path / f"random-{world.rank}.safetensors"
        if random.exists():  # absent on a rank that the earlier world did not have
            _restore_random(load_file(random), world.device)
        return state

    def _write(self, loop: Loop, state: State, random: list[dict[str, Tensor]]) -> None:
        assert loop.scheduler is not None
        temporary = self.folder / f".step-{state.step}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        weights = {name: parameter.detach().contiguous() for name, parameter in loop.parameters.items()}
        save_file(weights, temporary / "weights.safetensors")
        save_file(_optimizer_tensors(loop), temporary / "optimizer.safetensors")
        for rank, tensors in enumerate(random):
            save_file(tensors, temporary / f"random-{rank}.safetensors")
        schedule = {key: value for key, value in loop.scheduler.state_dict().items() if key != "lr_lambdas"}
        values = {
            "config_hash": self.config_hash,
            "state": state.to_dict(),
            "scheduler": schedule,
            "scaler": loop.scaler.state_dict(),
        }
        files.write_json(temporary / "state.json", values)
        _seal(temporary)
        files.publish_folder(temporary, self.folder / f"step-{state.step}")

    def _retain(self, newest: int, best: int) -> None:
        named = sorted(self._named(), reverse=True)
        # What is newer than the checkpoint just written was damaged, or the run would have gone on from there.
        kept = {step for step, _ in named if step <= newest}
        kept = {*sorted(kept)[-self.keep :], best}
        for step, path in named:
            if step not in kept:
                shutil.rmtree(path, ignore_errors=True)
        for leftover in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _named(self) -> list[tuple[int, Path]]:
        found = [(_NAME.fullmatch(path.name), path) for path in self.folder.glob("step-*")]
        return [(int(match[1]), path) for match, path in found if match]


def is_complete(path: Path) -> bool:
    """Whether every file of a checkpoint is there with the size and SHA-256 of its manifest."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return all(
            (path / name).stat().st_size == entry["size"] and files.sha256_file(path / name) == entry["sha256"]
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def load_weights(path: Path, parameters: dict[str, nn.Parameter]) -> None:
    """Copy a checkpoint's trainable weights into the model.

    Raises:
        InputError: names or shapes differ.
    """
    weights = load_file(path / "weights.safetensors")
    if {name: tuple(w.shape) for name, w in weights.items()} != {n: tuple(p.shape) for n, p in parameters.items()}:
        raise InputError(f"checkpoint {path.name} holds other weights than this method and base train")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def _seal(folder: Path) -> None:
    entries: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        entries[path.name] = {"size": path.stat().st_size, "sha256": files.sha256_file(path)}
    files.write_json(folder / MANIFEST, {"files": entries})


def _optimizer_tensors(loop: Loop) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in loop.parameters.items():
        for field, value in loop.optimizer.state.get(parameter, {}).items():
            tensors[f"{field}/{name}"] = torch.as_tensor(value).detach().clone().contiguous()
    return tensors


def _load_optimizer(loop: Loop, tensors: dict[str, Tensor]) -> None:
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
