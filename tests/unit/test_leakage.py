"""What training rows show of the held-out rows, on either side and in either direction."""

from __future__ import annotations

from typing import Any

import pytest

from mtft.leakage import EXAMPLES, Leakage, remarks
from mtft.rows import Row

NONE_HELD = {"rows": 0, "source": 0, "target": 0, "swapped": 0, "pair": 0, "any": 0}
NOTHING = {**NONE_HELD, "rows": 1}


def en_fr(source: str, target: str, line: int = 1) -> Row:
    return Row(source, target, "en", None, "train.jsonl", line)


def fr_en(source: str, target: str) -> Row:
    return Row(source, target, "fr", None, "train.jsonl", 1)


HELD = en_fr("The cod, 2.5 kg.", "La morue, 2,5 kg : l’été.")


def met(*train: Row, held: tuple[Row, ...] = (HELD,)) -> dict[str, Any]:
    leakage = Leakage()
    for row in held:
        leakage.hold("dev", row)
    for row in train:
        leakage.see(row)
    return leakage.report()


@pytest.mark.parametrize(
    ("train", "exact", "loose"),
    [
        (en_fr("A cod.", "Une morue."), {}, {}),
        (en_fr("The cod, 2.5 kg.", "autre"), {"source", "any"}, {"source", "any"}),
        (en_fr("other", HELD.target), {"target", "any"}, {"target", "any"}),
        (en_fr(HELD.source, HELD.target), {"source", "target", "pair", "any"}, {"source", "target", "pair", "any"}),
        (fr_en(HELD.target, HELD.source), {"swapped", "pair", "any"}, {"swapped", "pair", "any"}),
        (fr_en("autre", HELD.source), {"swapped", "any"}, {"swapped", "any"}),
        (en_fr("THE COD (2.5 KG)", "autre"), {}, {"source", "any"}),
        # The same accents as combining characters.
        (en_fr("other", "la morue 2,5 kg: l'E\u0301TE\u0301"), {}, {"target", "any"}),
        # The same letters in the other language are another sentence.
        (fr_en(HELD.source, "x"), {}, {}),
    ],
)
def test_each_kind_of_overlap(train: Row, exact: set[str], loose: set[str]) -> None:
    found = met(train)["dev"]
    assert found == {
        "exact": {**NOTHING, **dict.fromkeys(exact, 1)},
        "loose": {**NOTHING, **dict.fromkeys(loose, 1)},
    }


def test_both_sides_from_different_rows_are_no_pair() -> None:
    found = met(en_fr(HELD.source, "x"), en_fr("y", HELD.target))["dev"]["exact"]
    assert found == {**NOTHING, "source": 1, "target": 1, "any": 1}


def test_held_out_rows_are_counted_however_often_they_are_met() -> None:
    report = met(*[en_fr(HELD.source, "x")] * 3, held=(HELD, HELD, en_fr("Else.", "Autre.")))
    assert report["dev"]["exact"]["source"] == 2
    assert report["dev"]["exact"]["rows"] == 3
    assert report["test"]["exact"] == NONE_HELD


def test_punctuation_alone_is_no_loose_match() -> None:
    found = met(en_fr("***", "x"), held=(en_fr("--", "!?"),))["dev"]
    assert found == {"exact": NOTHING, "loose": NOTHING}


def test_examples_name_the_training_row_once_and_are_bounded() -> None:
    report = met(en_fr(HELD.source, "x", line=7))
    assert report["examples"] == [{"match": "exact", "train": "train.jsonl:7", "side": "source", "text": HELD.source}]
    many = [en_fr(f"Sentence {number}.", f"Phrase {number}.", line=number) for number in range(50)]
    assert len(met(*many, held=tuple(many))["examples"]) == EXAMPLES


def test_nothing_held_out() -> None:
    assert met(HELD, held=())["dev"] == {"exact": NONE_HELD, "loose": NONE_HELD}


def test_what_it_means_is_said_by_weight() -> None:
    held = (HELD, en_fr("One side.", "Un côté."), en_fr("Else.", "Autre."))
    found = met(fr_en(HELD.target, HELD.source), en_fr("One side!", "x"), held=held)
    assert remarks("dev", found["dev"]["loose"]) == [
        ("grave", "1 of 3 dev rows are training rows too, but for case and punctuation: their scores say too much"),
        (
            "slight",
            "1 of 3 dev rows share a source or a target with training rows, but not the pair: "
            "their scores may say a little too much",
        ),
    ]
    assert [weight for weight, _ in remarks("dev", found["dev"]["exact"])] == ["grave"]
    assert remarks("test", found["test"]["loose"]) == []
