"""Sentence patterns of aquaculture, habitat and contaminants: farms, health, water, works, pollution."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from demo import aquaculture_words as lx
from demo.adjuncts import decimal, framed, in_month, integer, measure, percent
from demo.grammar import (
    Adjective,
    Noun,
    Phrase,
    Tense,
    Text,
    a_,
    adjective_form,
    before_clause,
    both,
    colon,
    counted,
    de,
    elide,
    noun_phrase,
    of,
    opening,
    say,
    sentence,
    to,
)
from demo.verbs import does, done, infinitive, modal, quality, question


def transfer(rng: Random) -> Text:
    """``In May 2014, the grower delivered 12,000 smolts to the hatchery in Nova Scotia.``"""
    worker = _worker(rng)
    fish = counted(integer(100 * rng.randint(2, 400)), rng.choice(lx.ORGANISMS))
    site = _the(rng.choice(lx.SITES), rng.random() < 0.3)
    verb = does(rng.choice(lx.CARRYING), worker, "past")
    return framed(rng, say(worker, verb, fish, to(site), _of_place(rng)), in_month(rng))


def concentration(rng: Random) -> Text:
    """``The concentration of copper in the mud of the estuary is 12.4 milligrams per kilogram.``"""
    metal, wet = rng.choice(lx.METALS), rng.random() < 0.5
    medium = _the(rng.choice(lx.WATERS if wet else lx.SOLIDS))
    name = Text(f"the concentration of {metal.en[0]}", f"la concentration {elide('de', metal.fr[0])}")
    value = measure(rng.randint(2, 999), rng.choice((lx.MILLIGRAM, lx.MICROGRAM)))
    verb = rng.choice((Text("is", "est de"), Text("was", "était de"), Text("came close to", "s'est approchée de")))
    per = _PER_LITRE if wet else Text("per kilogram", "par kilogramme")
    return sentence(say(name, Text(f"in {medium.en}", f"dans {medium.fr}"), of(_habitat(rng)), verb, value, per))


def threshold(rng: Random) -> Text:
    """``When the temperature rises to 18.5 degrees, the larvae do not survive.``"""
    index = rng.randrange(3)
    variable = _the(lx.VARIABLES[index])
    if index == 0:
        value = measure(rng.randint(20, 280), lx.DEGREE)
    elif index == 1:
        value = say(decimal(rng.randint(20, 360)), Text("parts per thousand", "parties par millier"))
    else:
        value = say(measure(rng.randint(20, 120), lx.MILLIGRAM), _PER_LITRE)
    change = does(rng.choice(lx.MOVING), variable, "present")
    first = before_clause("when", "lorsque", say(variable, change, Text(f"to {value.en}", f"à {value.fr}")))
    animals = _the(rng.choice(lx.ORGANISMS), True)
    second = does(rng.choice(lx.LIVING), animals, "present", negative=rng.random() < 0.5)
    return framed(rng, say(animals, second, _within(_the(rng.choice(lx.HOLDING), True))), first)


def upkeep(rng: Random) -> Text:
    """``The nets of the farm must be cleaned every 3 weeks.``"""
    item = _item(rng, plural=rng.random() < 0.6)
    obligation = modal(rng.choice(("must", "should")), rng.choice(lx.HANDLING), item, passive=True)
    every = counted(integer(rng.randint(2, 12)), rng.choice(lx.INTERVALS))
    period = Text(f"every {every.en}", f"{'toutes' if every.feminine else 'tous'} les {every.fr}")
    return sentence(say(item, of(_the(rng.choice(lx.SITES))), obligation, period))


def capacity(rng: Random) -> Text:
    """``Each cage holds 20,000 smolts in Nova Scotia.``"""
    holder = noun_phrase("each", rng.choice(lx.HOLDING), adjective=_maybe(rng, lx.MAKES, 0.5))
    animals = counted(integer(100 * rng.randint(2, 400)), rng.choice(lx.ORGANISMS))
    verb = does(rng.choice(lx.HOLD), holder, rng.choice(("present", "future")))
    return sentence(say(holder, of(_the(rng.choice(lx.SITES))), verb, animals))


def presence(rng: Random) -> Text:
    """``There is no virus in the tanks of the hatchery.``, ``There are 12 cages in the lagoon.``"""
    if rng.random() < 0.5:
        thing = noun_phrase("no", rng.choice(lx.PATHOGENS))
        there = Text(f"there is {thing.en}", f"il n'y a {thing.fr}")
        holders = noun_phrase("the", rng.choice(lx.HOLDING), plural=True, adjective=_maybe(rng, lx.MAKES, 0.7))
        return framed(rng, say(there, _within(holders), of(_the(rng.choice(lx.SITES)))), _place(rng))
    things = counted(integer(rng.randint(2, 90)), rng.choice(lx.EQUIPMENT), rng.choice(lx.MAKES))
    return sentence(say(Text(f"there are {things.en}", f"il y a {things.fr}"), _within(_habitat(rng)), _of_place(rng)))


def protection(rng: Random) -> Text:
    """``The new vaccine protects the smolts against the virus.``"""
    remedy = noun_phrase(
        rng.choice(("the", "this", "a")), rng.choice(lx.REMEDIES), adjective=_maybe(rng, (lx.NEW,), 0.3)
    )
    animals = _the(rng.choice(lx.ORGANISMS), True)
    danger = _the(rng.choice(lx.PATHOGENS + lx.HAZARDS))
    verb = does(lx.PROTECT, remedy, rng.choice(("present", "past", "future")), negative=rng.random() < 0.3)
    return sentence(say(remedy, verb, animals, Text(f"against {danger.en}", f"contre {danger.fr}")))


def purpose(rng: Random) -> Text:
    """``To protect the mussels, the operator replaced the old pump.``"""
    aim = say(infinitive(rng.choice(lx.HELPING)), _the(rng.choice(lx.ORGANISMS), True))
    worker = _worker(rng)
    verb = does(rng.choice(lx.HANDLING), worker, rng.choice(("past", "future")))
    return framed(rng, say(worker, verb, _item(rng)), aim)


def count_of_lice(rng: Random) -> Text:
    """``After the bath, the number of sea lice per smolt went from 4.2 to 0.8.``"""
    pest, host = rng.choice(lx.PATHOGENS[:2] + lx.PATHOGENS[6:7]), rng.choice(lx.FINFISH[:6])
    pests = noun_phrase("bare", pest, plural=True)
    number = Text(f"the number of {pests.en} per {host.en[0]}", f"le nombre {de(pests.fr)} par {host.fr[0]}")
    first = rng.randint(20, 150)
    before, after = decimal(first), decimal(rng.randint(1, first - 1))
    went = Text(f"went from {before.en} to {after.en}", f"est passé de {before.fr} à {after.fr}")
    remedy = _the(rng.choice(lx.REMEDIES))
    return framed(rng, say(number, went, _place(rng)), Text(f"after {remedy.en}", f"après {remedy.fr}"))


def discovery(rng: Random) -> Text:
    """``The divers who inspected the nets found a hole in the cage.``"""
    worker, item = _worker(rng), _item(rng, plural=rng.random() < 0.5)
    did = does(rng.choice(lx.HANDLING), worker, "past")
    flaw = noun_phrase("a", rng.choice(lx.FLAWS), plural=rng.random() < 0.5)
    found = does(rng.choice(lx.FIND), worker, "past")
    place = _within(_the(rng.choice(lx.HOLDING)))
    return sentence(say(worker, Text(f"who {did.en}", f"qui {did.fr}"), item, found, flaw, place))


def content(rng: Random) -> Text:
    """``The effluent of the plant contains copper.``, ``The mud of the estuary does not contain arsenic.``"""
    at_site = rng.random() < 0.4
    medium = _the(rng.choice(lx.WATERS if at_site else lx.MEDIA))
    owner = _the(rng.choice(lx.SITES), rng.random() < 0.3) if at_site else _habitat(rng)
    substance, negative = rng.choice(lx.CONTAMINANTS), rng.random() < 0.4
    if negative or rng.random() < 0.5:
        verb = does(lx.CONTAIN, medium, "present", negative=negative)
    else:
        verb = modal(rng.choice(("may", "could")), lx.CONTAIN, medium)
    thing = noun_phrase("some", substance, plural=True)
    if negative:  # pas de cuivre, pas d'arsenic
        thing = thing._replace(fr=elide("de", noun_phrase("bare", substance, plural=True).fr))
    return framed(rng, say(medium, of(owner), verb, thing), _place(rng))


def unsuitable(rng: Random) -> Text:
    """``The water of the pond is too cold for the mussels.``"""
    habitat = _habitat(rng)
    adjective = rng.choice(lx.CONDITIONS)
    form = adjective_form(adjective, True, False)
    water = Text("the water", "l'eau")
    too = rng.choice((Text("is too", "est trop"), Text("was too", "était trop"), Text("is not too", "n'est pas trop")))
    animals = _the(rng.choice(lx.ORGANISMS), True)
    return framed(rng, say(water, of(habitat), too, Text(adjective.en, form), _for(animals)), _place(rng))


def depth(rng: Random) -> Text:
    """``The floating sensor was installed at a depth of 5.5 metres under the cage.``"""
    item = _item(rng)
    value = measure(rng.randint(5, 400), lx.METRE)
    at = Text(f"at a depth of {value.en}", f"à une profondeur de {value.fr}")
    holder = _the(rng.choice(lx.HOLDING))
    put = done(lx.INSTALL, item, rng.choice(("past", "future")))
    return sentence(say(item, put, at, Text(f"under {holder.en}", f"sous {holder.fr}")))


def survivors(rng: Random) -> Text:
    """``Only 45% of the smolts survived the heat wave in Nova Scotia.``"""
    share, animals = percent(rng), _the(rng.choice(lx.ORGANISMS), True)
    ordeal = _the(rng.choice(lx.ORDEALS))
    only = Text(f"only {share.en}", f"seulement {share.fr}")
    survived = Text(f"survived {ordeal.en}", f"ont survécu {a_(ordeal.fr)}")
    return sentence(say(only, of(animals), survived, _place(rng)))


def footprint(rng: Random) -> Text:
    """``The construction of the wharf destroyed 120 square metres of eelgrass.``"""
    work = _the(rng.choice(lx.ACTIVITIES))
    area = counted(integer(10 * rng.randint(1, 300)), lx.SQUARE_METRE)
    cover = rng.choice(lx.COVERS)
    verb = does(rng.choice((lx.HARMING[2], lx.HARMING[5])), work, rng.choice(("past", "future")))
    surface = Text(f"{area.en} of {cover.en[0]}", f"{area.fr} {elide('de', cover.fr[0] + cover.fr_tail)}")
    return sentence(say(work, of(_the(rng.choice(lx.WORKS))), verb, surface, _place(rng)))


def sensitivity(rng: Random) -> Text:
    """``The oysters are more sensitive to copper than the mussels.``"""
    first, second = (_the(animal, True) for animal in rng.sample(lx.ORGANISMS, 2))
    adjective = quality(rng.choice(lx.SENSITIVITIES), first)
    metal = rng.choice(lx.METALS)
    cause = Text(f"to {metal.en[0]}", a_(_the(metal).fr)) if rng.random() < 0.6 else to(_the(rng.choice(lx.HAZARDS)))
    more, less = Text(f"are more {adjective.en}", f"sont plus {adjective.fr}"), before_clause("than", "que", second)
    if rng.random() < 0.5:
        more = Text(f"are less {adjective.en}", f"sont moins {adjective.fr}")
    return sentence(say(first, more, cause, less))


def means(rng: Random) -> Text:
    """``By cleaning the nets, the operator saved the mussels.``"""
    worker = _worker(rng)
    by = say(rng.choice(lx.HANDLING_BY), _item(rng, plural=rng.random() < 0.5))
    helped = does(rng.choice(lx.HELPING), worker, rng.choice(("past", "future")))
    return framed(rng, say(worker, helped, _the(rng.choice(lx.ORGANISMS), True)), by)


def hazard(rng: Random) -> Text:
    """``A storm could damage the eelgrass beds in Nova Scotia.``"""
    cause = noun_phrase(rng.choice(("a", "this", "the")), rng.choice(lx.ACCIDENTS))
    victim = _the(rng.choice(lx.HABITATS + lx.EQUIPMENT), rng.random() < 0.6)
    verb = modal(rng.choice(("may", "could")), rng.choice(lx.HARMING[2:]), cause)
    return sentence(say(cause, verb, victim, _place(rng)))


def screening(rng: Random) -> Text:
    """``The laboratory tested 45 samples, and 12% contained arsenic.``"""
    worker = _the(rng.choice((*lx.WORKERS, lx.SITES[2])))
    samples = counted(integer(rng.randint(12, 900)), lx.SAMPLE)
    share, substance = percent(rng), noun_phrase("some", rng.choice(lx.CONTAMINANTS), plural=True)
    clause = say(worker, does(lx.TEST, worker, "past"), samples, of(noun_phrase("bare", rng.choice(lx.MEDIA))))
    contained = Text(f"contained {substance.en}", f"contenaient {substance.fr}")
    return sentence(say(opening(clause), Text("and", "et"), share, contained))


def rule(rng: Random) -> Text:
    """``It is forbidden to discharge oil into the stream.``"""
    rules = (Text("it is forbidden", "il est interdit"), Text("it is dangerous", "il est dangereux"),
             Text("it is necessary", "il est nécessaire"), Text("it is possible", "il est possible"))  # fmt: skip
    habitat = _within(_habitat(rng))
    if rng.random() < 0.4:
        substance = noun_phrase("some", rng.choice(lx.CONTAMINANTS), plural=True)
        act = say(rng.choice(rules[:2]), infinitive(rng.choice(lx.DISCHARGING), "de"), substance, habitat)
    else:
        item = noun_phrase(rng.choice(("a", "this")), rng.choice(lx.EQUIPMENT), plural=rng.random() < 0.5,
                           adjective=rng.choice(lx.MAKES))  # fmt: skip
        act = say(rng.choice(rules), infinitive(rng.choice(lx.HANDLING), "de"), item, habitat)
    return sentence(say(act, _of_place(rng)))


def query(rng: Random) -> Text:
    """``Does this vaccine protect the smolts in the cages?``"""
    remedy = noun_phrase(rng.choice(("the", "this", "a")), rng.choice(lx.REMEDIES), plural=rng.random() < 0.3,
                         adjective=_maybe(rng, (lx.NEW,), 0.3))  # fmt: skip
    tense: Tense = rng.choice(("present", "past", "future"))
    asked = question(rng.choice(lx.HELPING), remedy, tense)
    animals = noun_phrase("the", rng.choice(lx.FINFISH), plural=True, adjective=_maybe(rng, lx.HEALTH, 0.5))
    return sentence(say(asked, animals, _within(_the(rng.choice(lx.HOLDING), True))), "?")


def instruments(rng: Random) -> Text:
    """``The new sensor measures three variables: the salinity, the turbidity and the light.``"""
    probe = noun_phrase("the", rng.choice(lx.PROBES), plural=rng.random() < 0.4, adjective=_maybe(rng, lx.MAKES, 0.6))
    first, second, third = (_the(variable) for variable in rng.sample(lx.VARIABLES, 3))
    listed = say(opening(Text(first.en, first.fr)), both(second, third))
    head = say(probe, does(lx.MEASURE, probe, "present"), Text("three variables", "trois variables"))
    return sentence(colon(say(head, _place(rng)), listed))


def benefit(rng: Random) -> Text:
    """``Thanks to the new pump, the tanks receive more oxygen.``"""
    thanks = to(_item(rng, plural=rng.random() < 0.3), "thanks to", "grâce")
    receiver = _the(rng.choice(lx.ORGANISMS), True)
    need = rng.choice(lx.NEEDS)
    more = rng.choice((Text(f"more {need.en[0]}", f"plus {elide('de', need.fr[0])}"),
                       Text(f"enough {need.en[0]}", f"assez {elide('de', need.fr[0])}")))  # fmt: skip
    tense: Tense = rng.choice(("present", "past", "future"))
    return framed(rng, say(receiver, does(lx.RECEIVE, receiver, tense), more), thanks)


def absence(rng: Random) -> Text:
    """``The divers found no larvae on the ropes of the farm.``"""
    worker = _worker(rng)
    verb = rng.choice(lx.FIND[:3])
    have = "n'ont" if worker.plural else "n'a"
    thing = rng.choice(lx.FARMED + lx.PATHOGENS + lx.YOUNG[2:])
    none = Text(f"no {thing.en[1]}", noun_phrase("no", thing).fr)
    item = _item(rng, plural=rng.random() < 0.5)
    found = Text(f"{verb.en[2]} {none.en}", f"{have} {verb.participle} {none.fr}")
    return sentence(say(worker, found, Text(f"on {item.en}", f"sur {item.fr}"), of(_the(rng.choice(lx.SITES)))))


def arrival(rng: Random) -> Text:
    """``The infected smolts died in the lagoon in May 2014.``"""
    animals = noun_phrase("the", rng.choice(lx.FINFISH), plural=True, adjective=rng.choice(lx.HEALTH))
    verb = does(rng.choice(lx.APPEARING), animals, "past", negative=rng.random() < 0.2)
    return framed(rng, say(animals, verb, _within(_habitat(rng))), in_month(rng))


def restoration(rng: Random) -> Text:
    """``The contractor restored the salt marshes in Nova Scotia in May 2014.``"""
    worker, habitat = _worker(rng), _habitat(rng)
    if rng.random() < 0.5:
        act = done(rng.choice(lx.RESTORING), habitat, "past", negative=rng.random() < 0.2)
        by = Text(f"by {worker.en}", f"par {worker.fr}")
        return framed(rng, say(habitat, act, by), in_month(rng))
    return framed(rng, say(worker, does(rng.choice(lx.RESTORING), worker, "past"), habitat, _place(rng)), in_month(rng))


_PER_LITRE = Text("per litre", "par litre")


def _the(noun: Noun, plural: bool = False) -> Phrase:
    return noun_phrase("the", noun, plural=plural)


def _maybe(rng: Random, adjectives: Sequence[Adjective], chance: float) -> Adjective | None:
    return rng.choice(adjectives) if rng.random() < chance else None


def _worker(rng: Random) -> Phrase:
    return _the(rng.choice(lx.WORKERS), rng.random() < 0.4)


def _habitat(rng: Random) -> Phrase:
    return _the(rng.choice(lx.HABITATS), rng.random() < 0.4)


def _item(rng: Random, *, plural: bool = False) -> Phrase:
    return noun_phrase("the", rng.choice(lx.EQUIPMENT), plural=plural, adjective=_maybe(rng, lx.MAKES, 0.6))


def _place(rng: Random) -> Text:
    return rng.choice(lx.FARM_PLACES).where


def _of_place(rng: Random) -> Text:
    return of(rng.choice(lx.FARM_PLACES).name)


def _within(phrase: Phrase) -> Text:
    return Text(f"in {phrase.en}", f"dans {phrase.fr}")


def _for(phrase: Phrase) -> Text:
    return Text(f"for {phrase.en}", f"pour {phrase.fr}")


PATTERNS = (
    transfer, concentration, threshold, upkeep, capacity, presence, protection, purpose, count_of_lice, discovery,
    content, unsuitable, depth, survivors, footprint, sensitivity, means, hazard, screening, rule, query, instruments,
    benefit, absence, arrival, restoration,
)  # fmt: skip
