"""``make bench``: every measurement, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

MODULES = (
    "benchmarks.startup",
    "benchmarks.verbs",
    "benchmarks.padding",
    "benchmarks.throughput",
    "benchmarks.data_memory",
    "benchmarks.checkpoints",
    "benchmarks.gate",
    "benchmarks.submit",
    "benchmarks.first_step",
)


def main() -> int:
    codes = []
    for module in MODULES:
        print(f"\n== python -m {module}", flush=True)
        codes.append(subprocess.run([sys.executable, "-m", module], check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
