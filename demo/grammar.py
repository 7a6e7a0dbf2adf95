"""English and French surface forms: articles, elision, contraction, agreement, conjugation, numbers.

Everything works on :class:`Text`, one meaning in both languages, so that a sentence is written once as a row of parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

NBSP = "\u00a0"  # before % and : in French
THIN = "\u202f"  # before ; and ?, and between groups of three digits, in French

Number = Literal["both", "singular", "plural"]
Determiner = Literal["the", "a", "this", "each", "no", "some", "bare"]
Tense = Literal["present", "past", "perfect", "future"]
Modal = Literal["must", "should", "may", "could"]


class Text(NamedTuple):
    """One stretch of meaning in both languages."""

    en: str
    fr: str


class Phrase(NamedTuple):
    """A noun phrase with its determiner, and what other words agree with. Gender and ``plural`` are the French ones."""

    en: str
    fr: str
    feminine: bool
    plural: bool


@dataclass(frozen=True, slots=True)
class Noun:
    """A noun: ``en`` and ``fr`` hold (singular, plural); ``fr_tail`` follows a French adjective and never changes."""

    en: tuple[str, str]
    fr: tuple[str, str]
    fr_tail: str
    feminine: bool
    number: Number


@dataclass(frozen=True, slots=True)
class Adjective:
    """An adjective: ``fr`` holds (masculine, feminine, masculine before a vowel); it may stand ``before`` the noun."""

    en: str
    fr: tuple[str, str, str]
    before: bool


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb, third person only. ``en``: base, third, past, participle; ``fr``: see the field names."""

    en: tuple[str, str, str, str]
    infinitive: str
    singular: str
    plural: str
    participle: str
    future: str
    with_etre: bool


class Place(NamedTuple):
    """A place: ``name`` with its article, and where something in it happens."""

    name: Text
    where: Text


# --- sounds -----------------------------------------------------------------------------------------------------------

_VOWELS = frozenset("aàâeéèêëiîïoôuûyœ")
_ASPIRATED = ("haddock", "hareng", "hausse", "haut", "homard", "huit")


def starts_with_vowel(fr: str) -> bool:
    """Tell whether French elides before this text: a vowel or a mute h."""
    word = fr.lower()
    return word[:1] in _VOWELS or (word[:1] == "h" and not word.startswith(_ASPIRATED))


def elide(word: str, following: str) -> str:
    """Join ``de``, ``que``, ``ne``, ``le``... to the next text: ``d'eau``, ``qu'elle``, ``n'a``, ``le hareng``."""
    return f"{word[:-1]}'{following}" if starts_with_vowel(following) else f"{word} {following}"


def de(fr: str) -> str:
    """Put French ``de`` before a noun phrase: ``du stock``, ``des prises``, ``de l'eau``, ``d'un relevé``."""
    if fr.startswith("le "):
        return "du " + fr[3:]
    if fr.startswith("les "):
        return "des " + fr[4:]
    if fr.startswith("des "):  # de + indefinite plural: the article vanishes
        return elide("de", fr[4:])
    return elide("de", fr)


def a_(fr: str) -> str:
    """Put French ``à`` before a noun phrase: ``au stock``, ``aux prises``, ``à l'eau``, ``à la limite``."""
    if fr.startswith("le "):
        return "au " + fr[3:]
    if fr.startswith("les "):
        return "aux " + fr[4:]
    return "à " + fr


# --- joining ----------------------------------------------------------------------------------------------------------


def say(*parts: Text | Phrase) -> Text:
    """Join parts with spaces."""
    return Text(" ".join([part[0] for part in parts]), " ".join([part[1] for part in parts]))


def opening(part: Text) -> Text:
    """Close an opening adjunct or clause with a comma."""
    return Text(part.en + ",", part.fr + ",")


def of(phrase: Text | Phrase, en: str = "of") -> Text:
    """Say ``of`` (or another English word for the same French ``de``) and a noun phrase."""
    return Text(f"{en} {phrase[0]}", de(phrase[1]))


def to(phrase: Text | Phrase, en: str = "to", lead: str = "") -> Text:
    """Say ``to`` with French ``à``; ``lead`` is a French word that governs it (``grâce``, ``inférieur``)."""
    return Text(f"{en} {phrase[0]}", f"{lead} {a_(phrase[1])}" if lead else a_(phrase[1]))


def before_clause(en: str, fr: str, clause: Text | Phrase) -> Text:
    """Open a clause or comparison with a word that elides: ``que``, ``lorsque``, ``puisque``."""
    return Text(f"{en} {clause[0]}", elide(fr, clause[1]))


def if_(clause: Text) -> Text:
    """Say ``if``; French ``si`` elides before ``il`` and ``ils`` only."""
    return Text(f"if {clause.en}", f"s'{clause.fr}" if clause.fr.startswith(("il ", "ils ")) else f"si {clause.fr}")


def sentence(text: Text, end: Literal[".", "?"] = ".") -> Text:
    """Finish a sentence: an upper-case first letter and the final mark, spaced as each language does."""
    mark = f"{THIN}?" if end == "?" else end
    return Text(text.en[0].upper() + text.en[1:] + end, text.fr[0].upper() + text.fr[1:] + mark)


def semicolon(first: Text, second: Text) -> Text:
    """Join two clauses with a semicolon."""
    return Text(f"{first.en}; {second.en}", f"{first.fr}{THIN}; {second.fr}")


def colon(first: Text, second: Text) -> Text:
    """Announce something with a colon."""
    return Text(f"{first.en}: {second.en}", f"{first.fr}{NBSP}: {second.fr}")


def both(first: Text | Phrase, second: Text | Phrase) -> Text:
    """Join two parts with ``and``."""
    return Text(f"{first[0]} and {second[0]}", f"{first[1]} et {second[1]}")


# --- noun phrases -----------------------------------------------------------------------------------------------------


def agree(masculine: str, subject: Phrase) -> str:
    """Agree a French past participle with a phrase."""
    form = masculine + "e" if subject.feminine else masculine
    return form + "s" if subject.plural and form[-1] not in "sx" else form


def adjective_form(adjective: Adjective, feminine: bool, plural: bool, following: str = "") -> str:
    """Return the French form; ``following`` is the next word, for ``nouvel`` and its like."""
    masculine, feminine_form, before_vowel = adjective.fr
    if feminine:
        return feminine_form + "s" if plural else feminine_form
    if plural:
        return pluralise(masculine)
    return before_vowel if following and starts_with_vowel(following) else masculine


def pluralise(fr: str) -> str:
    """Return the regular French plural of one word."""
    if fr[-1] in "sxz":
        return fr
    if fr.endswith("al"):
        return fr[:-2] + "aux"
    return fr + ("x" if fr.endswith(("eau", "eu")) else "s")


def noun_phrase(
    determiner: Determiner,
    noun: Noun,
    *,
    plural: bool = False,
    adjective: Adjective | None = None,
    of_noun: Noun | None = None,
) -> Phrase:
    """Build a noun phrase; ``of_noun`` stands before the English noun and after ``de`` in French (``cod biomass``).

    ``plural`` is ignored for nouns that have one number only.
    """
    plural = noun.number == "plural" or (plural and noun.number == "both")
    en, fr = noun.en[plural], noun.fr[plural]
    if of_noun:
        en = f"{of_noun.en[0]} {en}"
    preposed = adjective is not None and adjective.before
    if adjective:
        en = f"{adjective.en} {en}"
        form = adjective_form(adjective, noun.feminine, plural, fr)
        fr = f"{form} {fr}" if preposed else f"{fr} {form}"
    fr += noun.fr_tail
    if of_noun:
        fr = f"{fr} {elide('de', of_noun.fr[0] + of_noun.fr_tail)}"
    return Phrase(
        _english(determiner, en, plural),
        _french(determiner, fr, noun.feminine, plural, preposed),
        noun.feminine,
        plural,
    )


def counted(count: Text, noun: Noun, adjective: Adjective | None = None) -> Phrase:
    """Build ``12 fish`` for a count of two or more."""
    bare = noun_phrase("bare", noun, plural=True, adjective=adjective)
    return Phrase(f"{count.en} {bare.en}", f"{count.fr} {bare.fr}", bare.feminine, bare.plural)


def _english(determiner: Determiner, group: str, plural: bool) -> str:
    if determiner == "bare" or determiner == "some" or (determiner == "a" and plural):
        return group
    if determiner == "a":
        return f"an {group}" if group[0] in "aeiou" else f"a {group}"
    if determiner == "this" and plural:
        return f"these {group}"
    return f"{determiner} {group}"


def _french(determiner: Determiner, group: str, feminine: bool, plural: bool, preposed: bool) -> str:
    match determiner:
        case "the":
            return f"les {group}" if plural else elide("la" if feminine else "le", group)
        case "this":
            masculine = "cet" if starts_with_vowel(group) else "ce"
            return f"{'ces' if plural else 'cette' if feminine else masculine} {group}"
        case "a" | "some" if plural:  # the article shrinks before an adjective: de nouveaux filets
            return elide("de", group) if preposed else f"des {group}"
        case "a":
            return f"{'une' if feminine else 'un'} {group}"
        case "some":  # partitive
            return de(_french("the", group, feminine, plural, preposed))
        case "each":
            return f"chaque {group}"
        case "no":
            return f"{'aucune' if feminine else 'aucun'} {group}"
        case "bare":
            return group


def pronoun(phrase: Phrase) -> Phrase:
    """Return the subject pronoun that stands for a thing."""
    french = ("elle" if phrase.feminine else "il") + ("s" if phrase.plural else "")
    return Phrase("they" if phrase.plural else "it", french, phrase.feminine, phrase.plural)
