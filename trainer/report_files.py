"""What the report reads from a run's folder. Files may be missing; lines may be cut off."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXCERPTS = 3

Point = tuple[float, float]


@dataclass(frozen=True)
class Metrics:
    """The lines of ``metrics.jsonl``.

    Attributes:
        train: logged steps.
        dev: evaluations on dev.
        seconds: wall time between the first and the last line; None with fewer than two.
    """

    train: list[dict[str, Any]]
    dev: list[dict[str, Any]]
    seconds: float | None

    def values(self, name: str) -> list[float]:
        """Return one field of all logged steps."""
        return [y for _, y in points(self.train, name)]


@dataclass
class Rejection:
    """The dropped rows of one reason: its code, how many, and the first of them."""

    code: str
    count: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def points(lines: list[dict[str, Any]], *keys: str) -> list[Point]:
    """Return (step, value) of every line that has a finite number at ``keys``, a path into the line."""
    found = []
    for line in lines:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((float(line["step"]), float(value)))
    return found


def mean(lines: list[dict[str, Any]], name: str, weight: str) -> float | None:
    """Return the mean of a field over logged steps, each line counted by its field ``weight``; None without any."""
    counted = [line for line in lines if points([line], name) and points([line], weight)]
    total = sum(line[weight] for line in counted)
    return sum(line[name] * line[weight] for line in counted) / total if total else None


def read_metrics(path: Path) -> Metrics:
    """Read ``metrics.jsonl``; lines without a step are passed over."""
    lines = [line for line in read_lines(path) if isinstance(line.get("step"), int)]
    times = [time for _, time in points(lines, "time")]
    return Metrics(
        train=[line for line in lines if line.get("type") == "train"],
        dev=[line for line in lines if line.get("type") == "eval" and line.get("split") == "dev"],
        seconds=max(times) - min(times) if len(times) > 1 else None,
    )


def read_sentences(folder: Path) -> list[dict[str, Any]]:
    """Read all ``test.<src>-<tgt>.jsonl``; each row gets its ``direction`` and its ``gain`` in chrF points."""
    rows = []
    for path in sorted(folder.glob("test.*-*.jsonl")):
        direction = path.name.removeprefix("test.").removesuffix(".jsonl")
        for row in read_lines(path):
            gain = float(row["tuned_chrf"]) - float(row["base_chrf"])
            rows.append({**row, "direction": direction, "gain": gain})
    return rows


def read_rejections(path: Path) -> list[Rejection]:
    """Count ``rejected.jsonl`` by reason, the most frequent first; the file may be long and is streamed."""
    found: dict[str, Rejection] = {}
    counts: Counter[str] = Counter()
    for row in read_lines(path):
        code, _, words = str(row.get("reason", "unknown")).partition(":")
        counts[code] += 1
        rejection = found.setdefault(code, Rejection(code))
        if len(rejection.examples) < EXCERPTS:
            rejection.examples.append({**row, "words": words.strip()})
    for code, count in counts.items():
        found[code].count = count
    return [found[code] for code, _ in counts.most_common()]


def read_text(path: Path) -> str | None:
    """Return a whole text file, or None when there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the objects of a JSON Lines file; lines end at \\n only, as U+2028 may stand in a text."""
    try:
        source = path.open(encoding="utf-8", errors="replace", newline="\n")
    except FileNotFoundError:
        return
    with source:
        for line in source:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value
