"""Scoring the model: NLL on token rows; BLEU, chrF, TER and rates of faults of translations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtft import files
from mtft.errors import InputError
from trainer import comparison, faults, metrics
from trainer.batching import Rows, make_bins
from trainer.distributed import World
from trainer.encoding import Encoder
from trainer.generation import Decoding, Segment, translate
from trainer.loop import autocast, forward
from trainer.loss import token_losses
from trainer.out_of_memory import Parts
from trainer.pairs import TEST, Direction, Outputs, Pair, TestSet, direction_name
from trainer.rows import TokenRows


@torch.no_grad()
def mean_nll(
    model: nn.Module,
    rows: TokenRows,
    chosen: Sequence[int],
    world: World,
    *,
    dtype: torch.dtype,
    batch_tokens: int,
    parts: int = 1,
) -> float:
    """Return nats per real target token over the chosen rows, the same on any number of ranks.

    Args:
        model: scored as it is; left in the mode it was in.
        rows: the token rows.
        chosen: numbers of those that count.
        world: shares the work.
        dtype: autocast type.
        batch_tokens: most padded tokens in one batch.
        parts: how many parts a batch is cut into from the start.
    """
    numbers = torch.tensor(chosen).numpy()
    bins = make_bins(rows.source_lengths[numbers], rows.target_lengths[numbers], batch_tokens)
    was_training = model.training
    model.eval()
    total = tokens = 0.0

    def nll_of(part: Rows) -> float:
        batch = rows.batch(part).to(world.device)
        with autocast(world.device, dtype):
            nll, _ = token_losses(forward(model, batch), batch.labels)
        return float(nll.double().sum())

    cut = Parts(world.device, parts)
    for positions in bins[world.rank :: world.size]:
        sums: list[float] = cut.each(nll_of, numbers[positions])
        total += sum(sums)
        tokens += float(rows.target_lengths[numbers[positions]].sum())
    model.train(was_training)
    total, tokens = world.sum([total, tokens])
    return total / tokens


def _by_direction(pairs: Sequence[Pair]) -> Iterator[tuple[Direction, list[int]]]:
    """Give each direction, sorted, with the positions of its pairs."""
    for direction in sorted({pair.direction for pair in pairs}):
        yield direction, [index for index, pair in enumerate(pairs) if pair.direction == direction]


def score_pairs(pairs: Sequence[Pair], texts: Sequence[str], *, ter: bool = True) -> dict[str, Any]:
    """Return scores and rates of faults per direction: ``{"en-fr": {"bleu": ..., "off_target": ...}}``.

    Without ``ter`` BLEU and chrF alone, which take a fraction of the time.
    """
    scores = {}
    for direction, at in _by_direction(pairs):
        references, hypotheses = [pairs[i].reference for i in at], [texts[i] for i in at]
        scored = (metrics.score if ter else metrics.quick)(hypotheses, references)
        found = faults.faults([pairs[i] for i in at], hypotheses)
        scores[direction_name(direction)] = {**scored, **faults.rates(found)}
    return scores


def quick_scores(pairs: Sequence[Pair], texts: Sequence[str]) -> dict[str, Any]:
    """Return BLEU, chrF and number of sentences per direction: what other ranks can wait for."""
    scores = {}
    for direction, at in _by_direction(pairs):
        scores[direction_name(direction)] = metrics.quick([texts[i] for i in at], [pairs[i].reference for i in at])
    return scores


def segments_of(pairs: Sequence[Pair]) -> list[Segment]:
    """Return what there is to translate."""
    return [Segment(pair.source, pair.direction) for pair in pairs]


def translate_pairs(
    model: nn.Module, encoder: Encoder, pairs: Sequence[Pair], decoding: Decoding, world: World
) -> tuple[list[str], dict[str, float]]:
    """Translate pairs; also return, per direction, the share that ran into the length limit."""
    hypotheses = translate(model, encoder, segments_of(pairs), decoding, world)
    limits = {}
    for direction in sorted({pair.direction for pair in pairs}):
        hit = [h.truncated for h, pair in zip(hypotheses, pairs, strict=True) if pair.direction == direction]
        limits[direction_name(direction)] = sum(hit) / len(hit)
    return [hypothesis.text for hypothesis in hypotheses], limits


def translate_sets(
    model: nn.Module, encoder: Encoder, sets: Sequence[TestSet], decoding: Decoding, world: World
) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Translate every set; also return, per direction, the share of test that ran into the length limit."""
    texts, limits = {}, {}
    for each in sets:
        texts[each.name], hit = translate_pairs(model, encoder, each.pairs, decoding, world)
        if each.name == TEST:
            limits = hit
    return texts, limits


def dev_metric(scores: dict[str, Any], metric: str) -> float:
    """Return one number to compare evaluations by: NLL, or BLEU/chrF averaged over the directions."""
    if metric == "nll":
        return float(scores["nll"])
    values: list[float] = [direction[metric] for direction in scores["directions"].values()]
    return sum(values) / len(values)


def compare_outputs(
    pairs: Sequence[Pair], rival: Sequence[str], tuned: Sequence[str], samples: int
) -> dict[str, dict[str, Any]]:
    """Compare the tuned model with a rival: per direction the test of each metric and of each fault."""
    result = {}
    for direction, at in _by_direction(pairs):
        chosen = [pairs[i] for i in at]
        before, after = [rival[i] for i in at], [tuned[i] for i in at]
        scores = comparison.compare(before, after, [pair.reference for pair in chosen], samples)
        wrong, still = faults.faults(chosen, before), faults.faults(chosen, after)
        result[direction_name(direction)] = {name: asdict(found) for name, found in scores.items()} | {
            name: asdict(comparison.compare_faults(wrong[name], still[name])) for name in wrong
        }
    return result


def write_outputs(folder: Path, sets: Sequence[TestSet], base: Outputs, tuned: Outputs) -> None:
    """Write the sentences of every set."""
    for each in sets:
        write_sentences(folder, each.pairs, base[each.name], tuned[each.name], prefix=each.name)


def write_sentences(
    folder: Path, pairs: Sequence[Pair], base: Sequence[str], tuned: Sequence[str], prefix: str = TEST
) -> None:
    """Write ``<prefix>.<src>-<tgt>.jsonl``: source, reference, both outputs and their sentence chrF."""
    for direction in sorted({pair.direction for pair in pairs}):
        lines = []
        for pair, before, after in zip(pairs, base, tuned, strict=True):
            if pair.direction != direction:
                continue
            row = {
                "source": pair.source,
                "reference": pair.reference,
                "base": before,
                "tuned": after,
                "base_chrf": round(metrics.sentence_chrf(before, pair.reference), 2),
                "tuned_chrf": round(metrics.sentence_chrf(after, pair.reference), 2),
                "pub_number": pair.document,
            }
            lines.append(json.dumps(row, ensure_ascii=False))
        files.write_text(folder / f"{prefix}.{direction_name(direction)}.jsonl", "\n".join(lines) + "\n")


def check_base(scores: dict[str, Any], floor: float) -> None:
    """Refuse a base model that translates far worse than it should: its weights were not loaded as they are.

    Raises:
        InputError: a direction's BLEU is below ``eval.min_base_bleu``.
    """
    for name, direction in scores.items():
        if direction["bleu"] < floor:
            raise InputError(
                f"the base model reaches {direction['bleu']:.1f} BLEU on {name}, below eval.min_base_bleu = {floor:g}: "
                "a damaged checkpoint, a wrong language pair, or a test set of another kind"
            )
