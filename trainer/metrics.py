"""Scores of translations: sacreBLEU's BLEU, chrF and TER.

Sources: Post 2018 (sacreBLEU), Popović 2015 (chrF), Snover et al. 2006 (TER).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER


def score(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Return corpus BLEU, chrF and TER (points, 0 to 100 but for TER) with their signatures.

    Returns:
        ``{"bleu", "chrf", "ter", "n", "signatures": {"bleu", "chrf", "ter"}}``.
    """
    result: dict[str, Any] = {"n": len(hypotheses), "signatures": {}}
    for name, make in (("bleu", BLEU), ("chrf", CHRF), ("ter", TER)):
        metric = make()
        result[name] = round(metric.corpus_score(list(hypotheses), [list(references)]).score, 4)
        result["signatures"][name] = str(metric.get_signature())
    return result


def quick(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """Return corpus BLEU and chrF alone: TER takes many times as long."""
    found = {
        name: round(metric.corpus_score(list(hypotheses), [list(references)]).score, 4)
        for name, metric in (("bleu", BLEU()), ("chrf", CHRF()))
    }
    return {"n": len(hypotheses), **found}


def sentence_chrf(hypothesis: str, reference: str) -> float:
    """Return chrF of one sentence, 0 to 100."""
    value: float = _chrf().sentence_score(hypothesis, [reference]).score
    return value


@functools.cache
def _chrf() -> CHRF:
    return CHRF()
