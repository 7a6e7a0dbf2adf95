"""What every rank measures, started as ``torchrun --nproc-per-node 3 -m tests.trainer.multirank SPEC.json OUT``.

One start serves two world sizes: three ranks measure, the last one leaves, two measure again. A test measures alone
in its own process and compares.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

from demo.corpus import Pair
from mtft import files
from mtft.config import EarlyStoppingConfig
from tests.trainer.helpers import (
    FAMILIES,
    KEYS,
    Setup,
    build,
    make_config,
    new_state,
    segments_of,
    split,
    step_gradient,
    stir_adapters,
    train,
)
from trainer import metrics
from trainer.batching import Rows
from trainer.checkpoints import Checkpoints
from trainer.collate import Batch
from trainer.distributed import World, joined_world
from trainer.evaluation import mean_nll
from trainer.generation import Decoding, translate
from trainer.loop import StepResult
from trainer.loss import LossSums
from trainer.state import BestScore, State

# 16 rows as (bins, in which ranks x rounds they are) by world size; uneven last rounds on purpose.
LAYOUTS = {1: (1, 2), 2: (2, 4, 5), 3: (4, 5)}
METHODS = ("lora", "full")
BINS_PER_STEP, BIN_TOKENS = 4, 200
WALK_FAMILY = "m2m100"  # its checkpoints ask for dropped layers, on which ranks would wait for each other
SAVED_AT = 2
RULE = EarlyStoppingConfig(metric="nll", patience=2, threshold=0.9)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is measured.

    Attributes:
        folders: stand-in of each family.
        practised: checkpoints that translate ``learned``, by family.
        pairs: training rows.
        learned: pairs to translate.
    """

    folders: dict[str, str]
    practised: dict[str, str]
    pairs: list[Pair]
    learned: list[Pair]

    def write(self, path: Path) -> None:
        """Write the specification for the other processes."""
        files.write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Spec:
        """Read what :meth:`write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        pairs, learned = ([Pair(*each) for each in values.pop(name)] for name in ("pairs", "learned"))
        return cls(pairs=pairs, learned=learned, **values)


def measure(world: World, spec: Spec, out: Path) -> dict[str, Any]:
    """Return everything the ranks are compared by; gradients go to ``out`` as safetensors."""
    return {
        "gradients": {
            f"{family}-{method}": _gradients(world, spec, out, family, method)
            for family in FAMILIES
            for method in METHODS
        },
        "walk": _walk(world, spec, out),
        "resumed": _resume(world, spec, out),
        "early": _stop_early(world, spec),
        "translations": {family: _translate(world, spec, family) for family in spec.practised},
        "qlora": _train_quantised(world, spec),
    }


def _setup(world: World, spec: Spec, family: str, **options: Any) -> Setup:
    return build(KEYS[family], spec.folders[family], spec.pairs, world=world, **options)


def _gradients(world: World, spec: Spec, out: Path, family: str, method: str) -> dict[str, Any]:
    setup = _setup(world, spec, family, method=method)
    stir_adapters(setup.model)
    found = {}
    for bins in LAYOUTS[world.size]:
        result, gradient = step_gradient(setup, split(16, bins))
        found[str(bins)] = {"loss": result.loss, "nll": result.nll, "grad_norm": result.grad_norm}
        if world.is_main:
            save_file(gradient, gradient_file(out, world.size, bins, family, method))
    return found


def gradient_file(out: Path, size: int, bins: int, family: str, method: str) -> Path:
    """Return where the gradient of one layout is."""
    return out / f"gradient-{size}-{bins}-{family}-{method}.safetensors"


def _walk(world: World, spec: Spec, out: Path) -> dict[str, Any]:
    """Train one epoch; note which rows this rank learned from, and whether all hear that one was asked to stop."""
    setup = _setup(world, spec, WALK_FAMILY)
    loop = setup.loop(20)
    state = new_state(loop, bins_per_step=BINS_PER_STEP, bin_tokens=BIN_TOKENS, steps=20)
    state.total_steps = state.steps_per_epoch
    read, accumulate = setup.rows.batch, loop.accumulate
    last: list[int] = []
    learned: list[int] = []

    def note_rows(rows: Rows) -> Batch:
        last[:] = rows.tolist()
        return read(rows)

    def note_weight(batch: Batch, weight: float) -> LossSums:
        learned.extend(last)
        return accumulate(batch, weight)

    setup.rows.batch = note_rows  # type: ignore[method-assign]
    loop.accumulate = note_weight  # type: ignore[method-assign]
    results: list[StepResult] = []

    def on_step(state: State, result: StepResult) -> None:
        results.append(result)
        if state.step == SAVED_AT:
            _checkpoints(out, world.size).save(loop, state, world)

    asked = world.size - 1  # the last rank alone is asked, before the second step
    loop.run(state, on_step, stop_asked=lambda: world.rank == asked and len(results) == 1)
    return {
        "losses": [result.loss for result in results],
        "grad_norms": [result.grad_norm for result in results],
        "rows": [result.rows for result in results],
        "stop": [result.stop for result in results],
        "learned": learned,
        "weights": _checksum(loop.parameters),
        "spread_over_devices": hasattr(setup.base, "hf_device_map") and len(setup.base.hf_device_map) > 1,
    }


def _checkpoints(out: Path, size: int) -> Checkpoints:
    return Checkpoints(folder=out / f"checkpoints-of-{size}", keep=1, settings={})


def _resume(world: World, spec: Spec, out: Path) -> list[float]:
    """Go on from the checkpoint that three ranks wrote; return the losses."""
    setup = _setup(world, spec, WALK_FAMILY)
    loop = setup.loop(20)
    store = _checkpoints(out, 3)
    latest = store.latest()
    assert latest is not None, "three ranks measure first"
    state = store.load(latest, loop, world)
    assert state.step == SAVED_AT
    return [result.loss for result in train(loop, state)]


def _stop_early(world: World, spec: Spec) -> dict[str, Any]:
    """Stop by the dev NLL as a run does: every rank judges for itself."""
    setup = _setup(world, spec, "mbart50")
    loop = setup.loop(20)
    state = new_state(loop, bins_per_step=2, bin_tokens=BIN_TOKENS, steps=20)
    state.best = BestScore()
    scores: list[float] = []

    def judge(state: State, _: StepResult) -> None:
        chosen = range(13)
        nll = mean_nll(setup.model, setup.rows, list(chosen), world, dtype=torch.float32, batch_tokens=BIN_TOKENS)
        scores.append(nll)
        state.best.update(nll, state.step, RULE)
        state.stopped_early = state.best.exhausted(RULE)

    loop.run(state, judge)
    return {"step": state.step, "nll": scores}


def _translate(world: World, spec: Spec, family: str) -> dict[str, Any]:
    setup = build(KEYS[family], spec.practised[family], spec.learned, world=world)
    segments, references = segments_of(setup.card, spec.learned)
    decoding = Decoding(beams=2, batch_tokens=60, dtype=torch.float32)
    texts = [found.text for found in translate(setup.model, setup.encoder, segments, decoding, world)]
    return {"texts": texts, "scores": metrics.score(texts, references)}


def _train_quantised(world: World, spec: Spec) -> dict[str, Any]:
    setup = _setup(world, spec, "marian", method="qlora")
    loop = setup.loop(3)
    results = train(loop, new_state(loop, bins_per_step=2, bin_tokens=BIN_TOKENS, steps=3))
    return {"losses": [result.loss for result in results], "weights": _checksum(loop.parameters)}


def _checksum(parameters: dict[str, torch.nn.Parameter]) -> float:
    return float(sum(parameter.detach().double().abs().sum() for parameter in parameters.values()))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _measure_and_write(spec: Spec, out: Path) -> int:
    """Measure in the process group of the environment; return a port for the next one."""
    with joined_world(make_config("opus_mt_en_fr", "none")) as world:
        files.write_json(out / f"rank-{world.rank}-of-{world.size}.json", measure(world, spec, out))
        port: int = world.broadcast(_free_port())
        return port


def main() -> None:
    """Measure with three ranks, then with two."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    spec, out = Spec.read(Path(sys.argv[1])), Path(sys.argv[2])
    port = _measure_and_write(spec, out)
    if int(os.environ["RANK"]) < 2:
        # torchrun's own store knows of three ranks: the two meet at a new one.
        del os.environ["TORCHELASTIC_USE_AGENT_STORE"]
        os.environ.update(WORLD_SIZE="2", MASTER_PORT=str(port))
        _measure_and_write(spec, out)


if __name__ == "__main__":
    main()
