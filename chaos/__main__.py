"""``make chaos``: disturb everything, count what survived.

Run: python -m chaos [SCENARIO ...] [--kills 200] [--seed 1]

Each scenario runs in a process of its own. The last line is ``N survived, N lost, N wrong``; the exit code is 1 when
anything was lost or wrong, or when this machine lacks something and MTFT_REQUIRE is set.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chaos import tally
from chaos.tally import Order, Tally
from mtft import files

CHECKOUT = Path(__file__).resolve().parents[1]
RESULTS = CHECKOUT / "build" / "chaos"
# The longest first; two at a time, but for the last, whose pods take the whole machine.
SCENARIOS = ("training", "saves", "publishers", "volumes", "clock", "transport", "pods")
_AT_ONCE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios and print the table."""
    options = _parser().parse_args(arguments)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    if options.one:
        _run_one(options.one, Order(kills=options.kills, seed=options.seed, folder=options.folder))
        sys.stdout.flush()
        os._exit(0)  # libraries that were loaded for the forks complain at a common end
    shutil.rmtree(RESULTS, ignore_errors=True)
    wanted = options.scenarios or SCENARIOS
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        beside = [name for name in wanted if name != "pods"]
        tallies = [each for found in pool.map(lambda name: _measured(name, options), beside) for each in found]
    if "pods" in wanted:
        tallies += _measured("pods", options)
    print(tally.table(tallies), flush=True)
    files.write_json(RESULTS / "table.json", {"kills": options.kills, "seed": options.seed, "rows": _rows(tallies)})
    required = bool(os.environ.get("MTFT_REQUIRE"))
    return int(any(each.lost or each.wrong or (each.missing and required) for each in tallies))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", choices=(*SCENARIOS, []), metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--kills", type=int, default=200, help="how much of everything; 200 is the whole")
    parser.add_argument("--seed", type=int, default=1, help="of all plans")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


def _measured(name: str, options: argparse.Namespace) -> list[Tally]:
    """Run a scenario in a process of its own and return its rows; one that breaks down has lost."""
    folder = Path(tempfile.mkdtemp(prefix=f"mtft-chaos-{name}-"))
    command = [sys.executable, "-m", "chaos", "--one", name, "--folder", str(folder)]
    command += ["--kills", str(options.kills), "--seed", str(options.seed)]
    code = subprocess.run(command, check=False, cwd=CHECKOUT).returncode
    tallies = [tally.read(path) for path in sorted((RESULTS / name).glob("*.json"))]
    if code != 0:
        broken = Tally(name, options.seed, tries=1)
        broken.lose(f"the scenario itself ended with {code}; what it left is in {folder}")
        return [*tallies, broken]
    if not any(each.lost or each.wrong for each in tallies):
        shutil.rmtree(folder, ignore_errors=True)
    return tallies


def _run_one(name: str, order: Order) -> None:
    scenario: Callable[[Order], Iterator[Tally]] = importlib.import_module(f"chaos.{name}").scenario
    begun = time.monotonic()
    for number, each in enumerate(scenario(order)):
        each.seconds = each.seconds or time.monotonic() - begun
        each.write(RESULTS / name / f"{number}.json")
        said = each.missing or f"{each.tries} tries, {each.lost} lost, {each.wrong} wrong, {each.seconds:.0f} s"
        print(f"-- {each.scenario}: {said}", flush=True)
        begun = time.monotonic()


def _rows(tallies: Sequence[Tally]) -> list[dict[str, object]]:
    return [{**vars(each), "survived": each.survived} for each in tallies]


if __name__ == "__main__":
    sys.exit(main())
