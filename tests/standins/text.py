"""A little parallel text for the tests' stand-ins, and the reader of training text for the command."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import NamedTuple


class Pair(NamedTuple):
    """One English sentence and its French translation."""

    source_en: str
    target_fr: str


SUBJECTS = (
    ("The survey vessel", "Le navire de recherche"),
    ("The biologist", "La biologiste"),
    ("The observer", "L'observateur"),
    ("The department", "Le ministère"),
    ("The laboratory", "Le laboratoire"),
    ("The captain", "Le capitaine"),
    ("Our team", "Notre équipe"),
    ("The local fishing fleet", "La flottille de pêche locale"),
)
VERBS = (
    ("measured", "a mesuré"),
    ("counted", "a compté"),
    ("recorded", "a consigné"),
    ("described", "a décrit"),
    ("sampled", "a échantillonné"),
    ("observed", "a observé"),
    ("compared", "a comparé"),
)
OBJECTS = (
    ("the young cod", "les jeunes morues"),
    ("the spawning herring", "les harengs en frai"),
    ("several lobster traps", "plusieurs casiers à homard"),
    ("the snow crab catches", "les prises de crabe des neiges"),
    ("the growth of the scallops", "la croissance des pétoncles"),
    ("two colonies of gannets", "deux colonies de fous de Bassan"),
    ("the eggs of the capelin", "les œufs du capelan"),
    ("the salinity of the water", "la salinité de l'eau"),
    ("the stock of redfish", "le stock de sébaste"),
)
PLACES = (
    ("in the Gulf of St. Lawrence", "dans le golfe du Saint-Laurent"),
    ("along the coast of Newfoundland", "le long de la côte de Terre-Neuve"),
    ("near the mouth of the river", "près de l'embouchure de la rivière"),
    ("on the northern edge of the bank", "sur le bord nord du banc"),
    ("in two estuaries", "dans deux estuaires"),
    ("off Nova Scotia", "au large de la Nouvelle-Écosse"),
)
ENDINGS = (
    ("at a depth of {number} m", "à une profondeur de {number} m"),
    ("before the end of the season", "avant la fin de la saison"),
    ("during the summer of {year}", "pendant l'été {year}"),
    ("at a temperature of {number} °C", "à une température de {number} °C"),
    ("for the third time since {year}", "pour la troisième fois depuis {year}"),
)


def sentences(count: int, seed: int = 0) -> list[Pair]:
    """Generate ``count`` distinct sentence pairs."""
    random_source = random.Random(seed)
    pairs: dict[Pair, None] = {}
    while len(pairs) < count:
        parts = [random_source.choice(choices) for choices in (SUBJECTS, VERBS, OBJECTS, PLACES, ENDINGS)]
        number, year = f"{random_source.uniform(1, 300):.1f}", random_source.randint(1970, 2024)
        english = " ".join(part[0] for part in parts).format(number=number, year=year)
        french = " ".join(part[1] for part in parts).format(number=number.replace(".", ","), year=year)
        pairs[Pair(english + ".", french + ".")] = None
    return list(pairs)


def lines_of(pairs: list[Pair]) -> list[str]:
    """Return all sentences of both languages."""
    return [sentence for pair in pairs for sentence in pair]


def read_lines(path: Path) -> list[str]:
    """Return both sides of every row of a ``.jsonl`` or ``.jsonl.gz`` file."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as rows:
        return [row[side] for row in map(json.loads, rows) for side in ("source", "target")]
