"""Readers of word tables: one word a line, columns split by ``|``, regular inflections filled in.

Nouns: ``English[/plural] | gender | French[/plural]``. Gender is ``m`` or ``f``, then ``=`` for singular only or ``+``
for plural only (the forms given are then plural). The first French word takes the plural, and every word marked ``*``;
``~`` marks where an adjective goes when that is not the end.
Adjectives: ``English | masculine [feminine [masculine before a vowel]] [| before]``.
Verbs: ``base [past [participle]] | infinitive [singular plural participle future-stem]``, ``+`` for those with être.
Places: ``preposition | English | preposition | French [| article of the French name, where missing]``.
Texts: ``English | French``.
"""

from __future__ import annotations

from demo.grammar import Adjective, Noun, Number, Place, Text, Verb, pluralise

_NUMBERS: dict[str, Number] = {"": "both", "=": "singular", "+": "plural"}
_FEMININE_ENDINGS = (("if", "ive"), ("eux", "euse"), ("el", "elle"), ("en", "enne"), ("er", "ère"), ("e", "e"))


def nouns(table: str) -> tuple[Noun, ...]:
    """Read a table of nouns."""
    return tuple(noun(line) for line in _lines(table))


def noun(line: str) -> Noun:
    """Read one noun."""
    en, gender, fr = _columns(line)
    head, slot, tail = fr.partition(" ~ ")
    number = _NUMBERS[gender[1:]]
    if number == "plural":
        en_forms, fr_forms = (en, en), (head, head)
    else:
        en_forms, fr_forms = _english_forms(en), _french_forms(head)
    return Noun(en_forms, fr_forms, f" {tail}" if slot else "", gender[0] == "f", number)


def adjectives(table: str) -> tuple[Adjective, ...]:
    """Read a table of adjectives."""
    return tuple(adjective(line) for line in _lines(table))


def adjective(line: str) -> Adjective:
    """Read one adjective."""
    en, fr, *position = _columns(line)
    masculine, *others = fr.split()
    feminine = others[0] if others else _feminine(masculine)
    return Adjective(en, (masculine, feminine, others[1] if len(others) > 1 else masculine), position == ["before"])


def verbs(table: str) -> tuple[Verb, ...]:
    """Read a table of verbs."""
    return tuple(verb(line) for line in _lines(table))


def verb(line: str) -> Verb:
    """Read one verb."""
    en, fr = _columns(line)
    base, *rest = en.split()
    past = rest[0] if rest else _past(base)
    french = fr.removeprefix("+").split()
    infinitive, singular, plural, participle, future = french if len(french) == 5 else _regular(*french)
    english = (base, _third(base), past, rest[1] if len(rest) > 1 else past)
    return Verb(english, infinitive, singular, plural, participle, future, fr.startswith("+"))


def places(table: str) -> tuple[Place, ...]:
    """Read a table of places."""
    return tuple(_place(*_columns(line)) for line in _lines(table))


def texts(table: str) -> tuple[Text, ...]:
    """Read a table of fixed expressions."""
    return tuple(Text(*_columns(line)) for line in _lines(table))


def _place(preposition: str, en: str, french_preposition: str, fr: str, article: str = "") -> Place:
    name = Text(en, f"{article} {fr}" if article else fr)
    return Place(name, Text(f"{preposition} {en}", f"{french_preposition} {fr}"))


def _lines(table: str) -> list[str]:
    return [line for line in table.splitlines() if line.strip()]


def _columns(line: str) -> list[str]:
    return [column.strip() for column in line.split("|")]


def _english_forms(en: str) -> tuple[str, str]:
    singular, slash, plural = en.partition("/")
    return singular, plural if slash else _third(singular)


def _third(word: str) -> str:
    """Add the English -s of nouns and verbs."""
    if word.endswith(("s", "sh", "ch", "x", "z")):
        return word + "es"
    return word[:-1] + "ies" if word[-1] == "y" and word[-2] not in "aeiou" else word + "s"


def _past(base: str) -> str:
    if base[-1] == "y" and base[-2] not in "aeiou":
        return base[:-1] + "ied"
    return base + ("d" if base[-1] == "e" else "ed")


def _french_forms(head: str) -> tuple[str, str]:
    singular, slash, plural = head.partition("/")
    if slash:
        return singular, plural
    words = head.split()
    changed = [
        pluralise(word.rstrip("*")) if index == 0 or word[-1] == "*" else word for index, word in enumerate(words)
    ]
    return head.replace("*", ""), " ".join(changed)


def _feminine(masculine: str) -> str:
    for ending, feminine in _FEMININE_ENDINGS:
        if masculine.endswith(ending):
            return masculine.removesuffix(ending) + feminine
    return masculine + "e"


def _regular(infinitive: str) -> tuple[str, str, str, str, str]:
    """Conjugate a regular verb in -er, or in -ir like ``fournir``."""
    stem = infinitive[:-2]
    if infinitive.endswith("er"):
        return infinitive, stem + "e", stem + "ent", stem + "é", infinitive
    return infinitive, stem + "it", stem + "issent", stem + "i", infinitive
