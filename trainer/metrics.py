"""Scores of translations: sacreBLEU's BLEU, chrF and TER, error rates, and the paired bootstrap.

Sources: Post 2018 (sacreBLEU), Popović 2015 (chrF), Snover et al. 2006 (TER), Koehn 2004 (bootstrap).
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER
from sacrebleu.significance import PairedTest

_REPEATS = 4
_LONGEST_LOOP = 4


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The paired bootstrap between two systems on one metric.

    Attributes:
        delta: tuned score - base score, points.
        p_value: chance of a difference at least this large if the systems were equal.
    """

    delta: float
    p_value: float


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


def error_rates(
    sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str], target_language: str
) -> dict[str, float]:
    """Return rates between 0 and 1 of translations that need no reference to be called wrong.

    ``empty``: nothing but white space. ``copy``: the source again, where the reference is not. ``repetition``:
    one to four words at least four times in a row, where the reference does not do so. ``off_target``: another
    language than asked, judged on the rows whose reference is recognised as the target language: English, French,
    German and Spanish are told apart, and other scripts seen.
    """
    count = max(1, len(hypotheses))
    rows = list(zip(sources, hypotheses, references, strict=True))
    judged = [hypothesis for _, hypothesis, reference in rows if language_of(reference) == target_language]
    strayed = sum(
        bool(text.strip()) and (not _is_latin(text) or language_of(text) not in (target_language, None))
        for text in judged
    )
    return {
        "empty": sum(not hypothesis.strip() for _, hypothesis, _ in rows) / count,
        "copy": sum(_same(s, h) and not _same(s, r) for s, h, r in rows) / count,
        "repetition": sum(repeats(h) and not repeats(r) for _, h, r in rows) / count,
        "off_target": strayed / max(1, len(judged)),
    }


def _is_latin(text: str) -> bool:
    """Whether most letters are Latin; a text without letters counts as such."""
    letters = [letter for letter in text if letter.isalpha()]
    return 2 * sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters) >= len(letters)


def repeats(text: str) -> bool:
    """Tell whether one to four words stand at least four times in a row."""
    words = text.split()
    for size in range(1, _LONGEST_LOOP + 1):
        run = 0
        for at in range(size, len(words)):
            run = run + 1 if words[at] == words[at - size] else 0
            if run >= size * (_REPEATS - 1):
                return True
    return False


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of the text's language among those told apart here, or None if unsure."""
    found = _detector().detect_language_of(text)
    return found.iso_code_639_1.name.lower() if found is not None else None


def compare(
    base: Sequence[str], tuned: Sequence[str], references: Sequence[str], samples: int
) -> dict[str, Comparison]:
    """Run sacreBLEU's paired bootstrap on BLEU and chrF; p is 1 for equal scores or fewer than two rows."""
    # sacreBLEU counts resamplings whose shift exceeds the difference: with no difference at all it says p = 0.
    if len(references) < 2 or list(base) == list(tuned):
        return {name: Comparison(delta=0.0, p_value=1.0) for name in ("bleu", "chrf")}
    targets = [list(references)]
    test = PairedTest(
        [("base", list(base)), ("tuned", list(tuned))],
        {"bleu": BLEU(references=targets), "chrf": CHRF(references=targets)},
        references=None,
        test_type="bs",
        n_samples=samples,
    )
    results: dict[str, Any] = test()[1]
    found = {}
    for name, key in (("bleu", "BLEU"), ("chrf", "chrF2")):
        base_result, tuned_result = results[key]
        delta = round(tuned_result.score - base_result.score, 4)
        found[name] = Comparison(delta=delta, p_value=float(tuned_result.p_value) if delta else 1.0)
    return found


@functools.cache
def _chrf() -> CHRF:
    return CHRF()


@functools.cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder  # its models cost 100 MB: only where text is judged

    languages = (Language.ENGLISH, Language.FRENCH, Language.GERMAN, Language.SPANISH)
    return LanguageDetectorBuilder.from_languages(*languages).with_minimum_relative_distance(0.1).build()


def _same(first: str, second: str) -> bool:
    return _plain(first) == _plain(second)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()
