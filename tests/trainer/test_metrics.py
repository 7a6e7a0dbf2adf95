"""Scores, error rates, the paired bootstrap, and the refusal of a damaged base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from demo.corpus import Pair as TextPair
from mtft.errors import InputError
from tests.trainer.helpers import ALONE, KEYS, Practised, build, segments_of
from trainer import evaluation, metrics
from trainer.batching import make_bins
from trainer.evaluation import check_base, dev_metric, score_pairs, write_sentences
from trainer.generation import Decoding
from trainer.pairs import Pair, sampled

EN = ["The biologist counted the cod.", "Two estuaries are closed to fishing.", "The fleet returned in the morning."]
FR = ["La biologiste a compté les morues.", "Deux estuaires sont fermés à la pêche.", "La flottille est rentrée."]
EN_FR = ("en", "fr")


def rates(hypotheses: list[str]) -> dict[str, float]:
    return metrics.error_rates(EN, hypotheses, FR, "fr")


class TestScores:
    def test_perfect_and_empty_output(self) -> None:
        best, worst = metrics.score(FR, FR), metrics.score(["", "", ""], FR)
        assert (best["bleu"], best["chrf"], best["ter"], best["n"]) == (100.0, 100.0, 0.0, 3)
        assert (worst["bleu"], worst["chrf"], worst["ter"]) == (0.0, 0.0, 100.0)

    def test_carry_sacrebleus_signatures(self) -> None:
        signatures = metrics.score(FR, FR)["signatures"]
        assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
        assert signatures["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
        assert signatures["ter"].startswith("nrefs:1|case:lc|tok:tercom|")

    def test_are_per_direction(self) -> None:
        pairs = [Pair(source=s, reference=r, direction=EN_FR, document=None) for s, r in zip(EN, FR, strict=True)]
        pairs += [Pair(source=FR[0], reference=EN[0], direction=("fr", "en"), document=None)]
        scores = score_pairs(pairs, [*FR, FR[0]])
        assert {name: (its["n"], its["bleu"] > 99) for name, its in scores.items()} == {
            "en-fr": (3, True),
            "fr-en": (1, False),
        }
        assert (scores["en-fr"]["off_target"], scores["fr-en"]["off_target"]) == (0.0, 1.0)
        assert dev_metric({"nll": 2.5, "directions": scores}, "nll") == 2.5
        expected = (scores["en-fr"]["chrf"] + scores["fr-en"]["chrf"]) / 2
        assert dev_metric({"nll": 2.5, "directions": scores}, "chrf") == expected


class TestErrorRates:
    def test_good_output_has_none(self) -> None:
        assert rates(FR) == {"empty": 0.0, "copy": 0.0, "repetition": 0.0, "off_target": 0.0}

    @pytest.mark.parametrize("text", ["Треска восстановилась.", "鳕鱼种群已恢复。", "تعافى مخزون سمك القد"])
    def test_another_script_is_another_language(self, text: str) -> None:
        assert rates([text, *FR[1:]])["off_target"] == pytest.approx(1 / 3)

    def test_rows_whose_reference_is_in_doubt_are_not_judged(self) -> None:
        assert metrics.error_rates(["12 kg"], [EN[0]], ["12 kg"], "fr")["off_target"] == 0.0

    def test_each_error_is_seen(self) -> None:
        assert rates([" ", *FR[1:]])["empty"] == pytest.approx(1 / 3)
        copied = rates([f"  {EN[0].upper()} ", *FR[1:]])
        assert [copied["copy"], copied["off_target"]] == pytest.approx([1 / 3, 1 / 3])
        assert rates(["La pêche " + "de la morue " * 4, *FR[1:]])["repetition"] == pytest.approx(1 / 3)

    @pytest.mark.parametrize(
        ("text", "found"),
        [("a a a a", True), ("a a a b a", False), ("x de la y de la", False), ("1 2 3 4 " * 4, True), ("", False)],
    )
    def test_repetition_is_four_times_in_a_row(self, text: str, found: bool) -> None:
        assert metrics.repeats(text) == found

    def test_a_reference_that_does_the_same_excuses_it(self) -> None:
        code = ["MPO 2024/017"]
        assert metrics.error_rates(code, code, code, "fr")["copy"] == 0.0
        ditto = ["non non non non"]
        assert metrics.error_rates(["no"], ditto, ditto, "fr")["repetition"] == 0.0

    def test_numbers_have_no_language(self) -> None:
        assert metrics.error_rates(["12"], ["12"], ["12"], "fr")["off_target"] == 0.0


class TestComparison:
    def test_equal_outputs_do_not_differ(self) -> None:
        for found in metrics.compare(FR, FR, FR, samples=50).values():
            assert (found.delta, found.p_value) == (0.0, 1.0)

    def test_a_clear_gain_is_significant_and_a_loss_is_its_mirror(self, parallel_text: list[TextPair]) -> None:
        references = [pair.target_fr for pair in parallel_text[:60]]
        poor = [" ".join(text.split()[::-1]) for text in references]
        gain = metrics.compare(poor, references, references, samples=200)
        loss = metrics.compare(references, poor, references, samples=200)
        for name in ("bleu", "chrf"):
            assert gain[name].delta > 10
            assert loss[name].delta == -gain[name].delta
            assert gain[name].p_value <= 0.05

    def test_one_row_proves_nothing(self) -> None:
        assert metrics.compare(["a"], ["b"], ["b"], samples=10)["bleu"].p_value == 1.0


class TestBaseGate:
    """A base whose weights were not loaded as they are translates badly: nothing is trained on it."""

    def test_a_damaged_output_layer_is_refused(self, practised: Callable[[str], Practised]) -> None:
        done = practised("mbart50")
        setup = build(KEYS["mbart50"], done.folder, list(done.pairs))
        segments, references = segments_of(setup.card, done.pairs)
        pairs = [
            Pair(source=segment.source, reference=reference, direction=segment.direction, document=None)
            for segment, reference in zip(segments, references, strict=True)
        ]
        decoding = Decoding(beams=1, batch_tokens=1000, dtype=torch.float32)

        def check() -> None:
            outputs, limits = evaluation.translate_pairs(setup.base, setup.encoder, pairs, decoding, ALONE)
            assert limits.keys() == {"en-fr"}
            check_base(score_pairs(pairs, outputs), 50.0)

        check()
        with torch.no_grad():
            setup.base.lm_head.weight.copy_(setup.base.lm_head.weight.roll(1, 0))
        with pytest.raises(InputError, match=r"reaches [\d.]+ BLEU on en-fr, below eval.min_base_bleu = 50"):
            check()


class TestNll:
    def test_is_per_real_token_whatever_the_batches(
        self, family: str, practised: Callable[[str], Practised], short_text: list[TextPair]
    ) -> None:
        setup = build(KEYS[family], practised(family).folder, short_text)
        for module in setup.model.modules():
            if isinstance(vars(module).get("dropout"), float):
                vars(module)["dropout"] = 0.3  # nothing of it may show
        chosen = [1, 5, 8, 20, 31]
        values = []
        for batch_tokens in (16, 200, 10_000):
            setup.model.train()
            values.append(
                evaluation.mean_nll(
                    setup.model, setup.rows, chosen, ALONE, dtype=torch.float32, batch_tokens=batch_tokens
                )
            )
            assert setup.model.training
        assert values[1:] == pytest.approx(values[:1] * 2, rel=1e-5)
        assert len(make_bins(setup.rows.source_lengths[chosen], setup.rows.target_lengths[chosen], 200)) > 1
        setup.model.eval()
        batch = setup.rows.batch(torch.tensor(chosen).numpy())
        with torch.no_grad():
            own = setup.base(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
        assert values[0] == pytest.approx(float(own), rel=1e-4)


class TestFiles:
    def test_a_sample_is_fixed_and_takes_both_directions_of_an_alternating_file(self) -> None:
        assert sampled(5, None) == sampled(5, 9) == [0, 1, 2, 3, 4]
        chosen = sampled(1000, 200)
        assert chosen == sampled(1000, 200) == sorted(set(chosen))
        assert 70 < sum(position % 2 for position in chosen) < 130

    def test_one_line_per_sentence_and_one_file_per_direction(self, tmp_path: Path) -> None:
        pairs = [Pair(source=s, reference=r, direction=EN_FR, document="D1") for s, r in zip(EN, FR, strict=True)]
        pairs.insert(1, Pair(source=FR[0], reference=EN[0], direction=("fr", "en"), document=None))
        base, tuned = ["", "x", "", ""], [FR[0], EN[0], FR[1], "a\u2028b"]
        write_sentences(tmp_path, pairs, base, tuned)
        assert {path.name for path in tmp_path.iterdir()} == {"test.en-fr.jsonl", "test.fr-en.jsonl"}
        lines = (tmp_path / "test.en-fr.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]
        assert [row["tuned"] for row in rows] == [FR[0], FR[1], "a\u2028b"]
        assert (rows[0]["base_chrf"], rows[0]["tuned_chrf"], rows[0]["pub_number"]) == (0.0, 100.0, "D1")
