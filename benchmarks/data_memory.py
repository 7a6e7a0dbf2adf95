"""Peak memory and speed of the data path for growing numbers of rows.

    python -m benchmarks.data_memory                     # 0.1, 1 and 5 million rows
    python -m benchmarks.data_memory --rows 100000 --loose   # rows without pub_number

Each measurement runs in a process of its own. ``read`` streams, splits and compares with what is held out;
``prepare`` builds the whole store with an encoder that costs almost nothing, so it is the data path that is measured.

``imported`` is the resident memory before the first row, ``peak`` the largest. Pages of the memory-mapped result count
in it although the kernel may drop them at any time; ``own`` is the largest growth without them. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.encoding import Encoded

ROWS = (100_000, 1_000_000, 5_000_000)
ROWS_PER_DOCUMENT = 40
WORDS = ("the", "cod", "stock", "of", "northern", "bay", "fished", "by", "trawl", "in", "deep", "water", "summer")


def main() -> int:
    """Measure every size in a fresh process and print one table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="numbers of rows")
    parser.add_argument("--loose", action="store_true", help="rows without pub_number")
    parser.add_argument("--measure", choices=("read", "prepare"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.file)))
        return 0
    heads = f"{'rows':>10}  {'MB':>6}  {'part':8}  {'seconds':>8}  {'rows/s':>8}"
    print(f"{heads}  {'imported':>8}  {'peak':>6}  {'own':>6} (MiB)")
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.jsonl"
            generate(file, rows, loose=args.loose)
            size = file.stat().st_size / 1e6
            for part in ("read", "prepare"):
                command = [sys.executable, "-m", "benchmarks.data_memory", "--measure", part, "--file", str(file)]
                found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                speed = rows / found["seconds"]
                memory = f"{found['imported']:>8,.0f}  {found['peak']:>6,.0f}  {found['own']:>6,.0f}"
                print(f"{rows:>10,}  {size:>6,.0f}  {part:8}  {found['seconds']:>8.1f}  {speed:>8,.0f}  {memory}")
                sys.stdout.flush()
    return 0


def generate(file: Path, rows: int, *, loose: bool) -> None:
    """Write rows of about 250 bytes, distinct, in both directions."""
    with file.open("w", encoding="utf-8") as out:
        for number in range(rows):
            digest = hashlib.blake2b(str(number // 2).encode(), digest_size=16).digest()
            text = " ".join(WORDS[byte % len(WORDS)] for byte in digest)
            english, french = f"{text} {number // 2}.", f"{text[::-1]} {number // 2} é."
            one_way = number % 2 == 0
            row = {
                "source": english if one_way else french,
                "target": french if one_way else english,
                "source_lang": "en" if one_way else "fr",
            }
            if not loose:
                row["pub_number"] = f"D-{number // ROWS_PER_DOCUMENT}"
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def measure(part: str, file: Path) -> dict[str, float]:
    """Run one part in this process; memory in MiB."""
    work = reader(file) if part == "read" else preparation(file)
    imported, before, began = status("VmHWM"), status("RssAnon"), time.perf_counter()
    most, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most[0] = max(most[0], status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "imported": imported, "peak": status("VmHWM"), "own": most[0] - before}


def reader(file: Path) -> Callable[[], object]:
    """Return the work of reading, splitting and comparing."""
    from mtft.leakage import Leakage
    from mtft.rows import Row, read_rows
    from mtft.split import Documents, plan_split

    def work() -> None:
        documents, leakage = Documents(seed=0), Leakage()
        for item in read_rows([file]):
            if isinstance(item, Row):
                documents.add(item)
        split = plan_split(documents, 0.05)
        for item in read_rows([file]):
            if isinstance(item, Row) and (place := split(item)) != "train":
                leakage.hold(place, item)
        for item in read_rows([file]):
            if isinstance(item, Row) and split(item) == "train":
                leakage.see(item)
        leakage.report()

    return work


def preparation(file: Path) -> Callable[[], object]:
    """Return the work of building the store."""
    from mtft.config import Config
    from mtft.models import card
    from trainer import encoding  # noqa: F401 - counted as import, not as data
    from trainer.building import Inputs
    from trainer.preparation import prepare

    config = Config.model_validate({"model": "m2m100_418m", "data": {"train": str(file)}})
    return lambda: prepare(config, card("m2m100_418m"), Words(), Inputs.of(config.data), file.parent)


def status(name: str) -> float:
    """Return one of this process's own memory figures, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


class Words:
    """The cheapest encoder there is: the length of every word."""

    fingerprint = "words"

    def encode(self, sources: list[str], targets: list[str], source_lang: str, target_lang: str) -> Encoded:
        """Encode pairs of one direction."""
        from trainer.encoding import Encoded

        source_ids = [[*map(len, text.split())] for text in sources]
        target_ids = [[*map(len, text.split())] for text in targets]
        return Encoded(source_ids, target_ids, truncated=0, unknown=0, pieces=sum(map(len, source_ids)))


if __name__ == "__main__":
    sys.exit(main())
