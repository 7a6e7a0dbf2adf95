"""What is wrong with single translations, whatever their score: empty, looping, another language, lost numbers."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from trainer.agreement import keeps_entities, keeps_numbers
from trainer.pairs import Pair

ERRORS = ("empty", "copy", "repetition", "off_target")
"""Shares of translations that are wrong; lower is better."""
AGREEMENT = ("numbers", "entities")
"""Shares of translations that keep what they have to; higher is better."""

_REPEATS = 4
_LONGEST_LOOP = 4


def faults(pairs: Sequence[Pair], hypotheses: Sequence[str]) -> dict[str, list[bool | None]]:
    """Tell of every translation whether it has each fault; None where that cannot be judged.

    ``empty``: nothing but white space. ``copy``: the source again, where the reference is not. ``repetition``:
    one to four words at least four times in a row, where the reference does not do so. ``off_target``: another
    language than asked, judged where the reference is recognised as the target language: English, French,
    German and Spanish are told apart, and other scripts seen. ``numbers`` and ``entities``: one that source and
    reference share is missing, judged where they share one (:mod:`trainer.agreement`).
    """
    found: dict[str, list[bool | None]] = {name: [] for name in (*ERRORS, *AGREEMENT)}
    for pair, text in zip(pairs, hypotheses, strict=True):
        source, reference, target = pair.source, pair.reference, pair.direction[1]
        found["empty"].append(not text.strip())
        found["copy"].append(_same(source, text) and not _same(source, reference))
        found["repetition"].append(repeats(text) and not repeats(reference))
        found["off_target"].append(_strays(text, target) if language_of(reference) == target else None)
        found["numbers"].append(_not(keeps_numbers(source, text, reference, pair.direction)))
        found["entities"].append(_not(keeps_entities(source, text, reference)))
    return found


def rates(found: dict[str, list[bool | None]]) -> dict[str, float]:
    """Return the share of each fault among the translations judged, 0 to 1; of ``AGREEMENT`` the share without it."""
    shares = {}
    for name, flags in found.items():
        judged = [flag for flag in flags if flag is not None]
        share = sum(judged) / max(1, len(judged))
        shares[name] = round(1 - share if name in AGREEMENT else share, 6)
    return shares


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


@functools.lru_cache(maxsize=1 << 16)  # each reference is asked for with every system
def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of the text's language among those told apart here, or None if unsure."""
    found = _detector().detect_language_of(text)
    return found.iso_code_639_1.name.lower() if found is not None else None


def _strays(text: str, target: str) -> bool:
    return bool(text.strip()) and (not _is_latin(text) or language_of(text) not in (target, None))


def _is_latin(text: str) -> bool:
    """Whether most letters are Latin; a text without letters counts as such."""
    letters = [letter for letter in text if letter.isalpha()]
    return 2 * sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters) >= len(letters)


def _not(flag: bool | None) -> bool | None:
    return None if flag is None else not flag


@functools.cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder  # its models cost 100 MB: only where text is judged

    languages = (Language.ENGLISH, Language.FRENCH, Language.GERMAN, Language.SPANISH)
    return LanguageDetectorBuilder.from_languages(*languages).with_minimum_relative_distance(0.1).build()


def _same(first: str, second: str) -> bool:
    return _plain(first) == _plain(second)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().casefold()
