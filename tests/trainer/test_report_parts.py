"""What the report's curves and samples are made of."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.report_charts import MOST_POINTS, charts, nice_step, thin
from trainer.report_files import Metrics
from trainer.report_samples import DEGRADED, IMPROVED, TOTAL, choose, compare


def test_thinning_keeps_the_order_and_the_spike() -> None:
    line = [(float(n), n % 7 / 10) for n in range(10_000)]
    line[5555] = (5555.0, 99.0)
    kept = thin(line)
    assert len(kept) <= MOST_POINTS and line[5555] in kept
    assert kept == sorted(kept)
    assert thin(line[:MOST_POINTS]) == line[:MOST_POINTS]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1.0, 5.0], ["1", "2", "3", "4", "5"]),
        ([0.1, 0.3], ["0.1", "0.15", "0.2", "0.25", "0.3"]),
        ([2.0, 2.0], ["1", "1.5", "2", "2.5", "3"]),
        ([-0.2, 1234.5], ["-250", "0", "250", "500", "750", "1,000", "1,250"]),
    ],
)
def test_the_axis_covers_the_values_with_round_numbers(values: list[float], labels: list[str]) -> None:
    lines = [{"step": 10 * n, "loss": value} for n, value in enumerate(values)]
    [loss, *_] = charts(Metrics(train=lines, dev=[], seconds=None))
    assert [label for _, label in loss.y_ticks] == labels
    at = [at for at, _ in loss.y_ticks]
    assert at[0] == 100 and at[-1] == 0 and at == sorted(at, reverse=True)


@pytest.mark.parametrize(("high", "step"), [(1, 0.2), (7, 2), (12, 2.5), (20, 5), (0.0003, 0.0001), (100_000, 20_000)])
def test_steps_between_ticks_are_round(high: float, step: float) -> None:
    assert nice_step(0, high) == pytest.approx(step)


def rows_of(gains: list[int]) -> list[dict[str, Any]]:
    fixed = {"direction": "en-fr", "reference": "", "base": "", "tuned": "", "base_chrf": 50.0, "tuned_chrf": 50.0}
    return [{**fixed, "source": f"source {n}", "gain": gain} for n, gain in enumerate(gains)]


@pytest.mark.parametrize(
    ("gains", "groups"),
    [
        ([*range(1, 41)], [IMPROVED, TOTAL - IMPROVED]),
        ([*range(-40, 0)], [DEGRADED, TOTAL - DEGRADED]),
        ([0] * 40, [TOTAL]),
        ([5, -5, *[0] * 40], [1, 1, TOTAL - 2]),
        ([5, -5, 0], [1, 1, 1]),
        ([5, -5], [1, 1]),
    ],
)
def test_samples_are_as_many_whatever_became_of_the_sentences(gains: list[int], groups: list[int]) -> None:
    chosen = choose(rows_of(gains))
    assert chosen is not None and [len(group) for _, group in chosen.groups] == groups
    assert len({it.source for _, group in chosen.groups for it in group}) == min(TOTAL, len(gains))


def test_samples_are_the_extremes_and_the_same_random_ones() -> None:
    rows = rows_of([*range(-10, 31), 0, 0])
    chosen = choose(rows)
    assert chosen is not None and chosen == choose(rows)
    assert (chosen.total, chosen.improved, chosen.unchanged, chosen.degraded) == (43, 30, 3, 10)
    improved, degraded, drawn = (group for _, group in chosen.groups)
    assert [it.gain for it in improved] == list(range(30, 30 - IMPROVED, -1))
    assert [it.gain for it in degraded] == list(range(-10, -10 + DEGRADED))
    assert len({it.source for it in drawn}) == TOTAL - IMPROVED - DEGRADED


@pytest.mark.parametrize(
    ("text", "reference", "pieces"),
    [
        ("le poisson", "le poisson", [("same", "le poisson")]),
        ("la mer bleue.", "la mer verte.", [("same", "la mer"), ("same", " "), ("other", "bleue"), ("same", ".")]),
        ("l'eau", "l'eau est froide", [("same", "l'eau"), ("missing", "est froide")]),
        ("le le stock", "le stock", [("other", "le"), ("same", " le stock")]),
    ],
)
def test_words_that_differ_from_the_reference_are_marked(
    text: str, reference: str, pieces: list[tuple[str, str]]
) -> None:
    found = [(piece.kind, piece.text) for piece in compare(text, reference)]
    assert found == pieces
    assert "".join(words for kind, words in found if kind != "missing") == text
