"""Parts that both sub-domains share: numbers, measures, percentages, years, dates, opening adjuncts."""

from __future__ import annotations

from random import Random

from demo.grammar import NBSP, THIN, Noun, Text, opening, say, sentence
from demo.tables import texts

MONTHS = texts("""
    January | janvier
    February | février
    March | mars
    April | avril
    May | mai
    June | juin
    July | juillet
    August | août
    September | septembre
    October | octobre
    November | novembre
    December | décembre
""")
FIRST_YEAR, LAST_YEAR = 1985, 2024


def integer(value: int) -> Text:
    """Write a whole number: ``12,500`` and ``12 500`` (narrow no-break space)."""
    en = f"{value:,}"
    return Text(en, en.replace(",", THIN))


def decimal(tenths: int) -> Text:
    """Write a number of tenths: ``12.4`` and ``12,4``."""
    whole, tenth = divmod(tenths, 10)
    return Text(f"{whole}.{tenth}", f"{whole},{tenth}")


def measure(tenths: int, unit: Noun) -> Text:
    """Write a value and its unit; a French unit is plural from two on, an English one whenever it is not one."""
    value = decimal(tenths)
    return Text(f"{value.en} {unit.en[tenths != 10]}", f"{value.fr} {unit.fr[tenths >= 20]}")


def percent(rng: Random) -> Text:
    """Write a percentage between 2 and 95, with tenths now and then."""
    value = decimal(rng.randint(20, 950)) if rng.random() < 0.2 else integer(rng.randint(2, 95))
    return Text(f"{value.en}%", f"{value.fr}{NBSP}%")


def by_percent(rng: Random) -> Text:
    """Say by how much something changed."""
    share = percent(rng)
    return Text(f"by {share.en}", f"de {share.fr}")


def in_year(rng: Random) -> Text:
    """Say in which past year."""
    year = rng.randint(FIRST_YEAR, LAST_YEAR)
    return Text(f"in {year}", f"en {year}")


def before_year(rng: Random) -> Text:
    """Say before which coming year."""
    year = rng.randint(LAST_YEAR + 3, LAST_YEAR + 20)
    return Text(f"before {year}", f"avant {year}")


def since_year(rng: Random) -> Text:
    """Say since which year."""
    year = rng.randint(FIRST_YEAR, LAST_YEAR)
    return Text(f"since {year}", f"depuis {year}")


def between_years(rng: Random) -> Text:
    """Say between which two years."""
    first = rng.randint(FIRST_YEAR, LAST_YEAR - 1)
    last = rng.randint(first + 1, LAST_YEAR)
    return Text(f"between {first} and {last}", f"entre {first} et {last}")


def in_month(rng: Random) -> Text:
    """Say in which month of a past year."""
    month, year = rng.choice(MONTHS), rng.randint(FIRST_YEAR, LAST_YEAR)
    return Text(f"in {month.en} {year}", f"en {month.fr} {year}")


def on_date(rng: Random) -> Text:
    """Say on which past day; the first of a month is ``1er`` in French."""
    day, month, year = rng.randint(1, 28), rng.choice(MONTHS), rng.randint(FIRST_YEAR, LAST_YEAR)
    return Text(f"on {day} {month.en} {year}", f"le {'1er' if day == 1 else day} {month.fr} {year}")


def framed(rng: Random, clause: Text, adjunct: Text) -> Text:
    """Finish a sentence with its adjunct first or last."""
    if rng.random() < 0.4:
        return sentence(say(opening(adjunct), clause))
    return sentence(say(clause, adjunct))
