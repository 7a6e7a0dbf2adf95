"""Verb phrases in both languages: tense, negation, passive, modals, third person only."""

from __future__ import annotations

from demo.grammar import Adjective, Modal, Phrase, Tense, Text, Verb, adjective_form, agree, elide

_MODALS: dict[Modal, tuple[str, str]] = {
    "must": ("doit", "doivent"),
    "should": ("devrait", "devraient"),
    "may": ("peut", "peuvent"),
    "could": ("pourrait", "pourraient"),
}
_BE: dict[Tense, tuple[str, str]] = {
    "present": ("is", "are"),
    "past": ("was", "were"),
    "perfect": ("has been", "have been"),
    "future": ("will be", "will be"),
}
_ETRE: dict[Tense, tuple[str, str]] = {  # a state in the past is imperfect
    "present": ("est", "sont"),
    "past": ("était", "étaient"),
    "perfect": ("a été", "ont été"),
    "future": ("sera", "seront"),
}
_PASSIVE: dict[Tense, tuple[str, str]] = {**_ETRE, "past": ("a été", "ont été")}  # an event in the past is not


def does(verb: Verb, subject: Phrase, tense: Tense, *, adverb: Text | None = None, negative: bool = False) -> Text:
    """Conjugate an active verb for its subject; the adverb follows the English verb."""
    english = _english_active(verb, subject.plural, tense, negative)
    if adverb:
        english = f"{english} {adverb.en}"
    if tense == "present":
        finite, participle = (verb.plural if subject.plural else verb.singular), ""
    elif tense == "future":
        finite, participle = verb.future + ("ont" if subject.plural else "a"), ""
    elif verb.with_etre:
        finite, participle = _ETRE["present"][subject.plural], agree(verb.participle, subject)
    else:
        finite, participle = "ont" if subject.plural else "a", verb.participle
    return Text(english, _french_group(finite, participle, adverb, negative))


def done(verb: Verb, subject: Phrase, tense: Tense, *, negative: bool = False) -> Text:
    """Conjugate the passive of a verb for its subject."""
    french = _PASSIVE[tense][subject.plural]
    finite, _, rest = french.partition(" ")
    participle = agree(verb.participle, subject)
    return Text(
        f"{_english_be(subject.plural, tense, negative)} {verb.en[3]}",
        _french_group(finite, f"{rest} {participle}" if rest else participle, None, negative),
    )


def is_(subject: Phrase, tense: Tense, rest: Text, *, negative: bool = False) -> Text:
    """Say that the subject is something; ``rest`` agrees already."""
    finite, _, participle = _ETRE[tense][subject.plural].partition(" ")
    english = _english_be(subject.plural, tense, negative)
    return Text(f"{english} {rest.en}", f"{_french_group(finite, participle, None, negative)} {rest.fr}")


def quality(adjective: Adjective, subject: Phrase) -> Text:
    """Return a predicative adjective that agrees with its subject."""
    return Text(adjective.en, adjective_form(adjective, subject.feminine, subject.plural))


def modal(word: Modal, verb: Verb, subject: Phrase, *, passive: bool = False, negative: bool = False) -> Text:
    """Say that the subject must, should, may or could do something, or have it done to it."""
    finite = _MODALS[word][subject.plural]
    if negative:
        finite = f"{elide('ne', finite)} pas"
    english = f"{word} not" if negative else word
    if passive:
        return Text(f"{english} be {verb.en[3]}", f"{finite} être {agree(verb.participle, subject)}")
    return Text(f"{english} {verb.en[0]}", f"{finite} {verb.infinitive}")


def question(verb: Verb, subject: Phrase, tense: Tense) -> Text:
    """Ask whether the subject does something."""
    auxiliary = {"present": "do" if subject.plural else "does", "past": "did", "future": "will"}[tense]
    clause = f"{subject.fr} {does(verb, subject, tense).fr}"
    return Text(f"{auxiliary} {subject.en} {verb.en[0]}", elide("est-ce que", clause))


def infinitive(verb: Verb, french: str = "pour") -> Text:
    """Say ``to do`` as a purpose, or with another French preposition."""
    return Text(f"to {verb.en[0]}", elide(french, verb.infinitive) if french == "de" else f"{french} {verb.infinitive}")


def done_since(verb: Verb, subject: Phrase) -> Text:
    """Say what state the subject has been in since some time; French has the present there."""
    return Text(done(verb, subject, "perfect").en, done(verb, subject, "present").fr)


def relative_object(antecedent: Phrase, subject: Phrase, verb: Verb) -> Text:
    """Say what someone did to the antecedent; the participle agrees with it, as it stands before ``avoir``."""
    have = "ont" if subject.plural else "a"
    clause = f"{subject.fr} {have} {agree(verb.participle, antecedent)}"
    return Text(f"that {subject.en} {verb.en[2]}", elide("que", clause))


def not_able(verb: Verb, subject: Phrase) -> Text:
    """Say that something could not be done to the subject."""
    have = "n'ont" if subject.plural else "n'a"
    return Text(f"could not be {verb.en[3]}", f"{have} pas pu être {agree(verb.participle, subject)}")


def _french_group(finite: str, participle: str, adverb: Text | None, negative: bool) -> str:
    """Order finite verb, negation, adverb and participle as French does."""
    words = [elide("ne", finite) + " pas" if negative else finite]
    if adverb:
        words.append(adverb.fr)
    if participle:
        words.append(participle)
    return " ".join(words)


def _english_active(verb: Verb, plural: bool, tense: Tense, negative: bool) -> str:
    base, third, past, participle = verb.en
    match tense:
        case "present":
            return f"{'do' if plural else 'does'} not {base}" if negative else base if plural else third
        case "past":
            return f"did not {base}" if negative else past
        case "perfect":
            return f"{'have' if plural else 'has'}{' not' if negative else ''} {participle}"
        case "future":
            return f"will{' not' if negative else ''} {base}"


def _english_be(plural: bool, tense: Tense, negative: bool) -> str:
    first, _, rest = _BE[tense][plural].partition(" ")
    words = [first, *(["not"] if negative else []), *([rest] if rest else [])]
    return " ".join(words)
