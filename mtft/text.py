"""When two sentences count as the same but for case, punctuation and spacing."""

from __future__ import annotations

import re
import unicodedata

_NOT_WORDS = re.compile(r"[\W_]+")


def loose_form(text: str) -> str:
    """Return the letters and digits of a text, case-folded, composed (NFKC); empty when it has none."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _NOT_WORDS.sub("", text.casefold())
