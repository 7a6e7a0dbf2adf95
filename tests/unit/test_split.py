"""Documents are held out whole, the same ones each time, and close to the fraction asked for."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mtft.errors import InputError
from mtft.rows import Row
from mtft.split import HELD_OUT, Documents, HeldOut, Split, plan_split


def row(source: str, pub_number: str | None = None, source_lang: str = "en", target: str = "phrase") -> Row:
    return Row(source, target, source_lang, pub_number, "f.jsonl", 1)


def library(sizes: list[int]) -> list[Row]:
    return [row(f"s{number}", f"DOC-{document}") for document, size in enumerate(sizes) for number in range(size)]


def split_of(rows: list[Row], fraction: float, held_out: tuple[HeldOut, ...] = HELD_OUT, seed: int = 0) -> Split:
    documents = Documents(seed)
    for one in rows:
        documents.add(one)
    return plan_split(documents, fraction, held_out)


def counted(rows: list[Row], split: Split) -> Counter[str]:
    counts: Counter[str] = Counter(map(split, rows))
    assert counts == Counter(split.rows)
    return counts


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.3, 0.9])
def test_any_library_is_split_by_document(fraction: float, seed: int) -> None:
    chance = random.Random(seed)
    sizes = [int(chance.paretovariate(0.7)) % 400 + 1 for _ in range(chance.choice([2, 3, 4, 60]))]
    rows = library(sizes)
    split = split_of(rows, fraction, seed=seed)
    counts = counted(rows, split)
    assert all(len({split(one) for one in rows if one.pub_number == f"DOC-{doc}"}) == 1 for doc in range(len(sizes)))
    assert counts["train"] > 0
    assert counts["dev"] > 0
    assert (counts["test"] > 0) == (len(sizes) > 2)
    assert abs(counts["dev"] + counts["test"] - fraction * len(rows)) <= max(sizes) * (1 if len(sizes) > 4 else 2)


@pytest.mark.parametrize(
    ("sizes", "near"),
    [([1] * 2000, 100), ([20] * 100, 100), ([1900] + [1] * 100, 100), (list(range(1, 64)), 101)],
    ids=["singles", "equal", "one-huge", "mixed"],
)
@pytest.mark.parametrize("seed", range(5))
def test_the_fraction_is_met_in_rows_and_halved(sizes: list[int], near: int, seed: int) -> None:
    counts = counted(rows := library(sizes), split_of(rows, 0.05, seed=seed))
    assert counts["dev"] + counts["test"] == pytest.approx(near, abs=2)
    assert min(counts["dev"], counts["test"]) >= 0.4 * near


def test_the_order_of_rows_and_files_does_not_matter_but_the_seed_does() -> None:
    rows = library([5] * 200)
    shuffled = random.Random(1).sample(rows, len(rows))
    chosen = [
        {one.pub_number for one in rows if split(one) != "train"}
        for split in (split_of(rows, 0.05), split_of(shuffled, 0.05), split_of(rows, 0.05, seed=1))
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_the_choice_is_pinned() -> None:
    """The same documents in every version: a model must not be tested on what an earlier one was trained on."""
    rows = library([3] * 40)
    split = split_of(rows, 0.1)
    held = sorted({(split(one), one.pub_number) for one in rows if split(one) != "train"})
    assert held == [("dev", "DOC-2"), ("dev", "DOC-22"), ("test", "DOC-14"), ("test", "DOC-20")]


def test_rows_without_document_stay_with_their_duplicates_and_their_other_direction() -> None:
    rows = [row(f"Sentence {number}.", target=f"Phrase {number}.") for number in range(1000)]
    rows += [row(f"SENTENCE  {number}", target=f"Autre phrase {number} !") for number in range(1000)]
    rows += [row(f"Phrase {number}.", target=f"Sentence {number}.", source_lang="fr") for number in range(1000)]
    split = split_of(rows, 0.05)
    assert counted(rows, split)["train"] == 2850
    assert all(split(rows[i]) == split(rows[i + 1000]) == split(rows[i + 2000]) for i in range(1000))


@pytest.mark.parametrize("only", ["dev", "test"])
def test_one_set_alone(only: HeldOut) -> None:
    counts = counted(rows := library([10] * 100), split_of(rows, 0.05, (only,)))
    assert counts == {"train": 950, only: 50}


@pytest.mark.parametrize("rows", [[], library([9]), [row("same"), row("Same!")]])
def test_fewer_than_two_documents_are_refused(rows: list[Row]) -> None:
    with pytest.raises(InputError, match=r"give data\.dev and data\.test"):
        split_of(rows, 0.05)
