"""What is wrong with single translations: empty, copied, looping, another language; lost numbers and names."""

from __future__ import annotations

import pytest

from trainer.agreement import entities, keeps_entities, keeps_numbers, numbers
from trainer.faults import faults, rates, repeats
from trainer.pairs import Pair

EN = ["The biologist counted the cod.", "Two estuaries are closed to fishing.", "The fleet returned in the morning."]
FR = ["La biologiste a compté les morues.", "Deux estuaires sont fermés à la pêche.", "La flottille est rentrée."]
NONE = {"empty": 0.0, "copy": 0.0, "repetition": 0.0, "off_target": 0.0, "numbers": 1.0, "entities": 1.0}


def rated(hypotheses: list[str], sources: list[str] = EN, references: list[str] = FR) -> dict[str, float]:
    pairs = [
        Pair(source=source, reference=reference, direction=("en", "fr"), document=None)
        for source, reference in zip(sources, references, strict=True)
    ]
    return rates(faults(pairs, hypotheses))


class TestRates:
    def test_good_output_has_no_fault(self) -> None:
        assert rated(FR) == NONE

    @pytest.mark.parametrize("text", ["Треска восстановилась.", "鳕鱼种群已恢复。", "تعافى مخزون سمك القد"])
    def test_another_script_is_another_language(self, text: str) -> None:
        assert rated([text, *FR[1:]])["off_target"] == pytest.approx(1 / 3, abs=1e-6)

    def test_rows_whose_reference_is_in_doubt_are_not_judged(self) -> None:
        assert rated([EN[0]], ["12 kg"], ["12 kg"])["off_target"] == 0.0

    def test_each_error_is_seen(self) -> None:
        assert rated([" ", *FR[1:]])["empty"] == pytest.approx(1 / 3, abs=1e-6)
        copied = rated([f"  {EN[0].upper()} ", *FR[1:]])
        assert [copied["copy"], copied["off_target"]] == pytest.approx([1 / 3, 1 / 3], abs=1e-6)
        assert rated(["La pêche " + "de la morue " * 4, *FR[1:]])["repetition"] == pytest.approx(1 / 3, abs=1e-6)

    @pytest.mark.parametrize(
        ("text", "found"),
        [("a a a a", True), ("a a a b a", False), ("x de la y de la", False), ("1 2 3 4 " * 4, True), ("", False)],
    )
    def test_repetition_is_four_times_in_a_row(self, text: str, found: bool) -> None:
        assert repeats(text) == found

    def test_a_reference_that_does_the_same_excuses_it(self) -> None:
        assert rated(["MPO 2024/017"], ["MPO 2024/017"], ["MPO 2024/017"])["copy"] == 0.0
        assert rated(["non non non non"], ["no"], ["non non non non"])["repetition"] == 0.0

    def test_numbers_have_no_language(self) -> None:
        assert rated(["12"], ["12"], ["12"])["off_target"] == 0.0

    def test_agreement_is_the_share_of_the_sentences_that_have_something_to_keep(self) -> None:
        sources = ["NAFO opened 12 areas.", "It closed 3 areas in 1995.", EN[0]]
        references = ["L'OPANO, ou NAFO, a ouvert 12 zones.", "Elle a fermé 3 zones en 1995.", FR[0]]
        found = rated(["La NAFO a ouvert 12 zones.", "Elle a fermé 3 zones en 1996.", FR[0]], sources, references)
        assert (found["numbers"], found["entities"]) == (0.5, 1.0)
        assert rated(["L'OPANO a ouvert 12 zones.", *references[1:]], sources, references)["entities"] == 0.0


class TestNumbers:
    @pytest.mark.parametrize(
        ("english", "french"),
        [
            ("1,234.5 t", "1 234,5 t"),
            ("1,234,567", "1\u202f234\u00a0567"),
            ("12.5%", "12,5 %"),
            ("5 per cent", "5 p. 100"),
            ("5 percent", "5\u00a0pour\u00a0cent"),
            ("the 1st of 2", "le 1er de 2"),
            (".5 kg", "0,5 kg"),
            ("section 7.2.1", "article 7.2.1"),
            ("2024-01-05", "5/1/2024"),
            ("0.125", "0,125"),
            ("in 1990 200 boats", "en 1990 200 bateaux"),
            ("3½ hours", "3,5 heures"),
            ("3 ¼ or ½", "3.25 ou 0,5"),
            ("3 1\u20442 or ¹\u2044₂ or 31\u20442", "3.5 ou 0,5 ou 15,5"),
            ("1\u2019234 t or 1'234'567", "1 234 t ou 1 234 567"),
            ("12\u00ad5", "125"),
            ("1⅛ inches", "1,125 pouce"),
            ("５ km²", "5\u2007km2"),
            ("10² or 10⁻³", "10 ou 10"),
            ("as of 2010¹", "de 2010"),
            ("… and …5", "et 5"),
        ],
    )
    def test_are_read_alike_in_both_languages(self, english: str, french: str) -> None:
        assert numbers(english, "en") == numbers(french, "fr") != {}

    @pytest.mark.parametrize(
        ("english", "french"),
        [("1,234", "1,234"), ("12.5", "125"), ("5%", "5"), ("7 and 7", "7"), ("1.5", "1,50"), ("B12", "12")],
    )
    def test_that_say_something_else_differ(self, english: str, french: str) -> None:
        assert numbers(english, "en") != numbers(french, "fr")

    def test_only_those_the_reference_keeps_are_asked_for(self) -> None:
        asked = ("at 2 p.m. on May 5", "le 5 mai à 14 h", ("en", "fr"))
        assert keeps_numbers(asked[0], "le 5 mai", *asked[1:]) is True
        assert keeps_numbers(asked[0], "le mai à 14 h", *asked[1:]) is False
        assert keeps_numbers("two cod", "x", "2 morues", ("en", "fr")) is None

    @pytest.mark.parametrize(
        ("source", "reference", "good", "bad"),
        [
            (
                "3½ days",
                "3,5 jours",
                ("3½ jours", "3 1/2 jours", "3.5 jours"),
                ("3 jours", "3,25 jours", "3 1/4 jours"),
            ),
            ("1,234½ t", "1 234 et ½ t", ("1234 et 1/2",), ("1234",)),
            ("½ a day", "½ journée", ("0,5 jour", "1/2 jour"), ("1 jour", "2/1 jour")),
            ("page 1/2", "page 1/2", ("page 1/2", "page 1 sur 2", "page ½"), ("page 1", "page 3/2")),
            ("on 1/5/2024", "le 1/5/2024", ("le 5/1/2024", "2024-01-05"), ("le 1/5", "0,2/2024")),
        ],
    )
    def test_fractions_may_be_written_either_way(
        self, source: str, reference: str, good: tuple[str, ...], bad: tuple[str, ...]
    ) -> None:
        for said, kept in ((good, True), (bad, False)):
            found = [keeps_numbers(source, each, reference, ("en", "fr")) for each in said]
            assert found == [kept] * len(said)


class TestEntities:
    def test_are_what_stands_out_but_for_the_first_word(self) -> None:
        text = "Section 5: NAFO: Gadus morhua, pH 7.1, vitamin B12, 5 kg, 20 µg of L'Anse"
        assert entities(text) == {"NAFO", "Gadus", "pH", "B12", "kg", "\u03bcg", "L", "Anse"}
        assert entities("NAFO and Canada") == {"NAFO", "Canada"} == entities("Le Canada et la NAFO")

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            *(("CO₂ rose", "CO2 rose"), ("of CO2", "of CO₂"), ("5 m²", "5 m2"), ("5 µg", "5 \u03bcg")),
            *(("by Nutreco™", "by Nutreco"), ("in Zone Ⅳ", "in Zone IV"), ("by ＮＡＦＯ", "by NAFO")),
            *(("as B12¹", "as B12"), ("by NA\u00adFO", "by NAFO")),
        ],
    )
    def test_are_the_same_however_their_signs_are_written(self, one: str, other: str) -> None:
        assert entities(one) == entities(other) != set()
        assert (
            keeps_entities(f"The {one}", other, f"Le {one}") is keeps_entities(f"The {one}", one, f"Le {other}") is True
        )
        assert keeps_entities(f"The {one}", "none", f"Le {other}") is False

    def test_only_those_the_reference_copied_are_asked_for(self) -> None:
        source, reference = "The DFO counts Gadus.", "Le MPO compte les Gadus."
        assert keeps_entities(source, "Les Gadus sont comptés.", reference) is True
        assert keeps_entities(source, "Les gadus sont comptés.", reference) is False
        assert keeps_entities(EN[0], FR[0], FR[0]) is None
