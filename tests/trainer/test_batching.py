"""Batches: every row once, the promised size, little padding, the same plan for everyone."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from mtft.config import TrainConfig
from tests.standins.pieces import train_pieces
from trainer.batching import Budget, Rows, make_bins, make_budget, padded_tokens, plan_epoch, real_token_share


def lengths(count: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Return source and target lengths as prose has them: skewed, and alike within a pair."""
    generator = np.random.default_rng(seed)
    sources = np.clip(generator.lognormal(3.3, 0.6, count), 4, 512).astype(np.int64)
    targets = np.clip(sources * generator.normal(1.15, 0.15, count), 4, 512).astype(np.int64)
    return sources, targets


class TestPlan:
    @pytest.mark.parametrize("processes", [1, 2, 3])
    @pytest.mark.parametrize("accumulation", [1, 2, 4])
    def test_every_row_is_in_an_epoch_once(self, processes: int, accumulation: int) -> None:
        sources, targets = lengths(1009)
        budget = make_budget(TrainConfig(batch_size=8, gradient_accumulation=accumulation), sources, targets, processes)
        assert budget.bins_per_step % processes == 0
        for epoch in range(3):
            steps = plan_epoch(budget, sources, targets, seed=7, epoch=epoch)
            rows = np.concatenate([rows for bins in steps for rows in bins])
            assert sorted(rows.tolist()) == list(range(1009))

    def test_every_epoch_has_as_many_steps(self) -> None:
        sources, targets = lengths(3000)
        budget = make_budget(TrainConfig(batch_size=16, gradient_accumulation=2), sources, targets, 1)
        counts = {len(plan_epoch(budget, sources, targets, seed=seed, epoch=e)) for seed in (1, 2) for e in range(8)}
        assert len(counts) == 1

    def test_seed_and_epoch_decide_it(self) -> None:
        sources, targets = lengths(300)
        budget = Budget(bins_per_step=2, bin_tokens=400)

        def plan(seed: int, epoch: int) -> list[list[int]]:
            steps = plan_epoch(budget, sources, targets, seed=seed, epoch=epoch)
            return [rows.tolist() for bins in steps for rows in bins]

        assert plan(1, 0) == plan(1, 0)
        assert len({str(plan(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4

    @given(
        st.lists(st.tuples(st.integers(2, 600), st.integers(2, 600)), min_size=1, max_size=80),
        st.integers(16, 2000),
        st.booleans(),
    )
    @settings(max_examples=150, deadline=None)
    def test_a_bin_keeps_to_its_budget_unless_one_row_is_longer(
        self, pairs: list[tuple[int, int]], budget: int, shuffled: bool
    ) -> None:
        sources, targets = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
        bins = make_bins(sources, targets, budget, np.random.default_rng(0) if shuffled else None)
        assert sorted(np.concatenate(bins).tolist()) == list(range(len(pairs)))
        assert all(len(rows) == 1 or padded_tokens(rows, sources, targets) <= budget for rows in bins)


class TestBudget:
    @pytest.mark.parametrize("count", [2003, 5000])
    @pytest.mark.parametrize("batch_size", [4, 12, 32])
    @pytest.mark.parametrize("processes", [1, 2, 3])
    def test_a_step_sees_the_configured_sentences_on_average(self, count: int, batch_size: int, processes: int) -> None:
        sources, targets = lengths(count)
        for accumulation in (1, 2, 3, 4):
            train = TrainConfig(batch_size=batch_size, gradient_accumulation=accumulation)
            budget = make_budget(train, sources, targets, processes)
            steps = plan_epoch(budget, sources, targets, seed=3, epoch=0)
            wanted = batch_size * accumulation * processes
            # A number of steps is whole: what it rounds away is not the batches' fault.
            best = count / round(count / wanted)
            assert count / len(steps) == pytest.approx(best, rel=0.02)
            assert count / len(steps) == pytest.approx(wanted, rel=0.05)
            assert max(padded_tokens(rows, sources, targets) for bins in steps for rows in bins) <= 4096

    @pytest.mark.parametrize("rounds", [1, 2, 3])
    def test_padding_does_not_shrink_a_step_whose_tokens_fill_the_micro_batches(self, rounds: int) -> None:
        sources, targets = lengths(6000, seed=1)
        sources = np.random.default_rng(5).permutation(sources)  # sides of unlike lengths: more padding
        tokens = int(32 * (sources.mean() + targets.mean()) / rounds) + 1
        train = TrainConfig(batch_size=32, gradient_accumulation=1, micro_batch_tokens=tokens)
        budget = make_budget(train, sources, targets, 1)
        steps = plan_epoch(budget, sources, targets, seed=3, epoch=0)
        assert 6000 / len(steps) == pytest.approx(32, rel=0.02)
        assert budget.bins_per_step == rounds + 1

    @pytest.mark.parametrize("processes", [1, 2, 3])
    def test_tokens_per_batch_counts_real_tokens_of_a_step(self, processes: int) -> None:
        sources, targets = lengths(8000)
        train = TrainConfig(batch_size=None, tokens_per_batch=9000)
        steps = plan_epoch(make_budget(train, sources, targets, processes), sources, targets, seed=3, epoch=0)
        assert (sources.sum() + targets.sum()) / len(steps) == pytest.approx(9000, rel=0.05)

    def test_a_small_micro_batch_changes_the_rounds_and_not_the_step(self) -> None:
        sources, targets = lengths(6000)
        counts = {}
        for tokens in (512, 1024, 4096):
            train = TrainConfig(batch_size=16, gradient_accumulation=2, micro_batch_tokens=tokens)
            budget = make_budget(train, sources, targets, 1)
            counts[budget.bins_per_step] = len(plan_epoch(budget, sources, targets, seed=3, epoch=0))
        assert len(counts) == 3
        assert max(counts.values()) <= 1.03 * min(counts.values())

    def test_fewer_rows_than_a_batch_make_one_step(self) -> None:
        sources, targets = lengths(5)
        budget = make_budget(TrainConfig(batch_size=16, gradient_accumulation=2), sources, targets, 2)
        assert len(plan_epoch(budget, sources, targets, seed=3, epoch=0)) == 1


class TestPadding:
    def test_real_text_has_little_padding(self, real_data: Path) -> None:
        """At 4,096 padded tokens; lengths from a SentencePiece model of 8,000 pieces trained on the same text."""
        with gzip.open(real_data / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line, _ in zip(lines, range(20_000), strict=False)]
        pieces = train_pieces([row[side] for row in rows[:3000] for side in ("source", "target")], 8000)
        model = sentencepiece.SentencePieceProcessor(model_proto=pieces)
        sources, targets = (
            np.array([min(512, len(ids) + 2) for ids in model.encode([row[side] for row in rows])], dtype=np.int64)
            for side in ("source", "target")
        )
        bins = make_bins(sources, targets, 4096, np.random.default_rng(0))
        share = real_token_share(bins, sources, targets)
        print(f"share of real tokens: {share:.4f} (mean source length {sources.mean():.1f})")
        assert share >= 0.92
