"""The published run as an opponent: its translations, from its own files where they fit, else made anew."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mtft import files, store
from mtft.errors import MtftError, Retry, may_pass
from mtft.runs import RunPaths
from mtft.settings import load_document, resolve
from trainer import evaluation
from trainer.distributed import World
from trainer.generation import Decoding, Hypothesis, joined, translate_share
from trainer.hub import at_recorded_commit
from trainer.pairs import TEST, Outputs, Pair, TestSet, direction_name
from trainer.prepared_run import PreparedRun
from trainer.translating import load_finished

_PAUSES = (1.0, 5.0, 15.0)


@dataclass(frozen=True, kw_only=True)
class Published:
    """The run that is current, as far as it can be compared with.

    Attributes:
        run_id: its run-id; None: nothing is published yet.
        texts: its translations of test and guard sets; None where there are none.
        problem: why there are none although a run is published.
        remark: what to know of the comparison with it.
    """

    run_id: str | None = None
    texts: Outputs | None = None
    problem: str | None = None
    remark: str | None = None


_OTHER_TEST = (
    "the published run was scored on other test sentences: where it learned from some of these, it looks better here "
    "than it is; a data.test of its own keeps them the same for every run"
)


def facts_of_sets(run: PreparedRun, sets: Sequence[TestSet], decoding: Decoding) -> dict[str, Any]:
    """Return what has to be equal for two runs' translations of a set to be comparable as they stand on disk."""
    return {each.name: _facts(run, each.pairs, decoding) for each in sets}


def _facts(run: PreparedRun, pairs: Sequence[Pair], decoding: Decoding) -> dict[str, Any]:
    lines = [json.dumps([pair.direction, pair.source, pair.reference]) for pair in pairs]
    return {
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "rows": len(pairs),
        "decoding": {
            "beams": decoding.beams,
            "max_source_length": run.config.train.max_source_length,
            "max_target_length": run.config.train.max_target_length,
            "dtype": str(decoding.dtype).removeprefix("torch."),
        },
    }


def on_file(
    run: PreparedRun, sets: Sequence[TestSet], facts: dict[str, Any], pauses: Sequence[float] = _PAUSES
) -> Published:
    """Return the published run with the translations it left itself, where they are of the same sets, decoded alike.

    Its base is not asked for: whatever it was, these are the translations its users get. A volume that fails for a
    moment is asked again after each of the ``pauses``, in seconds: the verdict is for good.
    """
    paths: RunPaths | None = None
    try:
        paths = store.current(run.paths.root, run.card.key, hashed=True)
        if paths is None:
            folder = store.outputs(run.paths.root, run.card.key)
            last = store.lost(folder)
            return Published(problem=store.lost_words(folder, last) if last else None)
        finished = store.read_finished(paths)
        for each in sets:
            its = finished if each.guard is None else finished.get("guard_sets", {}).get(each.guard, {})
            if its.get("test") != facts[each.name]:
                what = "test set" if each.guard is None else f"guard set {each.guard}"
                problem = f"it was scored on another {what}, or decoded otherwise"
                return Published(run_id=paths.run_id, problem=problem, remark=_remark(finished, facts))
        if found := files.damage(paths.eval, finished[store.EVAL_FILES], hashed=True):
            return Published(run_id=paths.run_id, problem=found)
        return Published(run_id=paths.run_id, texts={each.name: _tuned_outputs(paths, each) for each in sets})
    except Retry:
        raise
    except Exception as error:  # whatever it is, it never costs the trained run
        if pauses and may_pass(error):
            time.sleep(pauses[0])
            return on_file(run, sets, facts, pauses[1:])
        return Published(run_id=paths.run_id if paths else None, problem=_in_words(error))


def published(
    run: PreparedRun, sets: Sequence[TestSet], facts: dict[str, Any], decoding: Decoding, world: World
) -> Published:
    """Return the published run's translations of every set, on every rank; made anew where those on file do not fit.

    Where that fails, whatever the reason, it is told: it never costs the trained run.

    Raises:
        Retry: this process is to be started again.
    """
    found: Published = world.broadcast(on_file(run, sets, facts) if world.is_main else None)
    if found.run_id is None or found.texts is not None or not any(each.pairs for each in sets):
        return found
    paths = RunPaths.at(run.paths.root, run.card.key, found.run_id)
    # The ranks meet here alone, each with its share or its problem: none waits for one that failed.
    parts = world.gather(_share_or_problem(paths, sets, decoding, world, _PAUSES))
    if problems := [each for _, each in parts if each is not None]:
        return Published(run_id=found.run_id, problem=problems[0])
    texts = {}
    for each in sets:
        whole = joined(len(each.pairs), [part[each.name] for part, _ in parts])
        texts[each.name] = [hypothesis.text for hypothesis in whole]
    return Published(run_id=found.run_id, texts=texts, remark=found.remark)


def _remark(finished: Mapping[str, Any], facts: Mapping[str, Any]) -> str | None:
    its = (finished.get(TEST) or {}).get("sha256")
    return None if its == facts[TEST]["sha256"] else _OTHER_TEST


def _share_or_problem(
    paths: RunPaths, sets: Sequence[TestSet], decoding: Decoding, world: World, pauses: Sequence[float]
) -> tuple[dict[str, dict[int, Hypothesis]], str | None]:
    """Return this rank's share, or none and why; a volume that fails for a moment is asked again, as in ``on_file``.

    Raises:
        Retry: this process is to be started again.
    """
    try:
        return _share_of(paths, sets, decoding, world), None
    except Retry:
        raise
    except Exception as error:
        if not (pauses and may_pass(error)):
            return {}, _in_words(error)
    time.sleep(pauses[0])
    return _share_or_problem(paths, sets, decoding, world, pauses[1:])


def _share_of(
    paths: RunPaths, sets: Sequence[TestSet], decoding: Decoding, world: World
) -> dict[str, dict[int, Hypothesis]]:
    """Load a finished run and translate this rank's share of every set with it."""
    with store.using(paths):
        resolved = resolve(load_document(paths.config))
        config = at_recorded_commit(paths, resolved.config)
        model, encoder = load_finished(paths, config, resolved.card, world)
    return {
        each.name: translate_share(model, encoder, evaluation.segments_of(each.pairs), decoding, world) for each in sets
    }


def _in_words(error: Exception) -> str:
    told = isinstance(error, MtftError | OSError) and str(error)
    return told or f"{type(error).__name__}: {error}"


def _tuned_outputs(paths: RunPaths, test_set: TestSet) -> list[str]:
    """Return what a finished run wrote down of its tuned model on one set.

    Raises:
        ValueError: the files are of other sentences.
    """
    lines: dict[str, list[str]] = {}
    texts = []
    for pair in test_set.pairs:
        name = direction_name(pair.direction)
        if name not in lines:
            lines[name] = files.read_steadily(paths.eval / f"{test_set.name}.{name}.jsonl").split("\n")[::-1]
        row = json.loads(lines[name].pop())
        if row["source"] != pair.source:
            raise ValueError(f"{paths.eval}: its sentences are not those of finished.json")
        texts.append(str(row["tuned"]))
    return texts
