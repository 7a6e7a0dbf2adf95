"""What every rank measures, started as ``torchrun --nproc-per-node 4 -m tests.trainer.multirank SPEC.json OUT``.

One start serves all world sizes, one after the other: four ranks begin a run, two go on with it, three end it; then
three measure, then two. A test measures alone in its own process and compares.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
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
    note_learned,
    segments_of,
    split,
    step_gradient,
    stir_adapters,
    train,
)
from tests.trainer.relay import BIN_TOKENS, BINS_PER_STEP, RELAY, relay
from trainer import metrics
from trainer.checkpoints import Checkpoints
from trainer.collate import Batch
from trainer.distributed import World, joined_world
from trainer.evaluation import mean_nll
from trainer.generation import Decoding, translate
from trainer.loop import Loop, StepResult
from trainer.loss import LossSums
from trainer.state import BestScore, State

# 16 rows as (bins, in which ranks x rounds they are) by world size; uneven last rounds on purpose.
LAYOUTS = {1: (1, 2), 2: (2, 4, 5), 3: (4, 5)}
METHODS = ("lora", "full")
WALK_FAMILY = "m2m100"  # its checkpoints ask for dropped layers, on which ranks would wait for each other
SAVED_AT = 2
ROOM = 120  # padded tokens that fit into the last rank's memory, where it is short of it
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
        "troubled": _train_in_trouble(world, spec),
        "half": _half_precision(world, spec),
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
    learned = note_learned(setup, loop)
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


def _relay(world: World, spec: Spec, out: Path, until: int) -> dict[str, Any]:
    return relay(_setup(world, spec, WALK_FAMILY), out / "relay", until)


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


def _half_precision(world: World, spec: Spec) -> float:
    """Take one fp16 step over a single bin, which leaves nothing to all ranks but the first; return the loss."""
    setup = _setup(world, spec, WALK_FAMILY)
    loop = Loop(setup.config, world, setup.model, setup.rows, torch.float16)
    loop.start(1)
    return loop.step([np.arange(4)]).loss


def _train_in_trouble(world: World, spec: Spec) -> dict[str, Any]:
    """Walk as above; the last rank alone has little memory, and sees a loss that is no number in its second step."""
    setup = _setup(world, spec, WALK_FAMILY)
    loop = setup.loop(20)
    state = new_state(loop, bins_per_step=BINS_PER_STEP, bin_tokens=BIN_TOKENS, steps=20)
    state.total_steps = state.steps_per_epoch
    results: list[StepResult] = []
    accumulate = loop.accumulate

    def troubled(batch: Batch, weight: float) -> LossSums:
        sums = accumulate(batch, weight)  # what it added to the gradient has to be gone when the step is repeated
        if batch.input_ids.numel() + batch.decoder_input_ids.numel() > ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sums._replace(smoothed=sums.smoothed * float("nan")) if len(results) == 1 else sums

    if world.rank == world.size - 1:
        loop.accumulate = troubled  # type: ignore[method-assign]
    loop.run(state, lambda _, result: results.append(result))
    return {
        "losses": [result.loss for result in results[:1]],
        "grad_norms": [result.grad_norm for result in results[:1]],
        "skipped": [result.skipped for result in results],
        "suspects": results[1].suspects,
        "micro_batch_tokens": state.micro_batch_tokens,
        "weights": _checksum(loop.parameters),
    }


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


def _stages(spec: Spec, out: Path) -> list[tuple[int, str, Callable[[World], dict[str, Any]]]]:
    """Return world size, name of the results and what is done, in turn."""
    return [
        *((size, "relay", partial(_relay, spec=spec, out=out, until=until)) for size, until in RELAY),
        *((size, "rank", partial(measure, spec=spec, out=out)) for size in (3, 2)),
    ]


def main() -> None:
    """Go through the stages; a rank that a stage has no place for waits for the next one that has."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    spec, out = Spec.read(Path(sys.argv[1])), Path(sys.argv[2])
    stages, rank = _stages(spec, out), int(os.environ["RANK"])
    ports: list[int] = []
    for number, (size, name, work) in enumerate(stages):
        if rank >= size:
            continue
        if number:  # torchrun's own store knows of all ranks: fewer meet at a new one
            os.environ.pop("TORCHELASTIC_USE_AGENT_STORE", None)
            os.environ.update(WORLD_SIZE=str(size), MASTER_PORT=str(ports[number]))
        with joined_world(make_config("opus_mt_en_fr", "none")) as world:
            ports = ports or world.broadcast([_free_port() for _ in stages])
            files.write_json(out / f"{name}-{rank}-of-{size}.json", work(world))


if __name__ == "__main__":
    main()
