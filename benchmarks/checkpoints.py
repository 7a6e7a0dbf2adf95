"""What a checkpoint of a real model costs, and which share of the time that is at the default interval.

The base has the published geometry and random weights: saving does not depend on them.
Run: ``python -m benchmarks.checkpoints [--folder DIR]``, with DIR on the volume that is of interest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import M2M100Config, M2M100ForConditionalGeneration, MarianConfig, MarianMTModel, PreTrainedModel

from benchmarks.setup import ONE_CPU
from mtft.config import CheckpointConfig, Config
from mtft.models import ModelCard, card
from trainer.adapters import make_trainable
from trainer.batching import Budget
from trainer.checkpoints import Checkpoints, is_complete
from trainer.loop import Loop
from trainer.rows import TokenRows
from trainer.saving import MOST_TIME
from trainer.state import State

CASES = (("m2m100_418m", "lora"), ("opus_mt_en_fr", "full"))
ROUNDS = 3
BUDGET = Budget(bins_per_step=1, bin_tokens=1)  # nothing is trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where to write")
    folder = parser.parse_args().folder
    interval = CheckpointConfig().every_minutes
    assert interval is not None, "the default interval is one of time"
    print(
        f"{'model':16} {'method':6} {'MiB':>8} {'save, s':>8} {'check, s':>9} {'share of ' + f'{interval:g} min':>16}"
    )
    for key, method in CASES:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            size, saving, checking = measure(key, method, Path(own))
        # What takes a larger share is saved less often.
        share = min(MOST_TIME, saving / (60 * interval))
        print(f"{key:16} {method:6} {size / 2**20:>8,.0f} {saving:>8.2f} {checking:>9.2f} {share:>16.2%}")


def measure(key: str, method: str, folder: Path) -> tuple[int, float, float]:
    """Return the bytes of a checkpoint and the median seconds to save it and to check it."""
    config = Config.model_validate({"model": key, "data": {"train": "unused"}, "method": method})
    loop = Loop(config, ONE_CPU, make_trainable(card(key), config, base(card(key))), no_rows(), torch.float32)
    loop.start(ROUNDS)
    for parameter in loop.parameters.values():
        parameter.grad = torch.full_like(parameter, 1e-3)
    loop.optimizer.step()  # from now on there are moments to save
    loop.gradients.clear()
    store = Checkpoints(folder=folder, keep=1, settings={})
    saving, checking = [], []
    for step in range(ROUNDS):
        began = time.monotonic()
        store.save(loop, State(total_steps=ROUNDS, steps_per_epoch=1, budget=BUDGET, step=step), ONE_CPU)
        saving.append(time.monotonic() - began)
        began = time.monotonic()
        assert is_complete(folder / f"step-{step}")
        checking.append(time.monotonic() - began)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return size, statistics.median(saving), statistics.median(checking)


def base(known: ModelCard) -> PreTrainedModel:
    """Return a base of the card's geometry."""
    geometry = {
        "vocab_size": known.vocabulary_size,
        "d_model": known.d_model,
        "encoder_ffn_dim": known.d_ff,
        "decoder_ffn_dim": known.d_ff,
        "encoder_layers": known.encoder_layers,
        "decoder_layers": known.decoder_layers,
    }
    if known.family == "marian":
        return MarianMTModel(MarianConfig(**geometry, pad_token_id=0, decoder_start_token_id=0))
    return M2M100ForConditionalGeneration(M2M100Config(**geometry))


def no_rows() -> TokenRows:
    """Return rows that nobody trains on."""
    return TokenRows(Dataset.from_dict({"source_ids": [[1]], "target_ids": [[1]]}), pad_id=0, start_id=0)


if __name__ == "__main__":
    main()
