"""Scores, their files, and the refusal of a damaged base."""

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
