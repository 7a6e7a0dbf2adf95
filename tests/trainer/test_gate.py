"""The gate: against the base and the published run, whose translations are taken from its files or made anew."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from demo.corpus import Pair as TextPair
from mtft import files, store
from mtft.config import Config
from mtft.promotion import changing
from mtft.runs import RunPaths
from mtft.settings import to_yaml
from mtft.store import EVAL_FILES, FILES
from tests.trainer.helpers import ALONE, Setup, build
from trainer import evaluation, finish
from trainer import published as opponent
from trainer.distributed import World
from trainer.gate import apply_gate
from trainer.generation import Decoding
from trainer.pairs import Pair, TestSet
from trainer.prepared_run import PreparedRun
from trainer.published import Published, facts_of_sets, on_file, published

KEY = "opus_mt_en_fr"
DECODING = Decoding(beams=1, batch_tokens=1000, dtype=torch.float32)
CLEAN = {"rows": 100, "pair": 0, "any": 0}
STATS = {
    "splits": {"train": {"directions": {"en-fr": 9, "fr-en": 0}}},
    "leakage": {name: {"loose": CLEAN} for name in ("test", "guard.general", "guard.new")},
}
"""Of a prepared run: one direction trained, nothing of test or a guard set among it."""


def config(**gate: Any) -> Config:
    return Config.model_validate({"model": KEY, "data": {"train": "x.jsonl"}, "gate": gate})


def scores(delta: float, p_value: float, **rates: tuple[int, int, float]) -> dict[str, Any]:
    """What a comparison may say of one direction; rates are (worse, better, p)."""
    found: dict[str, Any] = {"chrf": {"delta": delta, "p_value": p_value}, "bleu": {"delta": 0.0, "p_value": 1.0}}
    for name in ("empty", "copy", "repetition", "off_target", "numbers", "entities"):
        worse, better, p = rates.get(name, (0, 0, 1.0))
        found[name] = {"worse": worse, "better": better, "p_value": p}
    return {"en-fr": found}


def judged(rivals: dict[str, Any], problem: str | None = None, *, n: int = 100, **gate: Any) -> dict[str, Any]:
    """Apply the gate to sets that all have so many sentences from English."""
    sizes = {name: {"en-fr": n} for sets in rivals.values() for name in sets}
    return apply_gate(config(**gate), sizes, rivals, Published(problem=problem))


UP, EVEN, DOWN = scores(2.0, 0.001), scores(0.0, 1.0), scores(-2.0, 0.001)


@pytest.mark.parametrize(
    ("base", "rival", "problem", "verdict"),
    [
        (UP, None, None, "promoted"),
        (UP, UP, None, "promoted"),
        (UP, EVEN, None, "not better"),  # the same as what is published
        (UP, DOWN, None, "regressed"),  # better than the base, worse than what its users have
        (DOWN, UP, None, "regressed"),
        (UP, None, "its base is gone", "not better"),
        (scores(2.0, 0.2), None, None, "not better"),
        ({}, None, None, "not better"),
    ],
)
def test_a_model_has_to_beat_the_base_and_what_is_published(
    base: dict[str, Any], rival: dict[str, Any] | None, problem: str | None, verdict: str
) -> None:
    rivals = {"the base": {"test": base}} | ({} if rival is None else {"the published run": {"test": rival}})
    gate = judged(rivals, problem)
    assert gate["verdict"] == verdict
    assert gate["compared_with"] == list(rivals)
    assert problem is None or problem in gate["reasons"][-1]
    by_hand = judged(rivals, problem, promote="never")["verdict"]
    assert by_hand == ("better" if verdict == "promoted" else verdict)


@pytest.mark.parametrize(("least", "verdict"), [(2.0, "promoted"), (2.1, "not better")])
def test_a_gain_smaller_than_asked_for_is_none(least: float, verdict: str) -> None:
    assert judged({"the base": {"test": UP}}, min_delta=least)["verdict"] == verdict


@pytest.mark.parametrize(
    ("guard", "test", "reason"),
    [
        (DOWN, UP, "guard set general, en-fr: chrf -2.00 against the base, p = 0.0010 (0.0020 among 2 comparisons)"),
        (EVEN, scores(2.0, 0.001, numbers=(9, 0, 0.0039)), "9 more and 0 fewer translations that lose a number than"),
        (EVEN, scores(2.0, 0.001, off_target=(20, 2, 0.0001)), "translations into another language than the base"),
        (scores(2.0, 0.001, numbers=(9, 0, 0.0039)), UP, None),  # rates are judged on test
        (EVEN, scores(2.0, 0.001, numbers=(9, 1, 0.0215)), None),  # one of six rates may
        (EVEN, scores(2.0, 0.001, numbers=(0, 9, 0.0039)), None),  # better
    ],
)
def test_a_loss_on_a_guard_set_or_of_a_rate_is_a_regression_whatever_the_gain(
    guard: dict[str, Any], test: dict[str, Any], reason: str | None
) -> None:
    gate = judged({"the base": {"test": test, "guard.general": guard}})
    assert gate["verdict"] == ("promoted" if reason is None else "regressed")
    assert reason is None or reason in gate["reasons"][0]


def test_one_of_several_comparisons_may_look_like_a_loss_by_chance() -> None:
    unsure = scores(-2.0, 0.03)
    assert judged({"the base": {"test": unsure}})["verdict"] == "regressed"
    gate = judged({"the base": {"test": EVEN, "guard.general": unsure}}, max_p=1.0)
    assert gate["verdict"] == "not better"
    assert gate["reasons"][1].endswith("chrf -2.00 against the base, p = 0.0300 (0.0600 among 2 comparisons)")


@pytest.mark.parametrize(
    ("test", "sentences", "verdict"), [(UP, 30, "promoted"), (UP, 29, "not better"), (DOWN, 29, "not better")]
)
def test_a_few_test_sentences_of_a_direction_decide_nothing(test: dict[str, Any], sentences: int, verdict: str) -> None:
    loss = scores(0.0, 1.0, numbers=(20, 0, 0.0001)) if test is DOWN else test
    sizes = {"test": {"en-fr": 100, "fr-en": sentences}}
    for found in (test, loss):
        rivals = {"the base": {"test": UP | {"fr-en": found["en-fr"]}}}
        gate = apply_gate(config(), sizes, rivals)
        assert gate["verdict"] == verdict
        too_few = f"only {sentences} test sentences fr-en, gate.min_sentences is 30"
        assert (too_few in gate["reasons"]) is (sentences < 30)
        assert any("fr-en: " in reason for reason in gate["reasons"]), "what was found is told all the same"
        assert apply_gate(config(min_sentences=sentences), sizes, rivals)["verdict"] in ("promoted", "regressed")


def test_a_trained_direction_without_a_test_sentence_is_never_promoted(sets: list[TestSet]) -> None:
    both = {**STATS, "splits": {"train": {"directions": {"en-fr": 9, "fr-en": 1}}}}
    policy = config(max_p=1, min_sentences=1)
    for stats, verdict in ((STATS, "promoted"), (both, "not better")):
        gate = finish.judge(policy, stats, sets[:1], outputs(sets, "x"), perfect(sets), Published()).gate
        assert gate["verdict"] == verdict
        assert ("no test sentences fr-en, gate.min_sentences is 1" in gate["reasons"]) is (stats is both)


@pytest.mark.parametrize(
    ("pairs", "policy", "verdict"), [(10, {}, "promoted"), (11, {}, "not better"), (11, {"max_leaked": 1}, "promoted")]
)
@pytest.mark.parametrize(("name", "said"), [("test", "test"), ("guard.general", "guard set general")])
def test_a_set_that_was_trained_on_promotes_nothing(
    name: str, said: str, pairs: int, policy: dict[str, Any], verdict: str
) -> None:
    leaked = {"test": CLEAN, name: {"rows": 100, "pair": pairs, "any": pairs}}
    gate = apply_gate(config(**policy), {"test": {"en-fr": 100}}, {"the base": {"test": UP}}, leaked=leaked)
    assert gate["verdict"] == verdict
    told = f"11 of 100 {said} rows are training rows too, but for case and punctuation: their scores say too much; "
    assert (gate["reasons"][0] == f"{told}gate.max_leaked is 0.1") is (verdict == "not better")


@pytest.mark.parametrize(("guard", "verdict"), [(EVEN, "promoted"), (DOWN, "not better")])
def test_a_loss_on_a_few_guard_sentences_holds_a_model_back_and_is_no_regression(
    guard: dict[str, Any], verdict: str
) -> None:
    gate = apply_gate(
        config(),
        {"test": {"en-fr": 100}, "guard.general": {"en-fr": 4}},
        {"the base": {"test": UP, "guard.general": guard}},
    )
    assert gate["verdict"] == verdict
    assert gate["reasons"][0] == "only 4 sentences of guard set general, en-fr, gate.min_sentences is 30"


def test_the_sentences_of_each_direction_are_counted(sets: list[TestSet]) -> None:
    for least, verdict in ((6, "promoted"), (7, "not better")):
        policy = config(max_p=1, min_sentences=least)
        found = finish.judge(policy, STATS, sets[:1], outputs(sets, "x"), perfect(sets), opponent.Published())
        assert found.gate["verdict"] == verdict
        assert ("only 6 test sentences en-fr, gate.min_sentences is 7" in found.gate["reasons"]) is (least == 7)


def test_translations_of_the_base_are_kept_as_they_were_written(tmp_path: Path, sets: list[TestSet]) -> None:
    path = tmp_path / "base_outputs.json"
    finish.write_base_outputs(path, sets, outputs(sets, "base"))
    assert finish.read_base_outputs(path, sets) == outputs(sets, "base")
    other = [TestSet(name="test", pairs=sets[0].pairs[::-1]), sets[1]]
    assert finish.read_base_outputs(path, other) is None, "of other sentences"
    path.write_text(path.read_text().replace("base 3", "Base 3"))
    assert finish.read_base_outputs(path, sets) is None, "somebody changed them"
    path.write_text(json.dumps({"sets": []}))
    assert finish.read_base_outputs(path, sets) is None


@pytest.fixture
def setup(standins: Callable[[str], Path], short_text: list[TextPair]) -> Setup:
    return build(KEY, standins("marian"), short_text[:6], gate={"min_sentences": 1})


@pytest.fixture
def sets(short_text: list[TextPair]) -> list[TestSet]:
    pairs = [
        Pair(source=pair.source_en, reference=pair.target_fr, direction=("en", "fr"), document=None)
        for pair in short_text[:9]
    ]
    return [TestSet(name="test", pairs=pairs[:6]), TestSet(name="guard.general", pairs=pairs[6:])]


def outputs(sets: list[TestSet], text: str) -> dict[str, list[str]]:
    return {each.name: [f"{text} {number}" for number in range(len(each.pairs))] for each in sets}


def perfect(sets: list[TestSet]) -> dict[str, list[str]]:
    return {each.name: [pair.reference for pair in each.pairs] for each in sets}


@pytest.fixture
def candidate(setup: Setup, tmp_path: Path) -> PreparedRun:
    """A run that is about to be judged."""
    paths = RunPaths.at(tmp_path, KEY, "20300102T030406Z-00000002")
    return PreparedRun(config=setup.config, card=setup.card, paths=paths, prepared=None)  # type: ignore[arg-type]


@pytest.fixture
def rival(setup: Setup, candidate: PreparedRun, sets: list[TestSet], tmp_path: Path) -> RunPaths:
    """The published run: an adapter as initialised, so it translates as the base; its files say otherwise."""
    paths = RunPaths.at(tmp_path, KEY, "20300102T030405Z-00000001")
    setup.model.save_pretrained(str(paths.lora))  # type: ignore[operator]
    paths.config.write_text(to_yaml(setup.config), encoding="utf-8")
    evaluation.write_outputs(paths.eval, sets, outputs(sets, "base"), outputs(sets, "left"))
    facts = facts_of_sets(candidate, sets, DECODING)
    gate = {"verdict": "promoted", "reasons": []}
    guards = {"general": {"test": facts["guard.general"]}}
    finished = {"deliverable": "lora", "test": facts["test"], "guard_sets": guards, "gate": gate}
    finished[EVAL_FILES] = files.listing(paths.eval)
    files.write_json(paths.finished, finished)
    with changing(tmp_path, KEY) as store:
        store.promote(paths.run_id, who="anna")
    return paths


def test_its_own_translations_are_taken_where_test_and_decoding_are_the_same(
    candidate: PreparedRun, rival: RunPaths, sets: list[TestSet]
) -> None:
    facts = facts_of_sets(candidate, sets, DECODING)
    found = published(candidate, sets, facts, DECODING, ALONE)
    assert (found.run_id, found.problem) == (rival.run_id, None)
    assert found.texts == outputs(sets, "left")


@pytest.mark.parametrize("other", ["test", "guard set", "decoding", "files", "sentences", "translations"])
def test_else_its_adapter_translates_anew(
    candidate: PreparedRun, rival: RunPaths, sets: list[TestSet], setup: Setup, other: str
) -> None:
    decoding = DECODING
    if other == "test":
        sets = [TestSet(name="test", pairs=sets[0].pairs[1:]), sets[1]]
    elif other == "guard set":
        sets = [*sets, TestSet(name="guard.new", pairs=sets[1].pairs[1:])]
    elif other == "decoding":
        decoding = Decoding(beams=2, batch_tokens=1000, dtype=torch.float32)
    elif other == "sentences":
        path = rival.eval / "test.en-fr.jsonl"
        path.write_text("\n".join(reversed(path.read_text().splitlines())))
    elif other == "translations":
        path = rival.eval / "test.en-fr.jsonl"
        path.write_text(path.read_text().replace("left 0", "gone 0"))
    else:
        (rival.eval / "test.en-fr.jsonl").unlink()
    found = published(candidate, sets, facts_of_sets(candidate, sets, decoding), decoding, ALONE)
    expected, _ = evaluation.translate_sets(setup.model.eval(), setup.encoder, sets, decoding, ALONE)
    assert (found.run_id, found.problem, found.texts) == (rival.run_id, None, expected)
    judged = finish.judge(candidate.config, STATS, sets, outputs(sets, "x"), perfect(sets), found)
    assert any("scored on other test sentences" in each for each in judged.gate["reasons"]) is (other == "test")


def test_one_that_cannot_be_loaded_blocks_the_promotion_and_says_why(
    candidate: PreparedRun, rival: RunPaths, sets: list[TestSet]
) -> None:
    document = json.dumps({"model": {"key": KEY, "path": "/nowhere/base"}, "data": {"train": "x.jsonl"}})
    rival.config.write_text(document)
    decoding = Decoding(beams=2, batch_tokens=1000, dtype=torch.float32)
    found = published(candidate, sets, facts_of_sets(candidate, sets, decoding), decoding, ALONE)
    assert (found.run_id, found.texts) == (rival.run_id, None)
    assert found.problem is not None and "/nowhere/base" in found.problem
    judged = finish.judge(candidate.config, STATS, sets, outputs(sets, "x"), perfect(sets), found)
    assert judged.gate["verdict"] == "not better" and judged.gate["published"] == rival.run_id
    assert any("/nowhere/base" in reason for reason in judged.gate["reasons"])


@pytest.mark.parametrize("step", ["load_finished", "translate_share"])
def test_whatever_breaks_at_the_comparison_never_costs_the_trained_run(
    candidate: PreparedRun, rival: RunPaths, sets: list[TestSet], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(opponent, step, full)
    decoding = Decoding(beams=2, batch_tokens=1000, dtype=torch.float32)
    found = published(candidate, sets, facts_of_sets(candidate, sets, decoding), decoding, ALONE)
    assert (found.run_id, found.texts) == (rival.run_id, None)
    judged = finish.judge(candidate.config, STATS, sets, outputs(sets, "x"), perfect(sets), found)
    assert judged.gate["verdict"] == "not better"
    assert "nothing is promoted, because" in judged.gate["reasons"][-1]
    assert "CUDA out of memory" in judged.gate["reasons"][-1]


def test_a_volume_that_fails_for_a_moment_is_asked_again_before_the_verdict(
    candidate: PreparedRun, rival: RunPaths, sets: list[TestSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts, current, tries = facts_of_sets(candidate, sets, DECODING), store.current, []

    def failing(*given: Any, **options: Any) -> RunPaths | None:
        tries.append(1)
        if len(tries) <= 2:
            raise OSError(errno.EIO, "Input/output error")
        return current(*given, **options)

    monkeypatch.setattr("mtft.store.current", failing)
    assert on_file(candidate, sets, facts, pauses=(0.0, 0.0)).texts == outputs(sets, "left")
    tries.clear()
    assert "Input/output error" in (on_file(candidate, sets, facts, pauses=(0.0,)).problem or "")


def test_a_volume_that_fails_for_a_moment_is_asked_again_where_the_published_run_translates_anew(
    candidate: PreparedRun, rival: RunPaths, sets: list[TestSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(errno.ESTALE, "Stale file handle")] * 2

    def failing(*_: object) -> object:
        raise failures.pop() if failures else torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(opponent, "load_finished", failing)
    share, problem = opponent._share_or_problem(rival, sets, DECODING, ALONE, pauses=(0.0, 0.0, 0.0))
    assert not share and not failures and "CUDA out of memory" in str(problem)
    failures += [OSError(errno.ESTALE, "Stale file handle")] * 2
    assert "Stale" in str(opponent._share_or_problem(rival, sets, DECODING, ALONE, pauses=(0.0,))[1])


class OtherRankFails(World):
    """This rank, and another one that could not translate its share."""

    def gather(self, value: Any) -> list[Any]:
        """Return this rank's part and the other one's."""
        return [value, ({}, "rank 1 has no room")]


def test_a_share_that_another_rank_could_not_translate_is_told(
    candidate: PreparedRun, rival: RunPaths, sets: list[TestSet]
) -> None:
    decoding = Decoding(beams=2, batch_tokens=1000, dtype=torch.float32)
    world = OtherRankFails(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
    found = published(candidate, sets, facts_of_sets(candidate, sets, decoding), decoding, world)
    assert (found.run_id, found.texts, found.problem) == (rival.run_id, None, "rank 1 has no room")


def test_a_damaged_store_never_stops_a_judgement(candidate: PreparedRun, rival: RunPaths, sets: list[TestSet]) -> None:
    rival.finished.write_text("[]")
    assert on_file(candidate, sets, facts_of_sets(candidate, sets, DECODING)).problem
    link = rival.folder.parents[1] / "current"
    link.unlink()
    link.symlink_to("/etc")
    found = on_file(candidate, sets, facts_of_sets(candidate, sets, DECODING))
    assert found.texts is None and found.problem and "out of the store" in found.problem
    link.unlink()  # as in a copy of the store without its links
    found = on_file(candidate, sets, facts_of_sets(candidate, sets, DECODING))
    assert found.problem and f"run {rival.run_id} was promoted last" in found.problem
    judged = finish.judge(candidate.config, STATS, sets, outputs(sets, "x"), perfect(sets), found)
    assert judged.gate["verdict"] == "not better" and rival.run_id in judged.gate["reasons"][-1]


def test_a_published_run_with_changed_bytes_blocks_the_promotion_and_is_told(
    candidate: PreparedRun, rival: RunPaths, sets: list[TestSet]
) -> None:
    files.write_json(rival.finished, files.read_json(rival.finished) | {FILES: files.listing(rival.lora)})
    facts = facts_of_sets(candidate, sets, DECODING)
    assert published(candidate, sets, facts, DECODING, ALONE).texts is not None
    weights = rival.lora / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = published(candidate, sets, facts, DECODING, ALONE)
    judged = finish.judge(candidate.config, STATS, sets, outputs(sets, "x"), perfect(sets), found)
    assert judged.gate["verdict"] == "not better"
    assert "has not the SHA-256 it was written with; the run is damaged" in judged.gate["reasons"][-1]


def test_what_was_judged_is_told_set_by_set(candidate: PreparedRun, rival: RunPaths, sets: list[TestSet]) -> None:
    found = on_file(candidate, sets, facts_of_sets(candidate, sets, DECODING))
    worse = {**perfect(sets), "guard.general": outputs(sets, "worse")["guard.general"]}
    judged = finish.judge(candidate.config, STATS, sets, perfect(sets), worse, found)
    general = judged.guard_sets["general"]
    assert (general["base"]["en-fr"]["chrf"], general["tuned"]["en-fr"]["n"]) == (100.0, 3)
    assert general["comparison"]["en-fr"]["chrf"]["delta"] < -50
    assert general["published"]["run_id"] == rival.run_id == judged.gate["published"]
    assert judged.published is not None and judged.published["scores"]["en-fr"]["numbers"] < 1
    assert judged.gate["bootstrap"] == {"samples": 1000, "seed": 12345}
    assert judged.gate["verdict"] == "regressed" and "guard set general" in judged.gate["reasons"][0]
