"""The generated corpus: repeatable, distinct, grammatical on both sides, and really two sub-domains."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from demo.corpus import Domain, Language, Pair, generate, main, write_jsonl
from mtft.errors import InputError

DOMAINS: tuple[Domain, ...] = get_args(Domain)
COUNT = 30_000
CHECKED = 12_000  # sentences that every rule of spelling is tried on


@cache
def sample(domain: Domain) -> list[Pair]:
    return generate(domain, COUNT, seed=3)


def letters(text: str) -> str:
    return "".join(character for character in text.lower() if character.isalnum())


@pytest.mark.parametrize("domain", DOMAINS)
class TestList:
    def test_is_the_same_for_the_same_seed_and_starts_with_the_shorter_one(self, domain: Domain) -> None:
        assert generate(domain, 500, seed=3) == sample(domain)[:500]
        assert generate(domain, 500, seed=4) != sample(domain)[:500]

    def test_repeats_no_sentence_on_either_side(self, domain: Domain) -> None:
        pairs = sample(domain)
        assert len(pairs) == COUNT
        assert len({letters(pair.source_en) for pair in pairs}) == COUNT
        assert len({letters(pair.target_fr) for pair in pairs}) == COUNT

    def test_comes_from_more_than_a_million_sentences(self, domain: Domain) -> None:
        # Independent draws of n and m from N equally likely sentences share n * m / N; unequal chances share more.
        shared = {pair.source_en for pair in sample(domain)} & {pair.source_en for pair in generate(domain, 10_000, 5)}
        assert len(shared) < COUNT * 10_000 / 1e6

    def test_is_cut_into_documents_of_20_to_40_sentences(self, domain: Domain) -> None:
        documents = Counter(pair.document for pair in sample(domain))
        *whole, last = documents.values()
        assert all(20 <= size <= 40 for size in whole)
        assert last <= 40
        assert next(iter(documents)) == f"DEMO-{'A' if domain == 'assessment' else 'B'}-0001"


@pytest.mark.parametrize("count", [-1, 10**9])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"count is {count}; allowed"):
        generate("assessment", count)


# What must not occur in any sentence. Vowels include a mute h; some words keep theirs apart (l'huître, le homard).
VOWEL = r"(?:[aàâeéèêiîoôuûyœ]|h(?!areng|omard|addock|ausse|aut))"
BAD_FRENCH = {
    "missing elision": rf"\b(?:le|la|de|que|ne|lorsque) {VOWEL}",
    "missing elision of si": r"\bsi ils?\b",
    "wrong elision": r"\b(?:l|d|qu|n)'(?:[bcdfgjklmnpqrstvwxz\d]|hareng|homard|hausse)",
    "wrong elision of si": r"\bs'elle",
    "missing contraction": r"\b(?:de|à) les? ",
    "des before an adjective": r"er des (?:nouv|vieux|vieil)",
    "tous before a feminine": r"\btous les (?:\d+ )?(?:semaine|heure|station|strate|sortie)s",
    "toutes before a masculine": r"\btoutes les (?:\d+ )?(?:jours|mois|traits|transects|secteurs)",
    "article after de": r"\bde des\b|\bd'des\b|\bde de\b",
    "ce before a vowel": rf"\bce {VOWEL}",
    "cet before a consonant": r"\bcet (?:[bcdfgjklmnpqrstvwxz]|homard|hareng)",
    "masculine before a vowel": rf"\b(?:un|le|ce|cet|du|au|chaque|aucun) (?:nouveau|vieux) {VOWEL}",
    "plural article, singular noun": r"\b(?:les|des|ces) (?!Grands|plus|prises|îles)[a-zéèêœ]+[^sxz\W]\b(?<!poux)",
    "feminine article, masculine adjective": r"\b(?:la|une|cette|aucune) (?:nouveau|bon|mauvais|petit|vieux|fort) ",
    "masculine article, feminine adjective": r"\b(?:le|un|ce|cet) (?:nouvelle|bonne|mauvaise|petite|grande|vieille) ",
    "decimal point": r"\d\.\d",
    "comma in thousands": r"\d,\d{3}",
    "space before a mark": r"(?:^|[^\u00a0])[%:]|[^\u202f][?;]|[ ][%:;?,.]",
    "table mark left over": r"[*~|/_]",
}
BAD_ENGLISH = {
    "a before a vowel": r"\ba [aeiou]|\ba (?:8|11%|11\.|18)",
    "an before a consonant": r"\ban [^aeiou8\d]|\ban (?!8|11|18)\d",
    "singular subject, plural verb": r"\b(?:it|this \w+) (?:are|were|have|do)\b",
    "plural subject, singular verb": r"\b(?:these \w+|they) (?:is|was|has|does)\b",
    "decimal comma": r"\d,\d(?!\d\d)",
    "space before a mark": r"\s[%:;?,.]",
    "table mark left over": r"[*~|/_]",
}
BAD_EITHER = {
    "double space": r"[ \u00a0\u202f]{2}|\s$|^\s",
    "start or end": r"^(?![A-ZÉÎÀ])|[^.?]$",
    "code left over": r"None|[{}()]",
}


def offenders(texts: list[str], patterns: dict[str, str]) -> dict[str, str]:
    """One example of each rule broken."""
    found = {}
    for name, pattern in patterns.items():
        rule = re.compile(pattern)
        example = next((text for text in texts if rule.search(text)), None)
        if example:
            found[name] = example
    return found


@pytest.mark.parametrize("domain", DOMAINS)
class TestSurface:
    def test_french_keeps_its_rules(self, domain: Domain) -> None:
        assert offenders([pair.target_fr for pair in sample(domain)[:CHECKED]], BAD_FRENCH | BAD_EITHER) == {}

    def test_english_keeps_its_rules(self, domain: Domain) -> None:
        assert offenders([pair.source_en for pair in sample(domain)[:CHECKED]], BAD_ENGLISH | BAD_EITHER) == {}

    def test_both_sides_carry_the_same_numbers(self, domain: Domain) -> None:
        seen = 0
        for english, french, _ in sample(domain):
            left = [number.replace(",", "") for number in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", english)]
            right = re.findall(r"\d+(?:\u202f\d{3})*(?:,\d+)?", french)
            right = [number.replace("\u202f", "").replace(",", ".") for number in right]
            assert sorted(left) == sorted(right), (english, french)
            seen += bool(left)
        assert seen > COUNT / 3

    def test_both_sides_are_questions_or_neither(self, domain: Domain) -> None:
        assert all(english.endswith("?") == french.endswith("?") for english, french, _ in sample(domain))

    def test_sentences_are_short(self, domain: Domain) -> None:
        lengths = [len(pair.source_en.split()) for pair in sample(domain)]
        assert 10 <= sum(lengths) / COUNT <= 16
        assert max(lengths) <= 24


# Gender of the first noun of a sentence, told from the words of the sentence alone.
SUBJECTS = {
    "biomasse": "e", "abondance": "e", "cohorte": "e", "recrutement": "", "rendement": "", "stock": "",
    "débarquements": "s", "rejets": "s", "prises": "es", "stocks": "s", "cohortes": "es",
}  # fmt: skip


def test_predicates_and_participles_agree_with_their_subject() -> None:
    """``La biomasse ... a été estimée``, ``Les rejets ... étaient élevés``."""
    subject = "|".join(SUBJECTS)
    rule = re.compile(
        rf"^(?:.*?, )?(?:l'|la |le |les )({subject})\b.* (?:a été|ont été|était|étaient|pu être) "
        r"(estimé|calculé|projeté|reconstitué|simulé|élevé|modéré|inconnu|important|incertain)(e?s?) ",
        re.IGNORECASE,
    )
    endings = Counter[str]()
    for pair in sample("assessment"):
        match = rule.match(pair.target_fr)
        if match:
            noun, _, ending = match.groups()
            assert ending == SUBJECTS[noun.lower()], pair.target_fr
            endings[ending] += 1
    assert set(endings) == {"", "e", "s", "es"}
    assert min(endings.values()) > 20


def test_a_participle_after_que_agrees_with_what_stands_before_it() -> None:
    """``Les données que les observateurs ont fournies``."""
    genders = {"données": "es", "étude": "e", "études": "es", "rapport": "", "rapports": "s", "résultats": "s"}
    rule = re.compile(
        rf"(?:la |l'|le |les )(?:\w+ )?({'|'.join(genders)})(?: \w+)? qu(?:e |')[^,]* (?:a|ont) "
        r"(fourni|obtenu|préparé|demandé|envoyé|utilisé)(e?s?) en \d"
    )
    endings = Counter[str]()
    for pair in sample("assessment"):
        match = rule.search(pair.target_fr)
        if match:
            assert match.group(3) == genders[match.group(1)], pair.target_fr
            endings[match.group(3)] += 1
    assert set(endings) == {"", "e", "s", "es"}


@pytest.mark.parametrize("domain", DOMAINS)
def test_verbs_agree_with_a_subject_that_opens_the_sentence(domain: Domain) -> None:
    """The first auxiliary of a sentence without a clause before it."""
    rule = re.compile(
        r"(Les|La plupart|Le|La|L'|Chaque|Ces|Cette|Cet|Ce)\b[^,;]*? "
        r"(?:n'|ne )?(est|sont|a|ont|était|étaient|sera|seront|doit|doivent|peut|peuvent|contient|contiennent) "
    )
    plural_verbs = ("sont", "ont", "étaient", "seront", "doivent", "peuvent", "contiennent")
    numbers = Counter[bool]()
    for pair in sample(domain):
        match = rule.match(pair.target_fr)
        if match and " qu" not in match.group():
            plural_subject = match.group(1) in ("Les", "Ces", "La plupart")
            assert plural_subject == (match.group(2) in plural_verbs), pair.target_fr
            numbers[plural_subject] += 1
    assert min(numbers.values()) > 1000


def test_every_construction_occurs() -> None:
    """The rules above would hold of a language without them: each of these must be there."""
    text = "\n".join(pair.target_fr for domain in DOMAINS for pair in sample(domain)).lower()
    forms = """
        l'humidité|l'hypothèse|l'aiglefin|d'aiglefin|er de nouvelles |er de vieux |équipés de casiers|
        de hareng|du comité|au homard|de l'estuaire|des prises|aux |à l'aiglefin
        cet |cette |ces |nouvel a|nouvelles |vieil |n'a pas|n'ont |ne contiennent pas d'|qu'un|qu'en|s'il |si elle
        lorsque |est-ce qu'un|il n'y a aucune |tous les|toutes les|le 1er |journaux de bord|poux du poisson|sont mortes
        d'inspecter|\u00a0%|\u202f;|\u202f?|\u00a0:
    """
    assert [form for line in forms.splitlines() for form in line.lstrip(" ").split("|") if form not in text] == []


@pytest.mark.parametrize("side", ["source_en", "target_fr"])
def test_the_sub_domains_share_little_but_function_words(side: str) -> None:
    vocabulary = {
        domain: {word for pair in sample(domain) for word in re.findall(r"[^\W\d_]{5,}", getattr(pair, side).lower())}
        for domain in DOMAINS
    }
    shared = vocabulary["assessment"] & vocabulary["aquaculture"]
    for words in vocabulary.values():
        assert 250 <= len(words) <= 600
        assert len(shared) / len(words) < 0.08


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_written_rows_follow_the_data_schema(tmp_path: Path, name: str) -> None:
    pairs, path = sample("aquaculture")[:50], tmp_path / "new" / name
    assert write_jsonl(path, pairs) == 100
    content = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    rows = [json.loads(line) for line in content.decode().splitlines()]
    english, french, document = pairs[0]
    assert rows[:2] == [
        {"source": english, "target": french, "source_lang": "en", "pub_number": document},
        {"source": french, "target": english, "source_lang": "fr", "pub_number": document},
    ]
    first = path.read_bytes()
    write_jsonl(path, pairs)
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("language", ["en", "fr"])
def test_one_direction_gives_one_row_a_pair(tmp_path: Path, language: Language) -> None:
    path = tmp_path / "pairs.jsonl"
    assert write_jsonl(path, sample("assessment")[:7], (language,)) == 7
    assert {json.loads(line)["source_lang"] for line in path.read_text("utf-8").splitlines()} == {language}


def test_the_command_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b.jsonl.gz"
    assert main(["--domain", "aquaculture", "--count", "40", "--direction", "en-fr", "--output", str(path)]) == 0
    assert "40 rows, 40 distinct pairs in" in capsys.readouterr().out
    assert len(gzip.decompress(path.read_bytes()).decode().splitlines()) == 40


def test_the_command_refuses_a_bad_count_and_a_bad_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    assert main(["--domain", "assessment", "--count", "-2", "--output", str(tmp_path / "a.jsonl")]) == 2
    assert main(["--domain", "assessment", "--count", "2", "--output", str(taken / "a.jsonl")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert not (tmp_path / "a.jsonl").exists()
