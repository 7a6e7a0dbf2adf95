"""Measure how long `mtft-launch --help` and `render` take beside a bare interpreter and common libraries.

Run: python benchmarks/startup.py [--rounds N]

The commands of one round run one after another, so load on the machine meets all of them; the figures are medians over
the rounds, and the ratios are medians of the ratios inside each round.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELP, RENDER = "mtft-launch --help", "mtft-launch render"
_ONE_MODEL = "class A(pydantic.BaseModel):\n    x: int = 1\nA()"
CONFIG = ROOT / "tests" / "configs" / "minimal.yaml"


def commands() -> dict[str, list[str]]:
    """Return the commands that are compared; typer only where it is installed."""
    python = sys.executable
    found = {
        HELP: [python, "-m", "launcher", "--help"],
        RENDER: [python, "-m", "launcher", "render", "--config", str(CONFIG)],
        "bare interpreter": [python, "-c", "pass"],
        "import argparse, json": [python, "-c", "import argparse, json"],
        # `import pydantic` alone loads next to nothing: its names are loaded when they are asked for.
        "import pydantic, yaml": [python, "-c", "import pydantic, yaml"],
        "... and one model": [python, "-c", f"import pydantic, yaml\n{_ONE_MODEL}"],
    }
    if importlib.util.find_spec("typer"):
        found["import typer"] = [python, "-c", "import typer"]
    return found


def seconds(command: list[str]) -> float:
    """Return the wall-clock seconds of one run."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def main() -> None:
    """Run the rounds and print one line for each command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    compared = commands()
    for command in compared.values():
        seconds(command)  # fills the file cache and writes the byte code
    times = [{name: seconds(command) for name, command in compared.items()} for _ in range(rounds)]
    print(f"{'command':<24}{'median s':>10}{'help / it':>11}{'render / it':>13}")
    for name in compared:
        median = statistics.median(one[name] for one in times)
        ratios = (statistics.median(one[ours] / one[name] for one in times) for ours in (HELP, RENDER))
        print(f"{name:<24}{median:>10.3f}{next(ratios):>11.2f}{next(ratios):>13.2f}")
    if "import typer" not in compared:
        print("typer is not installed here, so there is no line for it")


if __name__ == "__main__":
    main()
