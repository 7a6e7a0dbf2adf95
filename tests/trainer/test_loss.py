"""The loss: its value, what it counts, and that no split of a global batch changes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from demo.corpus import Pair
from tests.trainer.helpers import (
    KEYS,
    assert_same_gradient,
    build,
    split,
    step_gradient,
    stir_adapters,
)
from trainer.collate import collate
from trainer.loop import forward
from trainer.loss import IGNORED, loss_sums

Standins = Callable[[str], Path]


def some_logits(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(3, 5, 11, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(0, 11, (3, 5), generator=generator)
    labels[0, 3:] = labels[2, 1:] = IGNORED
    return logits, labels


class TestValue:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
    def test_is_the_sum_of_smoothed_cross_entropies(self, smoothing: float) -> None:
        logits, labels = some_logits()
        expected = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=smoothing
        )
        sums = loss_sums(logits, labels, smoothing)
        torch.testing.assert_close(sums.smoothed, expected)
        assert sums.tokens == 9

    def test_nll_is_the_loss_without_smoothing(self) -> None:
        logits, labels = some_logits()
        assert loss_sums(logits, labels, 0.1).nll == loss_sums(logits, labels, 0.0).smoothed

    def test_padding_gets_no_gradient(self) -> None:
        logits, labels = some_logits()
        loss_sums(logits, labels, 0.1).smoothed.backward()  # type: ignore[no-untyped-call]
        assert logits.grad is not None
        assert not logits.grad[labels == IGNORED].any()
        assert logits.grad[labels != IGNORED].abs().sum(-1).all()

    def test_half_precision_logits_are_summed_in_float32(self) -> None:
        logits, labels = some_logits(torch.bfloat16)
        sums = loss_sums(logits, labels, 0.1)
        assert sums.smoothed.dtype == sums.nll.dtype == torch.float32
        torch.testing.assert_close(sums.smoothed, loss_sums(logits.float(), labels, 0.1).smoothed)


class TestAgainstTheModels:
    def test_nll_is_the_models_own_loss(self, family: str, standins: Standins, short_text: list[Pair]) -> None:
        """So decoder input, shift and Marian's output bias are those of the library."""
        setup = build(KEYS[family], standins(family), short_text)
        setup.model.eval()
        batch = setup.rows.batch(torch.arange(16).numpy())
        assert (batch.labels == IGNORED).any()
        with torch.no_grad():
            sums = loss_sums(forward(setup.model, batch), batch.labels, 0.1)
            own = setup.base(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
        torch.testing.assert_close(sums.nll / sums.tokens, own)

    def test_marians_output_bias_counts(self, standins: Standins, short_text: list[Pair]) -> None:
        setup = build(KEYS["marian"], standins("marian"), short_text)
        batch = setup.rows.batch(torch.arange(4).numpy())
        with torch.no_grad():
            with_bias = loss_sums(forward(setup.model, batch), batch.labels, 0.0).nll
            setup.base.get_buffer("final_logits_bias").zero_()
            without = loss_sums(forward(setup.model, batch), batch.labels, 0.0).nll
        assert abs(float(with_bias - without)) > 1.0

    def test_the_ignored_label_never_reaches_the_decoder(self) -> None:
        batch = collate([[5, 2], [5, 6, 2]], [[7, 2], [7, 8, 9, 2]], pad_id=1, start_id=2)
        assert batch.labels.tolist() == [[7, 2, IGNORED, IGNORED], [7, 8, 9, 2]]
        assert batch.decoder_input_ids.tolist() == [[2, 7, 2, 1], [2, 7, 8, 9]]


class TestSplitInvariance:
    """The stock Seq2SeqTrainer multiplies loss and gradient by the accumulation factor. Two ranks: test_distributed."""

    @pytest.mark.parametrize("method", ["lora", "full"])
    def test_accumulation_and_micro_batch_change_nothing(
        self, family: str, method: str, standins: Standins, short_text: list[Pair]
    ) -> None:
        setup = build(KEYS[family], standins(family), short_text, method=method)
        stir_adapters(setup.model)
        whole, gradient = step_gradient(setup, split(16, 1))
        assert whole.nll != whole.loss
        for rounds in (2, 4, 5):  # 5: micro-batches of unequal size
            result, same = step_gradient(setup, split(16, rounds))
            assert result.loss == pytest.approx(whole.loss, rel=1e-5)
            assert result.nll == pytest.approx(whole.nll, rel=1e-5)
            assert result.grad_norm == pytest.approx(whole.grad_norm, rel=1e-4)
            assert_same_gradient(gradient, same)
