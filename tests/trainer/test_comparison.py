"""Whether two systems differ by more than chance: paired bootstrap, McNemar's test, Holm."""

from __future__ import annotations

import random
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest

from demo.corpus import Pair as TextPair
from trainer.comparison import compare, compare_faults, holm, samples_for


def thinned(texts: list[str], share: float, seed: int) -> list[str]:
    """Drop that share of the words, as a system of that quality might."""
    draw = random.Random(seed)
    return [" ".join(word for word in text.split() if draw.random() > share) for text in texts]


@pytest.fixture(scope="module")
def references(parallel_text: list[TextPair]) -> list[str]:
    return [pair.target_fr for pair in parallel_text[:60]]


def test_equal_outputs_do_not_differ(references: list[str]) -> None:
    for found in compare(references, references, references, samples=50).values():
        assert (found.delta, found.p_value) == (0.0, 1.0)


def test_one_row_proves_nothing() -> None:
    assert compare(["a"], ["b"], ["b"], samples=10)["bleu"].p_value == 1.0


def test_a_clear_gain_is_significant_and_a_loss_is_its_mirror(references: list[str]) -> None:
    poor = [" ".join(text.split()[::-1]) for text in references]
    gain, loss = compare(poor, references, references, samples=200), compare(references, poor, references, samples=200)
    for name in ("bleu", "chrf"):
        assert gain[name].delta > 10
        assert (loss[name].delta, loss[name].p_value) == (-gain[name].delta, gain[name].p_value)
        assert gain[name].p_value <= 0.05


def test_scores_and_intervals_are_those_of_sacrebleu_and_p_counts_both_sides(references: list[str]) -> None:
    before, after = thinned(references, 0.3, 1), thinned(references, 0.23, 2)
    ours = compare(before, after, references, samples=2000)
    metrics = {"bleu": BLEU(references=[references]), "chrf": CHRF(references=[references])}
    theirs: dict[str, Any] = PairedTest([("x", before), ("y", after)], metrics, None, "bs", 2000)()[1]
    for name, key in (("bleu", "BLEU"), ("chrf", "chrF2")):
        rival, tuned = theirs[key]
        assert ours[name].delta == pytest.approx(tuned.score - rival.score, abs=1e-3)
        assert ours[name].interval[1] - ours[name].interval[0] == pytest.approx(2 * tuned.ci, rel=0.1)
        # Of a clear difference sacreBLEU counts one side.
        assert 0.005 < tuned.p_value < 0.1 and ours[name].p_value == pytest.approx(2 * tuned.p_value, rel=0.35)


def test_a_fault_is_compared_where_the_systems_disagree() -> None:
    same: list[bool | None] = [None, True, False] * 50
    assert (compare_faults(same, same).worse, compare_faults(same, same).p_value) == (0, 1.0)
    found = compare_faults([*same, *[False] * 5, True], [*same, *[True] * 5, False])
    assert (found.worse, found.better) == (5, 1)
    assert found.p_value == pytest.approx(2 * (1 + 6) / 2**6)  # 0 or 1 of 6 heads, either way
    assert compare_faults([False] * 6, [True] * 6).p_value == 2 / 2**6


def test_p_values_hold_together() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert (samples_for(4, 0.05, 1000), samples_for(40, 0.05, 1000)) == (1000, 3200)
