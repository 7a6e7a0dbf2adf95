"""The gate: whether the tuned model is better than the base and the published run, and worse in nothing.

``docs/decisions/0012-gate.md`` says why the tests are these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtft import exit_codes, leakage
from mtft.config import Config, GateConfig
from trainer import comparison, evaluation, faults
from trainer.pairs import TEST, Outputs, TestSet, direction_name, set_words
from trainer.published import Published

Comparisons = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Name of the test set -> direction -> metric or fault -> how the tuned model compares with one rival."""
Sizes = Mapping[str, Mapping[str, int]]
"""Name of the test set -> direction -> number of sentences."""

_LOSS_P = 0.05
"""A larger ``gate.max_p`` makes gains easier, never losses likelier: an equal model is called worse 1 time in 20."""

BASE, PUBLISHED = "the base", "the published run"

_FAULTS = {
    "empty": "empty translations",
    "copy": "copies of the source",
    "repetition": "repetitions",
    "off_target": "translations into another language",
    "numbers": "translations that lose a number",
    "entities": "translations that lose a name, acronym or unit",
}


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """One difference between the tuned model and a rival: of a score or of a fault."""

    rival: str
    test_set: str
    direction: str
    what: str
    found: Mapping[str, Any]

    @property
    def fell(self) -> bool:
        change = self.found["better"] - self.found["worse"] if self.what in _FAULTS else self.found["delta"]
        return bool(change < 0)

    def text(self, adjusted: float, together: int) -> str:
        """Say it with its p-value and, for a loss, with the one that holds for all comparisons together."""
        where = self.direction if self.test_set == TEST else f"{set_words(self.test_set)}, {self.direction}"
        if self.what in _FAULTS:
            counts = f"{self.found['worse']} more and {self.found['better']} fewer"
            text = f"{where}: {counts} {_FAULTS[self.what]} than {self.rival}"
        else:
            text = f"{where}: {self.what} {self.found['delta']:+.2f} against {self.rival}"
        text += f", p {_p_text(self.found['p_value'])}"
        adjusted_p = _p_text(adjusted).removeprefix("= ")
        return f"{text} ({adjusted_p} among {together} comparisons)" if self.fell and together > 1 else text


def weigh(
    config: Config, sets: Sequence[TestSet], base: Outputs, published: Outputs | None, tuned: Outputs
) -> tuple[dict[str, Comparisons], dict[str, int]]:
    """Compare the tuned model on every set with the base, and with the published run where it has outputs.

    Returns:
        The comparisons by rival; ``samples`` and ``seed`` of each paired bootstrap: as many samples as configured, more
        where so many comparisons ask for it.
    """
    rivals = {BASE: base} | ({} if published is None else {PUBLISHED: published})
    directions = sum(len({direction_name(pair.direction) for pair in each.pairs}) for each in sets)
    samples = comparison.samples_for(len(rivals) * directions, _loss_p(config), config.eval.bootstrap_samples)
    found: dict[str, Comparisons] = {
        rival: {
            each.name: evaluation.compare_outputs(each.pairs, outputs[each.name], tuned[each.name], samples)
            for each in sets
        }
        for rival, outputs in rivals.items()
    }
    return found, {"samples": samples, "seed": comparison.SEED}


def apply_gate(
    config: Config,
    sizes: Sizes,
    rivals: Mapping[str, Comparisons],
    published: Published | None = None,
    leaked: Mapping[str, Mapping[str, int]] | None = None,
) -> dict[str, Any]:
    """Judge the tuned model against each rival: the base, and the published run where there is one.

    Promoted: on test, against every rival, every direction gains at least ``min_delta`` points with p <= ``max_p``, and
    nothing is lost. Regressed, whatever the gains: against one of them, a direction of test or of a guard set loses
    points, or test has more of a fault (:mod:`trainer.faults`). A loss counts with p <= ``max_p``, and 0.05 at most,
    after Holm's correction over all scores compared; one by a fault, over all faults compared.

    Where a direction of test has fewer than ``min_sentences`` sentences, nothing is promoted. A loss on so few, of test
    or of a guard set, is no regression: it is told, and nothing is promoted. Nor is it where more than ``max_leaked``
    of the rows of test, or of a guard set, were trained on.

    Args:
        config: has the policy.
        sizes: of the sets compared on; of test with every direction that was trained, 0 where it has no sentence.
        rivals: name -> comparisons.
        published: why it could not be compared with, where so: nothing is promoted over it then; what to know of it.
        leaked: by the name of the set, loose counts of its rows that training rows show (:mod:`mtft.leakage`).
    """
    policy, loss_p, published = config.gate, _loss_p(config), published or Published()
    scores = _listed(rivals, [policy.metric], guards=True)
    rates = _listed(rivals, [*faults.ERRORS, *faults.AGREEMENT], guards=False)
    few = _too_few(sizes, policy)
    losses: list[str] = []
    unsure: list[str] = []
    told: list[str] = []
    for each, text, lost in [*_found(scores, loss_p), *_found(rates, loss_p)]:
        if lost:
            (unsure if (each.test_set, each.direction) in few else losses).append(text)
        elif each.what == policy.metric:
            told.append(text)
    gains = [_gains(each, policy) for each in scores if each.test_set == TEST]
    memorised = _memorised(leaked or {}, policy)
    reasons = [*memorised, *losses, *few.values(), *unsure, *told]
    if not gains:
        reasons.append("test holds no sentence: nothing to judge by; give data.test, or more documents to hold out")
    if published.problem is not None:
        reasons.append(f"nothing is promoted, because the published run cannot be compared with: {published.problem}")
    elif published.remark is not None:
        reasons.append(published.remark)
    better = exit_codes.PROMOTED if policy.promote == "auto" else exit_codes.BETTER
    enough = not unsure and all(test_set != TEST for test_set, _ in few)
    passed = gains and all(gains) and enough and not memorised and published.problem is None
    return {
        "verdict": exit_codes.REGRESSED if losses else better if passed else exit_codes.NOT_BETTER,
        "compared_with": list(rivals),
        "policy": policy.model_dump(mode="json"),
        "reasons": reasons,
    }


def _found(family: Sequence[_Compared], loss_p: float) -> list[tuple[_Compared, str, bool]]:
    """Return each comparison of a family, how to say it, and whether it is a loss that chance does not explain."""
    adjusted = comparison.holm([each.found["p_value"] for each in family])
    return [
        (each, each.text(p_value, len(family)), each.fell and p_value <= loss_p)
        for each, p_value in zip(family, adjusted, strict=True)
    ]


def _too_few(sizes: Sizes, policy: GateConfig) -> dict[tuple[str, str], str]:
    """Return the directions with too few sentences to judge by, each with how to say so."""
    return {
        (name, direction): f"{f'only {count}' if count else 'no'} {_set_text(name)} {direction}, "
        f"gate.min_sentences is {policy.min_sentences}"
        for name, directions in sizes.items()
        for direction, count in directions.items()
        if count < policy.min_sentences
    }


def _memorised(leaked: Mapping[str, Mapping[str, int]], policy: GateConfig) -> list[str]:
    """Say which sets have too many rows that were trained on."""
    gravest = (
        leakage.remarks(set_words(name), counts)[0][1]
        for name, counts in leaked.items()
        if counts["pair"] > policy.max_leaked * counts["rows"]
    )
    return [f"{text}; gate.max_leaked is {policy.max_leaked:g}" for text in gravest]


def _set_text(name: str) -> str:
    return "test sentences" if name == TEST else f"sentences of {set_words(name)},"


def _listed(rivals: Mapping[str, Comparisons], wanted: Sequence[str], *, guards: bool) -> list[_Compared]:
    return [
        _Compared(rival=rival, test_set=test_set, direction=direction, what=what, found=found[what])
        for rival, sets in rivals.items()
        for test_set, directions in sets.items()
        if guards or test_set == TEST
        for direction, found in directions.items()
        for what in wanted
    ]


def _p_text(p_value: float) -> str:
    return f"= {p_value:.4f}" if p_value >= 0.0001 else "< 0.0001"


def _loss_p(config: Config) -> float:
    return min(config.gate.max_p, _LOSS_P)


def _gains(each: _Compared, policy: GateConfig) -> bool:
    delta: float = each.found["delta"]
    return each.found["p_value"] <= policy.max_p and delta > 0 and delta >= policy.min_delta
