"""A document that is enough, and one written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

GIVEN: dict[str, Any] = {"model": "opus_mt_en_fr", "data": {"train": "rows.jsonl"}}


def written(folder: Path, text: str, name: str = "mtft.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
