"""Named sets of values. They stand between the model card and the user's file."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # A few minutes on a laptop: proves that model, data and paths fit, not that the result is good.
    "quick_test": {
        "data": {"max_samples": 1000},
        "train": {"max_steps": 20},
        "eval": {"beams": 1, "max_dev_rows": 20, "max_nll_rows": 100, "max_test_rows": 50, "bootstrap_samples": 100},
        "tracking": {"log_every_steps": 1},
    },
    # The optimizer step sees the same sentences; only fewer are in memory at a time.
    "memory_efficient": {
        "train": {"micro_batch_tokens": 1024, "gradient_checkpointing": True},
        "eval": {"batch_tokens": 1024},
    },
    # alpha / r stays 2, so the learning rate of the card holds.
    "high_capacity": {"lora": {"r": 128, "alpha": 256}},
}
