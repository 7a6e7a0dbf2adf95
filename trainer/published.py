"""The published run as an opponent on test: its translations, from its own files where they fit, else made anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtft import files, store
from mtft.errors import MtftError, Retry
from mtft.runs import RunPaths
from mtft.settings import load_document, resolve
from trainer import evaluation
from trainer.distributed import World
from trainer.generation import Decoding, Hypothesis, joined, translate_share
from trainer.hub import at_recorded_commit
from trainer.pairs import Pair, direction_name
from trainer.prepared_run import PreparedRun
from trainer.translating import load_finished


@dataclass(frozen=True, kw_only=True)
class Published:
    """The run that is current, as far as it can be compared with.

    Attributes:
        run_id: its run-id; None: nothing is published yet.
        texts: its translations of test; None where there are none.
        problem: why there are none although a run is published.
    """

    run_id: str | None = None
    texts: Sequence[str] | None = None
    problem: str | None = None


def facts_of_test(run: PreparedRun, pairs: Sequence[Pair], decoding: Decoding) -> dict[str, Any]:
    """Return what has to be equal for two runs' translations of test to be comparable as they stand on disk."""
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


def on_file(run: PreparedRun, pairs: Sequence[Pair], facts: dict[str, Any]) -> Published:
    """Return the published run with the translations it left itself, where they are of the same test, decoded alike.

    Its base is not asked for: whatever it was, these are the translations its users get.
    """
    paths: RunPaths | None = None
    try:
        paths = store.current(run.paths.root, run.card.key)
        if paths is None:
            return Published()
        if store.read_finished(paths).get("test") != facts:
            return Published(run_id=paths.run_id, problem="it was scored on another test set, or decoded otherwise")
        return Published(run_id=paths.run_id, texts=_tuned_outputs(paths, pairs))
    except Retry:
        raise
    except Exception as error:  # whatever it is, it never costs the trained run
        return Published(run_id=paths.run_id if paths else None, problem=_in_words(error))


def published(
    run: PreparedRun, pairs: Sequence[Pair], facts: dict[str, Any], decoding: Decoding, world: World
) -> Published:
    """Return the published run's translations of test, on every rank; made anew where those on file do not fit.

    Where that fails, whatever the reason, it is told: it never costs the trained run.

    Raises:
        Retry: this process is to be started again.
    """
    found: Published = world.broadcast(on_file(run, pairs, facts) if world.is_main else None)
    if found.run_id is None or found.texts is not None or not pairs:
        return found
    paths = RunPaths.at(run.paths.root, run.card.key, found.run_id)
    mine: dict[int, Hypothesis] = {}
    problem = None
    try:
        mine = _share_of(paths, pairs, decoding, world)
    except Retry:
        raise
    except Exception as error:
        problem = _in_words(error)
    # The ranks meet here alone, each with its share or its problem: none waits for one that failed.
    parts = world.gather((mine, problem))
    if problems := [each for _, each in parts if each is not None]:
        return Published(run_id=found.run_id, problem=problems[0])
    return Published(run_id=found.run_id, texts=[each.text for each in joined(len(pairs), [part for part, _ in parts])])


def _share_of(paths: RunPaths, pairs: Sequence[Pair], decoding: Decoding, world: World) -> dict[int, Hypothesis]:
    """Load a finished run and translate this rank's share of test with it."""
    with store.using(paths):
        resolved = resolve(load_document(paths.config))
        config = at_recorded_commit(paths, resolved.config)
        model, encoder = load_finished(paths, config, resolved.card, world)
    return translate_share(model, encoder, evaluation.segments_of(pairs), decoding, world)


def _in_words(error: Exception) -> str:
    told = isinstance(error, MtftError | OSError) and str(error)
    return told or f"{type(error).__name__}: {error}"


def _tuned_outputs(paths: RunPaths, pairs: Sequence[Pair]) -> list[str]:
    """Return what a finished run wrote down of its tuned model.

    Raises:
        ValueError: the files are of other sentences.
    """
    lines: dict[str, list[str]] = {}
    texts = []
    for pair in pairs:
        name = direction_name(pair.direction)
        if name not in lines:
            lines[name] = files.read_steadily(paths.eval / f"test.{name}.jsonl").split("\n")[::-1]
        row = json.loads(lines[name].pop())
        if row["source"] != pair.source:
            raise ValueError(f"{paths.eval}: its sentences are not those of finished.json")
        texts.append(str(row["tuned"]))
    return texts
