"""Whether two systems differ on the same sentences by more than chance: paired bootstrap, McNemar's test, Holm.

Sources: Koehn 2004 (paired bootstrap), McNemar 1947, Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

SEED = 12345  # sacreBLEU's own
_CONFIDENCE = 95  # per cent


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The paired bootstrap between two systems on one metric.

    Attributes:
        delta: tuned score - rival's score, points.
        p_value: chance of a difference at least this large, either way, if the systems were equal.
        interval: 95 % confidence interval of the tuned score, points.
        rival_interval: the same of the rival.
    """

    delta: float
    p_value: float
    interval: tuple[float, float]
    rival_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class RateComparison:
    """The exact McNemar test between two systems on one fault.

    Attributes:
        worse: sentences that only the tuned model gets wrong.
        better: sentences that only the rival gets wrong.
        p_value: chance of a split at least this uneven, either way, if the systems were equal.
    """

    worse: int
    better: int
    p_value: float


def compare(
    rival: Sequence[str], tuned: Sequence[str], references: Sequence[str], samples: int
) -> dict[str, Comparison]:
    """Run the paired bootstrap on BLEU and chrF: sentences drawn with replacement, the same ones for both systems.

    The p-value counts the resamplings whose difference is at least as far from their mean as the observed one is from
    0, on either side. It is 1 for equal scores or fewer than two rows.
    """
    found = {}
    for name, metric in (("bleu", BLEU(references=[list(references)])), ("chrf", CHRF(references=[list(references)]))):
        statistics = [np.array(metric._extract_corpus_statistics(list(texts), None), float) for texts in (rival, tuned)]
        before, after = (_score(metric, each.sum(0)) for each in statistics)
        drawn = _resampled(metric, statistics, samples)
        delta, shifts = after - before, drawn[1] - drawn[0]
        far = int(np.sum(np.abs(shifts - shifts.mean()) >= abs(delta)))
        certain = len(references) < 2 or round(delta, 4) == 0
        found[name] = Comparison(
            delta=round(delta, 4),
            p_value=1.0 if certain else (far + 1) / (samples + 1),
            interval=_interval(drawn[1]),
            rival_interval=_interval(drawn[0]),
        )
    return found


def compare_faults(rival: Sequence[bool | None], tuned: Sequence[bool | None]) -> RateComparison:
    """Compare who has a fault, sentence by sentence; those not judged (None) are left out."""
    judged = [(before, after) for before, after in zip(rival, tuned, strict=True) if before is not None]
    worse = sum(bool(after) and not before for before, after in judged)
    better = sum(bool(before) and not after for before, after in judged)
    count, fewer = worse + better, min(worse, better)
    tail = sum(math.comb(count, hits) for hits in range(fewer + 1))
    return RateComparison(worse=worse, better=better, p_value=min(1.0, 2 * tail / 2**count))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold for all of them together: any at most p keeps one false alarm below p (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def samples_for(comparisons: int, max_p: float, at_least: int) -> int:
    """Return how many resamplings show a p-value of ``max_p`` after Holm over so many comparisons, and some below."""
    return max(at_least, math.ceil(4 * comparisons / max_p))


def _resampled(metric: Metric, statistics: list[npt.NDArray[Any]], samples: int) -> npt.NDArray[Any]:
    """Return the scores of each system (row) on each resampling (column); memory does not grow with the samples."""
    generator = np.random.default_rng(SEED)
    rows = len(statistics[0])
    both = np.hstack(statistics)
    scores = np.zeros((2, samples))
    for sample in range(samples if rows else 0):
        drawn = np.bincount(generator.integers(rows, size=rows), minlength=rows)
        for system, sums in enumerate(np.split(drawn @ both, 2)):
            scores[system, sample] = _score(metric, sums)
    return scores


def _score(metric: Metric, sums: npt.NDArray[Any]) -> float:
    # BLEU's smoothing and chrF's orders are sacreBLEU's own: nothing of a metric is written twice.
    return float(metric._compute_score_from_stats(sums.astype(int).tolist()).score)


def _interval(scores: npt.NDArray[Any]) -> tuple[float, float]:
    tail = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(scores, [tail, 100 - tail])
    return round(float(low), 2), round(float(high), 2)
