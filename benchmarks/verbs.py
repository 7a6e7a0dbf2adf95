"""Measure how long `mtft-launch VERB --help` takes for every verb, and what it loads.

Run: python -m benchmarks.verbs [--rounds N]

Seconds are medians of whole programs. `modules` counts what Python loaded; `heaviest` are the packages outside the
standard library whose modules take the most time by themselves (`python -X importtime`), mtft's own among them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections import Counter

from benchmarks.startup import ROOT, seconds
from launcher.cli import VERBS

_SHOWN = 3
_NEVER = ("torch", "transformers", "kubernetes", "kubeflow")


def imported(command: list[str]) -> tuple[int, Counter[str]]:
    """Return the number of modules a Python command loads, and microseconds by top-level package."""
    traced = [command[0], "-X", "importtime", *command[1:]]
    done = subprocess.run(traced, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [
        line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:") and "[us]" not in line
    ]
    spent: Counter[str] = Counter()
    for own, _, name in lines:
        spent[name.strip().partition(".")[0]] += int(own.split(":")[1])
    return len(lines), spent


def main() -> None:
    """Print one line for each verb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"{'verb':<12}{'median s':>9}{'modules':>9}  heaviest (ms)")
    for verb in VERBS:
        command = [sys.executable, "-m", "launcher", verb, "--help"]
        count, spent = imported(command)
        if heavy := [name for name in _NEVER if name in spent]:
            raise SystemExit(f"{verb} --help loads {', '.join(heavy)}")
        others = [
            (name, us)
            for name, us in spent.most_common()
            if name not in sys.stdlib_module_names and not name.startswith("_")
        ]
        heaviest = ", ".join(f"{name} {us / 1000:.1f}" for name, us in others[:_SHOWN])
        median = statistics.median(seconds(command) for _ in range(rounds))
        print(f"{verb:<12}{median:>9.3f}{count:>9}  {heaviest}", flush=True)


if __name__ == "__main__":
    main()
