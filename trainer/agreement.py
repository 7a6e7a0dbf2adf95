"""What a translation takes over from its source as it stands: numbers, names, acronyms, formulas and units."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

# Of a text in its plain form, where no-break, thin and narrow no-break spaces are plain ones.
_NUMBER = re.compile(
    r"(?<![^\W_])(?:[0-9]{1,3}(?: [0-9]{3})+(?![0-9])(?:[.,][0-9]+)?|[0-9]+(?:[.,][0-9]+)*|(?<!\.)\.[0-9]+)"
)
_PERCENT = re.compile(r" ?(?:%|per ?cent\b|pour cent\b|p\. ?100\b)", re.I)
_WORD = re.compile(r"[^\W_]+")
_SWISS = re.compile(r"(?<=[0-9])['\u2019](?=[0-9]{3}(?![0-9]))")
_UNIT = re.compile(r"(?<=[0-9]) ?([^\W\d_]{1,3})(?![^\W_])")

# What a plain form would make a part of the word or number before it: marks of trade, and notes and powers of numbers;
# and soft hyphens.
_UNSEEN = re.compile(r"[\u2122\u2120\u00ad]|(?<=[0-9])[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")
_FRACTION = re.compile(r"(?:(?<![0-9.,])([0-9]+)\s?)?([\u00bc-\u00be\u2150-\u215e])")
_DIVIDED = re.compile(r"(?<![^\W_])(?:([0-9]+)\s)?([0-9]+)\u2044([1-9][0-9]*)")
_SLASHED = re.compile(r"(?<![^\W_])(?:([0-9]+) )?([1-9])/([1-9][0-9]?)(?![^\W_]|[/.,][0-9])")


def numbers(text: str, language: str, *, slashed: bool = False) -> Counter[str]:
    """Return the numbers of a text with how often each stands there, written alike for English and French.

    ``1,234.5`` in English and ``1 234,5`` in French are both ``1234.5``; ``12,5`` is ``12.5`` in either; a single
    separator before exactly three digits divides thousands but for the language's own decimal sign (``1,234`` is 1234
    in English and 1.234 in French); one that comes twice divides thousands where all groups have three digits, else
    it is a number like ``7.2.1``. ``5 %``, ``5 per cent``, ``5 pour cent`` and ``5 p. 100`` are ``5%``. Leading zeros
    are dropped. ``3½`` is ``3.5``, as ``3 1/2`` is with ``slashed`` (with a fraction slash: always). ``1’234`` is 1234.
    Not looked at are signs, raised digits behind a digit (``10²``), and digits behind a letter (``B12``: see
    :func:`entities`).
    """
    found: Counter[str] = Counter()
    text = _FRACTION.sub(lambda match: _decimal(match[1], unicodedata.numeric(match[2]), language), text)
    text = _SWISS.sub("", _plain_form(text))
    for divided in (_DIVIDED, _SLASHED) if slashed else (_DIVIDED,):
        text = divided.sub(lambda match: _decimal(match[1], int(match[2]) / int(match[3]), language), text)
    at = 0
    while match := _NUMBER.search(text, at):
        percent = _PERCENT.match(text, match.end())
        found[_plain(match.group(), language) + ("%" if percent else "")] += 1
        at = (percent or match).end()
    return found


def entities(text: str) -> set[str]:
    """Return the words of a text that a translation into another language may have to copy letter by letter.

    Words are runs of letters and digits. Those taken have a capital letter or both letters and digits (``Gadus``,
    ``NAFO``, ``B12``, ``pH``); the first word of the text only where more than its first letter says so. Also taken are
    one to three letters right behind a number (``kg`` in ``5 kg``). ``CO₂`` is ``CO2``.
    """
    text = _plain_form(text)
    words = list(_WORD.finditer(text))
    taken = {match.group() for match in words if _stands_out(match.group())}
    if words and not _stands_out(words[0].group()[1:]) and words[0].group()[0].isalpha():
        first = words[0].group()
        taken -= {first} - {match.group() for match in words[1:]}
    return taken | {match.group(1) for match in _UNIT.finditer(text)}


def keeps_numbers(source: str, hypothesis: str, reference: str, languages: tuple[str, str]) -> bool | None:
    """Tell whether every number that source and reference share is in the hypothesis as often; None: they share none.

    What the human translator wrote otherwise (``14 h`` for ``2 p.m.``) is not asked for. ``1/2`` may be one number or
    two: those of one reading have to be there.
    """
    kept = []
    for slashed in (False, True):
        wanted = numbers(source, languages[0], slashed=slashed) & numbers(reference, languages[1], slashed=slashed)
        if wanted:
            kept.append(wanted <= numbers(hypothesis, languages[1], slashed=slashed))
    return any(kept) if kept else None


def keeps_entities(source: str, hypothesis: str, reference: str) -> bool | None:
    """Tell whether every word that the reference copied from the source is in the hypothesis; None: there is none.

    See :func:`entities` for the words looked at; the hypothesis may have them anywhere.
    """
    wanted = entities(source) & entities(reference)
    if not wanted:
        return None
    words = set(_WORD.findall(_plain_form(hypothesis)))
    return wanted <= words | entities(hypothesis)


def _plain_form(text: str) -> str:
    """Write a text with plain signs where it has others that mean the same (NFKC): CO2 for CO₂, m2 for m²."""
    return text if text.isascii() else unicodedata.normalize("NFKC", _UNSEEN.sub("", text))


def _decimal(whole: str | None, part: float, language: str) -> str:
    sign = "," if language == "fr" else "."
    return f" {int(whole or 0) + part:.3f}".rstrip("0").rstrip(".").replace(".", sign)


def _plain(number: str, language: str) -> str:
    """Write a number with a decimal point and nothing else."""
    number = number.replace(" ", "")
    signs = re.findall(r"[.,]", number)
    groups = re.split(r"[.,]", number)
    if len(set(signs)) == 2:  # the last one is the decimal sign
        whole, last = "".join(groups[:-1]), groups[-1:]
    elif len(signs) > 1:
        thousands = all(len(group) == 3 for group in groups[1:]) and len(groups[0]) <= 3
        whole, last = ("".join(groups), []) if thousands else (groups[0], groups[1:])
    elif signs and _divides_thousands(signs[0], groups, language):
        whole, last = "".join(groups), []
    else:
        whole, last = groups[0], groups[1:]
    return ".".join([whole.lstrip("0") or "0", *last])


def _divides_thousands(sign: str, groups: list[str], language: str) -> bool:
    decimal = "," if language == "fr" else "."
    return sign != decimal and len(groups[1]) == 3 and 1 <= len(groups[0]) <= 3 and groups[0] != "0"


def _stands_out(word: str) -> bool:
    letters = any(character.isalpha() for character in word)
    return letters and any(character.isupper() or character.isdigit() for character in word)
