"""Share of real tokens (source + target) in micro-batches of 4,096 padded tokens, beside other ways of batching.

Run: ``python -m benchmarks.padding``
"""

from __future__ import annotations

import numpy as np

from benchmarks.setup import Bench, read_split
from trainer.batching import Rows, make_bins, real_token_share
from trainer.rows import TokenRows

BIN_TOKENS = 4096


def main() -> None:
    print(f"{'tokenizer':16} {'random 16':>10} {'grouped 16':>11} {'greedy 4096':>12} {'mtft 4096':>10}")
    for key in ("m2m100_418m", "mbart50_mmt_fr", "opus_mt_en_fr"):
        bench = Bench.of(key, size="small")
        rows = TokenRows(bench.dataset(read_split("train"), ("en", "fr")), pad_id=0, start_id=0)
        lengths = rows.source_lengths, rows.target_lengths
        generator = np.random.default_rng(0)
        shares = [
            real_token_share(fixed(generator.permutation(len(rows)), 16), *lengths),
            real_token_share(fixed(np.argsort(lengths[0], kind="stable"), 16), *lengths),
            real_token_share(greedy(*lengths), *lengths),
            real_token_share(make_bins(*lengths, BIN_TOKENS, generator), *lengths),
        ]
        print(f"{key:16} {shares[0]:>10.3f} {shares[1]:>11.3f} {shares[2]:>12.3f} {shares[3]:>10.3f}")


def fixed(order: Rows, size: int) -> list[Rows]:
    """Cut an order into batches of a fixed number of rows, as the stock trainer does."""
    return [order[start : start + size] for start in range(0, len(order), size)]


def greedy(sources: Rows, targets: Rows) -> list[Rows]:
    """Fill bins in the order of (target, source) length, the usual token batching."""
    order = np.lexsort((sources, targets))
    bins, start = [], 0
    for at in range(1, len(order) + 1):
        rows = order[start : at + 1]
        if at == len(order) or len(rows) * (sources[rows].max() + targets[rows].max()) > BIN_TOKENS:
            bins.append(order[start:at])
            start = at
    return bins


if __name__ == "__main__":
    main()
