"""The gate on planted models: a short form of ``python -m benchmarks.gate``, with larger differences on fewer rows."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from benchmarks.gate import GUARD, Plant, Pool, another_number, everywhere, right, trial
from benchmarks.setup import read_split
from mtft.exit_codes import PROMOTED, REGRESSED
from trainer.pairs import TEST

ROWS, TRIALS = 60, 2
PLANTS = {
    "better": Plant(expected=PROMOTED, wrong=everywhere(0.04)),
    "worse": Plant(expected=REGRESSED, wrong=everywhere(0.45)),
    "worse one way": Plant(expected=REGRESSED, wrong={(TEST, "en"): 0.45, (TEST, "fr"): 0.04}),
    "worse on the guard set": Plant(expected=REGRESSED, wrong=everywhere(0.04, 0.6)),
    "the published run's own": Plant(expected=None, same=True),
}


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool.of(read_split("train", 8000))


@pytest.mark.parametrize("name", PLANTS)
def test_what_is_planted_is_found(pool: Pool, name: str) -> None:
    trials = [trial(pool, PLANTS[name], ROWS, f"{name} {number}") for number in range(TRIALS)]
    assert right(PLANTS[name], Counter(each.verdict for each in trials)), trials


def test_a_model_that_is_as_good_is_rarely_called_anything_else(pool: Pool) -> None:
    verdicts = Counter(trial(pool, Plant(expected=None), ROWS, str(number)).verdict for number in range(10))
    # More than 2 of 10 would happen once in 90 at a rate of 1 in 20; the benchmark measures the rate.
    assert max(verdicts[PROMOTED], verdicts[REGRESSED]) <= 2


def test_sets_and_systems_are_as_described(pool: Pool) -> None:
    test, guard = pool.draw(20, random.Random(1))
    assert (test.name, len(test.pairs), guard.name, len(guard.pairs)) == (TEST, 40, GUARD, 20)
    numbered = [pair for pair in test.pairs if any(character.isdigit() for character in pair.source)]
    changed = [another_number(pair, pair.reference, random.Random(seed)) for seed, pair in enumerate(numbered * 9)]
    assert 0 < sum(text != pair.reference for text, pair in zip(changed, numbered * 9, strict=True)) < len(changed)
