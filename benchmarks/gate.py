"""How often the gate is right: planted regressions and improvements, and models that are as good as the published one.

Real sentences, drawn anew for every trial; a system's translations are the references with words dropped, repeated,
swapped or replaced, more of them in sentences that are hard for every system. Each trial goes through the real
comparisons and the real gate, against a base and a published run, both directions, on test and a guard set.

Run: ``python -m benchmarks.gate [--trials N] [--equal N] [--rows N] [--seed N]``. Without the sample generated
sentences are used and the output says so.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from benchmarks.setup import read_split
from mtft import exit_codes
from mtft.config import Config
from mtft.rows import Row
from trainer import gate
from trainer.agreement import numbers
from trainer.pairs import TEST, Outputs, Pair, TestSet

GUARD = "guard.general"
BASE, PUBLISHED = 0.30, 0.20
"""Share of the words that the two rivals get wrong."""

Change = Callable[[Pair, str, random.Random], str]


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A tuned model with a known difference from the published one.

    Attributes:
        expected: the verdict it should get, and how often of 20 at least; None: any but ``promoted`` and ``regressed``.
        wrong: share of words it gets wrong, per set and source language; where it is silent, that of the published run.
        change: what is done to its translations of test besides.
        same: whether it translates test and guard set exactly as the published run does.
    """

    expected: str | None
    wrong: Mapping[tuple[str, str], float] = field(default_factory=dict)
    change: Change | None = None
    same: bool = False


def everywhere(test: float, guard: float = PUBLISHED) -> dict[tuple[str, str], float]:
    """Return the shares of wrong words on test and guard set, the same in both directions."""
    return {(name, code): share for name, share in ((TEST, test), (GUARD, guard)) for code in ("en", "fr")}


def another_number(pair: Pair, text: str, draw: random.Random) -> str:
    """Change a digit in one of three translations of a sentence with numbers."""
    digits = [at for at, character in enumerate(text) if character in "0123456789"]
    if not digits or not numbers(pair.source, pair.direction[0]) or draw.random() > 1 / 3:
        return text
    at = draw.choice(digits)
    return f"{text[:at]}{(int(text[at]) + draw.randint(1, 9)) % 10}{text[at + 1 :]}"


def copied(pair: Pair, text: str, draw: random.Random) -> str:
    """Leave six sentences of a hundred in the source language."""
    return pair.source if draw.random() < 0.06 else text


PLANTS = {
    "better on test": Plant(expected=exit_codes.PROMOTED, wrong=everywhere(0.13)),
    "worse on test": Plant(expected=exit_codes.REGRESSED, wrong=everywhere(0.27)),
    "worse in one direction, better in the other": Plant(
        expected=exit_codes.REGRESSED, wrong={(TEST, "en"): 0.28, (TEST, "fr"): 0.13}
    ),
    "better on test, worse on the guard set": Plant(expected=exit_codes.REGRESSED, wrong=everywhere(0.13, 0.29)),
    "better on test, 1 of 3 numbers wrong": Plant(
        expected=exit_codes.REGRESSED, wrong=everywhere(0.13), change=another_number
    ),
    "better on test, 6 of 100 left as they were": Plant(
        expected=exit_codes.REGRESSED, wrong=everywhere(0.13), change=copied
    ),
}
EQUAL = {
    "the published run's own translations": Plant(expected=None, same=True),
    "as good as the published run": Plant(expected=None),
}


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Sentences to draw from: those of test, and of another kind for the guard set."""

    test: Sequence[Row]
    guard: Sequence[Row]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Pool:
        """Divide rows: law texts are test, anything else is the guard set; where there is one kind only, by half."""
        kinds: tuple[list[Row], list[Row]] = ([], [])
        for row in rows:
            kinds[(row.pub_number or "").startswith(("PLAYBOOK", "CDS", "GCDS", "GCFORMS"))].append(row)
        half = len(rows) // 2
        return cls(test=kinds[0], guard=kinds[1]) if kinds[1] else cls(test=rows[:half], guard=rows[half:])

    @cached_property
    def words(self) -> dict[str, list[str]]:
        """Words of each language, to put in the place of others."""
        found: dict[str, list[str]] = {"en": [], "fr": []}
        for row in self.test[:2000]:
            found[row.target_lang] += row.target.split()
        return found

    def draw(self, rows: int, draw: random.Random) -> list[TestSet]:
        """Return a test set of so many sentences per direction, and a guard set of half as many."""
        sets = []
        for name, pool, count in ((TEST, self.test, rows), (GUARD, self.guard, rows // 2)):
            pairs = []
            for code in ("en", "fr"):
                chosen = draw.sample([row for row in pool if row.source_lang == code], count)
                pairs += [
                    Pair(source=row.source, reference=row.target, direction=(code, row.target_lang), document=None)
                    for row in chosen
                ]
            sets.append(TestSet(name=name, pairs=pairs))
        return sets


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One judgement of a planted model: the verdict, and chrF against the published run on test and guard set."""

    verdict: str
    test: float
    guard: float


def trial(pool: Pool, plant: Plant, rows: int, seed: str) -> Trial:
    """Plant a model, let the gate judge it."""
    draw = random.Random(seed)
    sets = pool.draw(rows, draw)
    # How hard each sentence is, for every system; 1 on average.
    hard = {each.name: [draw.gammavariate(4, 1 / 4) for _ in each.pairs] for each in sets}

    def system(wrong: Mapping[tuple[str, str], float], otherwise: float) -> dict[str, list[str]]:
        return {
            each.name: [
                _translated(pair, hardness * wrong.get((each.name, pair.direction[0]), otherwise), pool, draw)
                for pair, hardness in zip(each.pairs, hard[each.name], strict=True)
            ]
            for each in sets
        }

    base, published = system({}, BASE), system({}, PUBLISHED)
    tuned = published if plant.same else system(plant.wrong, PUBLISHED)
    if plant.change is not None:
        test = [plant.change(pair, text, draw) for pair, text in zip(sets[0].pairs, tuned[TEST], strict=True)]
        tuned = {**tuned, TEST: test}
    return _judged(sets, base, published, tuned)


def _judged(sets: Sequence[TestSet], base: Outputs, published: Outputs, tuned: Outputs) -> Trial:
    guard_sets = {"general": "unused"}
    config = Config.model_validate(
        {"model": "m2m100_418m", "data": {"train": "unused"}, "gate": {"guard_sets": guard_sets}}
    )
    rivals, _ = gate.weigh(config, sets, base, published, tuned)
    against: Mapping[str, Any] = rivals[gate.PUBLISHED]
    deltas = {
        name: statistics.fmean(its["chrf"]["delta"] for its in directions.values())
        for name, directions in against.items()
    }
    verdict = gate.apply_gate(config, {each.name: each.sentences() for each in sets}, rivals)["verdict"]
    return Trial(verdict=verdict, test=deltas[TEST], guard=deltas[GUARD])


def _translated(pair: Pair, wrong: float, pool: Pool, draw: random.Random) -> str:
    """Return the reference with that share of its words dropped, said twice, swapped with the next, or replaced.

    Words with digits, which systems mostly copy, are spared nine times of ten.
    """
    words = pair.reference.split()
    said: list[str] = []
    at = 0
    while at < len(words):
        spared = 0.1 if any(character.isdigit() for character in words[at]) else 1
        kind = draw.randrange(4) if draw.random() < wrong * spared else None
        if kind is None:
            said.append(words[at])
        elif kind == 1:
            said += [words[at], words[at]]
        elif kind == 2:
            said += words[at : at + 2][::-1]
            at += 1
        elif kind == 3:
            said.append(draw.choice(pool.words[pair.direction[1]]))
        at += 1
    return " ".join(said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="trials of each planted difference (20)")
    parser.add_argument("--equal", type=int, default=40, help="trials of each model that is as good (40)")
    parser.add_argument("--rows", type=int, default=300, help="test sentences per direction; guard set: half (300)")
    parser.add_argument("--seed", type=int, default=1, help="every trial's seed is made of it (1)")
    options = parser.parse_args()
    pool = Pool.of(read_split("train"))
    print(f"{'tuned model':45} {'n':>5} {'test':>6} {'guard':>6} {'promoted':>9} {'not better':>11} {'regressed':>10}")
    missed = 0
    for plants, count in ((PLANTS, options.trials), (EQUAL, options.equal)):
        for name, plant in plants.items() if count else ():
            missed += not _run(name, plant, pool, count, options.rows, options.seed)
    return min(1, missed)


def _run(name: str, plant: Plant, pool: Pool, count: int, rows: int, seed: int) -> bool:
    """Print the row of one kind of model; whether the gate was right as often as it has to be."""
    trials = [trial(pool, plant, rows, f"{seed} {name} {number}") for number in range(count)]
    verdicts = Counter(each.verdict for each in trials)
    test, guard = (
        statistics.fmean(values) for values in zip(*((each.test, each.guard) for each in trials), strict=True)
    )
    counts = [verdicts[verdict] for verdict in (exit_codes.PROMOTED, exit_codes.NOT_BETTER, exit_codes.REGRESSED)]
    print(
        f"{name:45} {count:>5} {test:>+6.2f} {guard:>+6.2f} {counts[0]:>9} {counts[1]:>11} {counts[2]:>10}", flush=True
    )
    return right(plant, verdicts)


def right(plant: Plant, verdicts: Mapping[str, int]) -> bool:
    """Whether so many verdicts are those promised: regressions always caught, improvements promoted 19 times of 20.

    The published run's own translations are never promoted nor called worse; a model that is as good is called worse at
    most 1 time in 20, and promoted no more often.
    """
    count, promoted, regressed = sum(verdicts.values()), verdicts["promoted"], verdicts["regressed"]
    if plant.expected == exit_codes.REGRESSED:
        return regressed == count
    if plant.expected == exit_codes.PROMOTED:
        return promoted >= 0.95 * count
    return promoted == regressed == 0 if plant.same else max(promoted, regressed) <= 0.05 * count


if __name__ == "__main__":
    sys.exit(main())
