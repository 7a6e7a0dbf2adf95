"""One publisher of a store: ``python -m chaos.publishing ROOT NUMBER``; and what has to be true of a store it was in.

It promotes its two runs in turn until the file ``stop`` appears, and writes down each promotion it was told of.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from chaos.runs import left_behind
from mtft import journal, promotion, store
from mtft.errors import InputError, Retry
from mtft.promotion import changing
from tests.unit.runs_on_disk import MODEL, make_run, run_id

PUBLISHERS = (0, 1)
STOP = "stop"
# A waiter looks again after half a second; kills by the hundred want to see the next promotion sooner than that.
_POLL_SECONDS = 0.02
_LONGEST_PAUSE_S = 0.04  # between two promotions, for the other to get its turn


def new_store(root: Path) -> None:
    """Make a store with two runs for each publisher, the first one current."""
    for number in range(2 * len(PUBLISHERS)):
        make_run(root, number)
    with changing(root, MODEL) as held:
        held.promote(run_id(0), who="chaos")


def publish(root: Path, number: int) -> None:
    """Promote, and say so, until asked to stop."""
    promotion._POLL_SECONDS = _POLL_SECONDS
    told = os.open(root / f"told-{number}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    for turn in itertools.count():
        if (root / STOP).exists():
            return
        try:
            with changing(root, MODEL) as held:
                entry = held.promote(run_id(2 * number + turn % 2), who=f"publisher {number}", reason=f"{turn}")
        except Retry:
            continue  # the lease was taken over: nothing is changed, and a person would run it again
        if entry:
            os.write(told, f"{entry.number} {entry.run}\n".encode())
        time.sleep(random.uniform(0, _LONGEST_PAUSE_S))


def read(root: Path) -> None:
    """Look for the current run until asked to stop; write down each look that found anything but a whole run."""
    looks = 0
    with (root / "unreadable").open("w") as faults:
        while not (root / STOP).exists():
            time.sleep(0.001)
            looks += 1
            try:
                if store.current(root, MODEL) is None:
                    faults.write("nothing is current\n")
            except (InputError, OSError) as error:
                faults.write(f"{error}\n")
    (root / "looks").write_text(str(looks))


def lost(root: Path) -> Iterator[str]:
    """Name promotions that a publisher was told of and history does not have."""
    entries = {(entry.number, entry.run) for entry in journal.read(store.outputs(root, MODEL))}
    for number in PUBLISHERS:
        path = root / f"told-{number}"
        for line in path.read_text().splitlines() if path.exists() else []:
            at, run = line.split()
            if (int(at), run) not in entries:
                yield f"promotion {at} of {run} was acknowledged and is not in the history"


def slips(root: Path) -> Iterator[str]:
    """Name promotions that history says were made over another run than the one before them."""
    for before, after in itertools.pairwise(journal.read(store.outputs(root, MODEL))):
        if after.previous != before.run:
            yield f"promotion {after.number} was made over {after.previous}, promotion {before.number} is {before.run}"


def wrong(root: Path) -> Iterator[str]:
    """Name what a reader saw, and what is not in order in a store that nobody changes any more."""
    yield from (root / "unreadable").read_text().splitlines()
    folder = store.outputs(root, MODEL)
    entries = journal.read(folder)
    if [entry.number for entry in entries] != list(range(1, len(entries) + 1)):
        yield f"history has the numbers {[entry.number for entry in entries]}"
    if store.current_id(folder) != entries[-1].run:
        yield f"{store.current_id(folder)} is current, history ends with {entries[-1].run}"
    if left := sorted(left_behind(folder)):
        yield f"left behind: {left}"


if __name__ == "__main__":
    publish(Path(sys.argv[1]), int(sys.argv[2]))
