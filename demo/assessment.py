"""Sentence patterns of stock assessment: trends, reference points, surveys, quotas, advice."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from demo import assessment_words as lx
from demo.adjuncts import (
    LAST_YEAR,
    before_year,
    between_years,
    by_percent,
    decimal,
    framed,
    in_month,
    in_year,
    integer,
    measure,
    on_date,
    percent,
    since_year,
)
from demo.grammar import (
    Determiner,
    Noun,
    Phrase,
    Text,
    a_,
    adjective_form,
    agree,
    before_clause,
    counted,
    elide,
    if_,
    noun_phrase,
    of,
    pronoun,
    say,
    semicolon,
    sentence,
    to,
)
from demo.verbs import does, done, done_since, is_, modal, not_able, quality, relative_object


def trend(rng: Random) -> Text:
    """``The cod biomass fell by 12% between 1998 and 2004.``"""
    subject = _quantity(rng)
    return framed(rng, say(subject, does(rng.choice(lx.TRENDS), subject, "past"), by_percent(rng)), between_years(rng))


def long_trend(rng: Random) -> Text:
    """``Since 1998, the cod biomass has declined sharply on Georges Bank.``"""
    subject = _quantity(rng)
    verb = does(rng.choice(lx.DRIFTS), subject, "perfect", adverb=rng.choice(lx.ADVERBS))
    return framed(rng, say(subject, verb, _ground(rng)), since_year(rng))


def level(rng: Random) -> Text:
    """``In 2014, the cod biomass was low on Georges Bank.``"""
    subject = _quantity(rng)
    state = is_(subject, "past", quality(rng.choice(lx.LEVELS), subject), negative=rng.random() < 0.2)
    return framed(rng, say(subject, state, _ground(rng)), in_year(rng))


def comparison(rng: Random) -> Text:
    """``In 2014, the cod biomass of Georges Bank was much higher than the long-term mean.``"""
    subject, degree = _quantity(rng), rng.choice(lx.DEGREES)
    adjective = quality(rng.choice(lx.COMPARED), subject)
    than = before_clause("than", "que", _the(rng.choice(lx.REFERENCES)))
    rest = say(Text(f"{degree.en} {adjective.en}", f"{degree.fr} plus {adjective.fr}"), than)
    if rng.random() < 0.5:
        return framed(rng, say(subject, _of_ground(rng), is_(subject, "past", rest)), in_year(rng))
    return framed(rng, say(subject, _of_ground(rng), is_(subject, "future", rest)), before_year(rng))


def position(rng: Random) -> Text:
    """``In 2014, the cod biomass was below the limit reference point.``"""
    subject = _quantity(rng, lx.BIOMASSES)
    adjective = rng.choice(lx.POSITIONS)
    form = adjective_form(adjective, subject.feminine, subject.plural)
    rest = to(_the(rng.choice(lx.REFERENCES)), adjective.en, form)
    return framed(rng, say(subject, _of_ground(rng), is_(subject, "past", rest)), in_year(rng))


def allowable_catch(rng: Random) -> Text:
    """``The total allowable catch for cod was set at 12,500 tonnes in 2014.``"""
    species = rng.choice(lx.SPECIES)
    subject = Phrase("the total allowable catch", "le total autorisé des captures", False, False)
    stock = Text(f"for {species.en[0]}", f"pour {_the(species).fr}")
    clause = say(subject, stock, done(lx.SET, subject, "past"), to(_tonnes(rng), "at"))
    return framed(rng, clause, in_year(rng))


def removals(rng: Random) -> Text:
    """``In 2014, the cod landings reached 12,500 tonnes on Georges Bank.``"""
    subject = _quantity(rng, lx.REMOVALS)
    verb = does(rng.choice(lx.AMOUNTING), subject, rng.choice(("past", "past", "future")))
    if "will" in verb.en:
        return framed(rng, say(subject, verb, _tonnes(rng), _ground(rng)), before_year(rng))
    return framed(rng, say(subject, verb, _tonnes(rng), _ground(rng)), in_year(rng))


def ceiling(rng: Random) -> Text:
    """``The cod landings should not exceed 12,500 tonnes in 2026.``"""
    subject = _quantity(rng, lx.REMOVALS)
    year = rng.randint(LAST_YEAR + 1, LAST_YEAR + 6)
    limit = modal(rng.choice(("must", "should")), lx.EXCEED, subject, negative=True)
    return framed(rng, say(subject, _of_ground(rng), limit, _tonnes(rng)), Text(f"in {year}", f"en {year}"))


def coverage(rng: Random) -> Text:
    """``In May 2014, the trawl survey covered 125 stations on Georges Bank.``"""
    subject = _the(rng.choice(lx.SURVEYS), rng.random() < 0.2)
    units = counted(integer(rng.randint(12, 400)), rng.choice(lx.UNITS_SAMPLED))
    return framed(rng, say(subject, does(rng.choice(lx.COVERING), subject, "past"), units, _ground(rng)), in_month(rng))


def forecast(rng: Random) -> Text:
    """``According to the population model, the cod biomass will decline sharply before 2030.``"""
    model = _the(rng.choice(lx.MODELS))
    subject = _quantity(rng)
    verb = does(rng.choice(lx.DRIFTS), subject, "future", adverb=rng.choice(lx.ADVERBS), negative=rng.random() < 0.2)
    return framed(rng, say(subject, verb, before_year(rng)), Text(f"according to {model.en}", elide("selon", model.fr)))


def review(rng: Random) -> Text:
    """``The committee rejected the estimates that the harvesters provided in 2014.``"""
    actor = _actor(rng)
    supplier = noun_phrase(rng.choice(("the", "a")), rng.choice(lx.ACTORS), plural=rng.random() < 0.5)
    adjective = rng.choice(lx.EVIDENCE_KINDS) if rng.random() < 0.6 else None
    evidence = noun_phrase("the", rng.choice(lx.EVIDENCE), plural=rng.random() < 0.6, adjective=adjective)
    supplied = relative_object(evidence, supplier, rng.choice(lx.SUPPLYING))
    negative = rng.random() < 0.15
    return sentence(
        say(actor, does(rng.choice(lx.REVIEWING), actor, "past", negative=negative), evidence, supplied, in_year(rng))
    )


def condition(rng: Random) -> Text:
    """``If the cod biomass declines sharply, the quota will be reduced by 12%.``"""
    cause, effect = _quantity(rng, lx.BIOMASSES), _quantity(rng, lx.REMOVALS)
    first = if_(say(cause, does(rng.choice(lx.DRIFTS), cause, "present", adverb=rng.choice(lx.ADVERBS))))
    return framed(rng, say(effect, does(rng.choice(lx.TRENDS), effect, "future"), by_percent(rng)), first)


def stagnation(rng: Random) -> Text:
    """``The cod stock will remain in the critical zone if it does not grow rapidly before 2030.``"""
    subject = _quantity(rng, lx.BIOMASSES)
    it = pronoun(subject)
    growth = does(rng.choice(lx.TRENDS), it, "present", adverb=rng.choice(lx.ADVERBS), negative=rng.random() < 0.6)
    stays = does(lx.REMAIN, subject, "future", negative=rng.random() < 0.2)
    return sentence(say(subject, stays, rng.choice(lx.STOCK_ZONES), if_(say(it, growth, before_year(rng)))))


def finding(rng: Random) -> Text:
    """``The preliminary results suggest that a strong cohort of cod...``"""
    plural = rng.random() < 0.5
    adjective = rng.choice(lx.EVIDENCE_KINDS)
    source = noun_phrase(rng.choice(("the", "this")), rng.choice(lx.FINDINGS), plural=plural, adjective=adjective)
    if rng.random() < 0.3:
        subject = noun_phrase("a", lx.COHORT, adjective=rng.choice(lx.STRENGTHS), of_noun=rng.choice(lx.SPECIES))
        event = done(rng.choice(lx.NOTICING), subject, "past")
    else:
        subject = _quantity(rng)
        event = does(rng.choice(lx.DRIFTS), subject, "past", adverb=rng.choice(lx.ADVERBS))
    clause = before_clause("that", "que", say(subject, event, in_year(rng)))
    return sentence(say(source, does(rng.choice(lx.SHOWING), source, "present"), clause))


def caught(rng: Random) -> Text:
    """``In total, 125 adult cod were caught with a bottom trawl on Georges Bank.``"""
    fish = counted(integer(rng.randint(12, 4000)), rng.choice(lx.SPECIES), rng.choice(lx.STAGES))
    gear = noun_phrase("a", rng.choice(lx.GEAR))
    clause = say(fish, done(lx.CATCH, fish, "past"), Text(f"with {gear.en}", f"avec {gear.fr}"), _ground(rng))
    return sentence(say(Text("in total,", "au total,"), clause))


def size(rng: Random) -> Text:
    """``In 2014, the mean length of juvenile cod was 34.5 centimetres.``"""
    index = rng.randrange(len(lx.SIZES))
    name, species, stage = _the(lx.SIZES[index]), rng.choice(lx.SPECIES), rng.choice(lx.STAGES)
    bare, group = (noun_phrase(kind, species, plural=True, adjective=stage) for kind in _BARE_AND_THE)
    owner = Text(f"of {bare.en}", of(group).fr)
    value = measure(rng.randint(21, 900 if index == 0 else 150), lx.SIZE_UNITS[index])
    state = is_(name, "past", Text(value.en, f"de {value.fr}"))
    return framed(rng, say(name, owner, state, _ground(rng)), in_year(rng))


def closure(rng: Random) -> Text:
    """``The directed cod fishery was closed in 1998 because of the decline in biomass.``"""
    fishery = _fishery(rng)
    change = of(_the(rng.choice(lx.QUANTITIES[:4])), "in")
    verbs, causes = rng.choice(((lx.CLOSING, lx.LOSSES), (lx.OPENING, lx.GAINS)))
    reason = of(_the(rng.choice(causes)), "because of")
    return framed(
        rng,
        say(fishery, done(rng.choice(verbs), fishery, "past"), in_year(rng)),
        Text(f"{reason.en} {change.en}", f"en raison {reason.fr} {change.fr}"),
    )


def shut_since(rng: Random) -> Text:
    """``The commercial cod fishery has been closed since 1998 on Georges Bank.``"""
    fishery = _fishery(rng)
    state = done_since(rng.choice(lx.CLOSING + lx.OPENING), fishery)
    return framed(rng, say(fishery, state, _ground(rng)), since_year(rng))


def advice(rng: Random) -> Text:
    """``The committee recommended a 10% reduction in the cod quota.``"""
    actor = _actor(rng)
    share = percent(rng)
    cut = rng.choice(lx.CUTS)
    article = "an" if share.en.startswith(("8", "11%", "11.", "18")) else "a"
    negative = rng.random() < 0.2  # pas de hausse
    change = Text(f"{article} {share.en} {cut.en[0]}", f"{'de' if negative else 'une'} {cut.fr[0]} de {share.fr}")
    target = of(_quantity(rng, lx.LIMITED), "in")
    verb = does(rng.choice(lx.RECOMMENDING), actor, rng.choice(("past", "future")), negative=negative)
    return sentence(say(actor, verb, change, target))


def explanation(rng: Random) -> Text:
    """``These data do not explain the decline in cod biomass on Georges Bank.``"""
    adjective = rng.choice(lx.EVIDENCE_KINDS) if rng.random() < 0.5 else None
    source = noun_phrase("this", rng.choice(lx.EVIDENCE), plural=rng.random() < 0.5, adjective=adjective)
    change = say(_the(rng.choice(lx.CHANGES)), of(_quantity(rng), "in"))
    verb = does(rng.choice(lx.EXPLAINING), source, rng.choice(("present", "past")), negative=rng.random() < 0.5)
    return sentence(say(source, verb, change, _ground(rng)))


def contrast(rng: Random) -> Text:
    """``The cod biomass increased in 2014, while the haddock catches declined.``"""
    first, second = _quantity(rng), _quantity(rng)
    verbs, opposite = rng.sample((lx.FALLS, lx.RISES), 2)
    left = say(first, does(rng.choice(verbs), first, "past"), in_year(rng))
    right = say(second, does(rng.choice(opposite), second, "past", adverb=rng.choice(lx.ADVERBS)))
    link = rng.choice((Text("while", "tandis que"), Text("but", "mais"), None))
    return sentence(say(Text(f"{left.en},", f"{left.fr},"), link, right) if link else semicolon(left, right))


def ratio(rng: Random) -> Text:
    """``The cod index was 3.2 times higher in 2004 than in 1998.``"""
    subject = say(
        noun_phrase("the", lx.INDEX, of_noun=rng.choice(lx.SPECIES)), of(_the(rng.choice(lx.SURVEYS)), "from")
    )
    times = decimal(rng.randint(20, 99))
    higher = rng.choice(lx.COMPARED[:2])
    more = Text(f"was {times.en} times {higher.en}", f"était {times.fr} fois plus {higher.fr[0]}")
    return sentence(say(subject, more, in_year(rng), before_clause("than", "que", in_year(rng))))


def schedule(rng: Random) -> Text:
    """``The trawl survey began on 3 May 2009 aboard the trawler.``"""
    survey, vessel = _the(rng.choice(lx.SURVEYS)), _the(rng.choice(lx.VESSELS))
    start = rng.choice((Text("began", "a commencé"), Text("ended", "a pris fin")))
    aboard = of(vessel, "aboard")
    return framed(rng, say(survey, start, Text(aboard.en, f"à bord {aboard.fr}")), on_date(rng))


def estimation(rng: Random) -> Text:
    """``The cod biomass was estimated from the logbooks of the fleet.``"""
    subject = _quantity(rng)
    verb = rng.choice(lx.ESTIMATING)
    estimated = not_able(verb, subject) if rng.random() < 0.3 else done(verb, subject, "past")
    adjective = rng.choice(lx.EVIDENCE_KINDS)
    basis = of(noun_phrase("the", rng.choice(lx.BASES), plural=True, adjective=adjective), "from")
    owner = of(_actor(rng))
    return sentence(say(subject, estimated, Text(basis.en, f"à partir {basis.fr}"), owner))


def share_caught(rng: Random) -> Text:
    """``In 2014, the trawlers equipped with a seine caught 12% of the cod quota.``"""
    fleet = _the(rng.choice(lx.VESSELS), rng.random() < 0.7)
    gear = noun_phrase("a", rng.choice(lx.GEAR), plural=fleet.plural)
    equipped = Text(f"equipped with {gear.en}", f"{agree('équipé', fleet)} {of(gear).fr}")
    quota = of(noun_phrase("the", lx.QUOTA, of_noun=rng.choice(lx.SPECIES)))
    return framed(rng, say(fleet, equipped, does(lx.CATCH, fleet, "past"), percent(rng), quota), in_year(rng))


def nearly_all(rng: Random) -> Text:
    """``Nearly all the stations were sampled on Georges Bank in May 2014.``"""
    units = _the(rng.choice(lx.UNITS_SAMPLED), True)
    every = Text("nearly all", "presque toutes" if units.feminine else "presque tous")
    if rng.random() < 0.5:
        every, units = Text("most of", "la plupart"), Phrase(units.en, of(units).fr, units.feminine, True)
    sampled = done(rng.choice(lx.COVERING), units, "past")
    return framed(rng, say(every, units, _of_ground(rng), sampled), in_month(rng))


def doubt(rng: Random) -> Text:
    """``The committee does not know whether the cod biomass will increase before 2030.``"""
    actor, subject = _actor(rng), _quantity(rng)
    knows = Text(
        f"{'do' if actor.plural else 'does'} not know whether", f"{'ignorent' if actor.plural else 'ignore'} si"
    )
    return sentence(say(actor, knows, subject, does(rng.choice(lx.DRIFTS), subject, "future"), before_year(rng)))


_BARE_AND_THE: tuple[Determiner, Determiner] = ("bare", "the")


def _the(noun: Noun, plural: bool = False) -> Phrase:
    return noun_phrase("the", noun, plural=plural)


def _quantity(rng: Random, nouns: Sequence[Noun] = lx.QUANTITIES) -> Phrase:
    return noun_phrase("the", rng.choice(nouns), plural=rng.random() < 0.3, of_noun=rng.choice(lx.SPECIES))


def _actor(rng: Random) -> Phrase:
    return _the(rng.choice(lx.ACTORS), rng.random() < 0.5)


def _fishery(rng: Random) -> Phrase:
    kind, species = rng.choice(lx.FISHERIES), rng.choice(lx.SPECIES)
    french = f"la pêche {kind.fr[1]} {a_(_the(species).fr)}"
    return Phrase(f"the {kind.en} {species.en[0]} fishery", french, True, False)


def _ground(rng: Random) -> Text:
    return rng.choice(lx.GROUNDS).where


def _of_ground(rng: Random) -> Text:
    return of(rng.choice(lx.GROUNDS).name)


def _tonnes(rng: Random) -> Text:
    amount = integer(50 * rng.randint(3, 800))
    return Text(f"{amount.en} tonnes", f"{amount.fr} tonnes")


PATTERNS = (
    trend, long_trend, level, comparison, position, allowable_catch, removals, ceiling, coverage, forecast, review,
    condition, stagnation, finding, caught, size, closure, shut_since, advice, explanation, contrast, ratio, schedule,
    estimation, share_caught, nearly_all, doubt,
)  # fmt: skip
