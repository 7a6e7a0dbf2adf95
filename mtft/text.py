"""Texts: when two sentences count as the same, and how a person can be shown any."""

from __future__ import annotations

import re
import unicodedata

_NOT_WORDS = re.compile(r"[\W_]+")


def printable(text: str) -> str:
    """Return a text without what moves a terminal's cursor or hides: each such character as its escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each as :func:`printable` shows it."""
    return "\n".join(map(printable, text.split("\n")))


def loose_form(text: str) -> str:
    """Return the letters and digits of a text, case-folded, composed (NFKC); empty when it has none."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _NOT_WORDS.sub("", text.casefold())
