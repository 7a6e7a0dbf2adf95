"""Real target tokens per second beside the stock Seq2SeqTrainer: same stand-in, data, method, cores and rate.

Each way trains one pass over the same rows with 32 sentences in a step (on average, for mtft), in a process of
its own, in turn. Then the same dev rows are scored by the same code. The stock trainer runs as it comes
(random batches of 16) and with its length grouping.

Run: ``python -m benchmarks.throughput [--rows N] [--rounds N]``
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch
from torch import nn

from benchmarks.setup import ONE_CPU, Bench, read_split
from trainer.adapters import make_trainable
from trainer.batching import make_budget
from trainer.evaluation import mean_nll
from trainer.loading import load_base
from trainer.loop import Loop
from trainer.quiet import quiet_libraries
from trainer.rows import TokenRows
from trainer.state import State

KEY = "opus_mt_en_fr"
WAYS = ("mtft", "stock", "stock grouped")
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000, help="training rows")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each way")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.rows)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.throughput", "--way", way, "--rows", str(options.rows)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[way].append(json.loads(printed.splitlines()[-1]))
    show(found)


def show(found: dict[str, list[dict[str, float]]]) -> None:
    """Print medians, and ratios paired by round."""
    print(f"{'way':14} {'target tok/s':>13} {'mtft is':>9} {'dev NLL':>8} {'real share':>11} {'steps':>6}")
    for way, runs in found.items():
        rate = statistics.median(run["tokens_per_second"] for run in runs)
        pairs = zip(found["mtft"], runs, strict=True)
        ratio = statistics.median(a["tokens_per_second"] / b["tokens_per_second"] for a, b in pairs)
        share = f"{runs[0]['share']:.3f}" if "share" in runs[0] else "-"
        print(f"{way:14} {rate:>13.0f} {ratio:>8.2f}x {runs[0]['nll']:>8.3f} {share:>11} {runs[0]['steps']:>6.0f}")


def measure(way: str, count: int) -> dict[str, float]:
    """Train one pass in one way and score dev."""
    quiet_libraries()
    torch.manual_seed(0)
    bench = Bench.of(KEY, size="small")
    train = bench.dataset(read_split("train", 2 * count), ("en", "fr"))
    dev = bench.dataset(read_split("dev"), ("en", "fr"))
    config = bench.config(
        train={"learning_rate": RATE, "batch_size": 16, "gradient_accumulation": 2, "device": "cpu", "max_grad_norm": 0}
    )
    base = load_base(bench.card, config, ONE_CPU)
    ids = {"pad_id": base.config.pad_token_id, "start_id": base.config.decoder_start_token_id}
    model = make_trainable(bench.card, config, base)
    rows = TokenRows(train, **ids)
    began = time.monotonic()
    extra = with_mtft(model, rows, config) if way == "mtft" else with_stock(model, train, bench, way)
    seconds = time.monotonic() - began
    dev_rows = TokenRows(dev, **ids)
    nll = mean_nll(model, dev_rows, range(len(dev_rows)), ONE_CPU, dtype=torch.float32, batch_tokens=4096)
    return {"tokens_per_second": float(rows.target_lengths.sum()) / seconds, "nll": nll, **extra}


def with_mtft(model: nn.Module, rows: TokenRows, config: Any) -> dict[str, float]:
    """Train with our loop."""
    loop = Loop(config, ONE_CPU, model, rows, torch.float32)
    budget = make_budget(config.train, rows.source_lengths, rows.target_lengths, 1)
    steps = loop.steps_per_epoch(budget)
    loop.start(steps)
    tokens = [0, 0]

    def count(_state: State, result: Any) -> None:
        tokens[0] += result.real_tokens
        tokens[1] += result.padded_tokens

    loop.run(State(total_steps=steps, steps_per_epoch=steps, budget=budget), count)
    return {"share": tokens[0] / tokens[1], "steps": steps}


def with_stock(model: Any, train: Any, bench: Bench, way: str) -> dict[str, float]:
    """Train with transformers' Seq2SeqTrainer."""
    from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments

    columns = train.rename_columns({"source_ids": "input_ids", "target_ids": "labels"})
    columns = columns.add_column("length", [len(ids) for ids in columns["input_ids"]])
    with tempfile.TemporaryDirectory() as folder:
        arguments = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=2,
            learning_rate=RATE,
            warmup_steps=0.03,
            num_train_epochs=1,
            label_smoothing_factor=0.1,
            weight_decay=0.01,
            max_grad_norm=0,
            save_strategy="no",
            report_to=[],
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            **({"train_sampling_strategy": "group_by_length"} if way == "stock grouped" else {}),
        )
        collator = DataCollatorForSeq2Seq(bench.encoder.tokenizer, model=model.get_base_model())
        trainer = Seq2SeqTrainer(
            model=model,
            args=arguments,
            train_dataset=columns,
            data_collator=collator,
            processing_class=bench.encoder.tokenizer,
        )
        return {"steps": trainer.train().global_step}


if __name__ == "__main__":
    main()
