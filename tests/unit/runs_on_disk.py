"""Finished runs as the trainer leaves them, as far as the store looks at them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mtft import store
from mtft.runs import RunPaths

MODEL = "opus_mt_en_fr"


def run_id(number: int) -> str:
    return f"20300102T0304{number:02}Z-{number:08x}"


def make_run(root: Path, number: int, verdict: str | None = "promoted", **finished: Any) -> RunPaths:
    """Write a finished run; without a verdict, one that is not finished."""
    paths = RunPaths.at(root, MODEL, run_id(number))
    paths.lora.mkdir(parents=True)
    (paths.lora / "adapter_model.safetensors").write_bytes(b"weights")
    if verdict is not None:
        gate = {"verdict": verdict, "reasons": ["en-fr: chrf +1.00"]}
        about = {"status": "finished", "deliverable": "lora", "run_id": paths.run_id, "gate": gate, **finished}
        paths.finished.write_text(json.dumps(about))
    return paths


def current(root: Path) -> str | None:
    return store.current_id(store.outputs(root, MODEL))
