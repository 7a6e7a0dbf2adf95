"""The end of a run: judged against the base and the published run, results written, ``finished.json`` last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtft import files, runs
from mtft.config import Config
from mtft.store import EVAL_FILES, FILES
from trainer import evaluation, gate, publishing
from trainer.pairs import GUARD, TEST, Outputs, TestSet
from trainer.prepared_run import PreparedRun
from trainer.progress import RECOVERIES
from trainer.published import Published
from trainer.report_files import mean, read_lines
from trainer.state import State


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Scores and what follows from them.

    Attributes:
        base: scores and rates of faults of the base on test, per direction.
        tuned: the same of the tuned model.
        comparison: how the tuned model compares with the base on test, per direction, metric and fault.
        published: run-id, scores and comparison of the published run on test; None where it was not compared with.
        guard_sets: by name, the same four of each guard set.
        gate: the verdict (``mtft.exit_codes``) with its reasons, and the run-id that was published when it was given.
    """

    base: dict[str, Any]
    tuned: dict[str, Any]
    comparison: dict[str, Any]
    published: dict[str, Any] | None
    guard_sets: dict[str, dict[str, Any]]
    gate: dict[str, Any]


def judge(
    config: Config,
    stats: Mapping[str, Any],
    sets: Sequence[TestSet],
    base: Outputs,
    tuned: Outputs,
    published: Published,
) -> Judgement:
    """Score the systems' outputs on test and the guard sets, and apply the gate.

    ``stats`` are those of the prepared run: what was trained on, and what of the sets it shows.
    """
    rivals, bootstrap = gate.weigh(config, sets, base, published.texts, tuned)
    found: dict[str, dict[str, Any]] = {}
    for each in sets:
        pairs, before, after = each.pairs, base[each.name], tuned[each.name]
        found[each.name] = {
            "base": evaluation.score_pairs(pairs, before, ter=each.guard is None),
            "tuned": evaluation.score_pairs(pairs, after, ter=each.guard is None),
            "comparison": rivals[gate.BASE][each.name],
            "published": None,
        }
        if published.texts is not None:
            found[each.name]["published"] = {
                "run_id": published.run_id,
                "scores": evaluation.score_pairs(pairs, published.texts[each.name], ter=False),
                "comparison": rivals[gate.PUBLISHED][each.name],
            }
    trained = [direction for direction, rows in stats["splits"]["train"]["directions"].items() if rows]
    sizes: dict[str, Mapping[str, int]] = {each.name: each.sentences() for each in sets}
    sizes[TEST] = {**dict.fromkeys(trained, 0), **sizes[TEST]}
    leaked = {each.name: stats["leakage"][each.name]["loose"] for each in sets}
    judged = gate.apply_gate(config, sizes, rivals, published, leaked)
    return Judgement(
        **found.pop(TEST),
        guard_sets={name.removeprefix(GUARD): its for name, its in found.items()},
        gate={**judged, "bootstrap": bootstrap, "published": published.run_id},
    )


def write_base_outputs(path: Path, sets: Sequence[TestSet], outputs: Outputs) -> None:
    """Keep the base's translations for later starts of the run."""
    kept = {
        each.name: [[pair.source, text] for pair, text in zip(each.pairs, outputs[each.name], strict=True)]
        for each in sets
    }
    files.write_json(path, {"sha256": _digest(kept), "sets": kept})


def _digest(kept: Any) -> str:
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def read_base_outputs(path: Path, sets: Sequence[TestSet]) -> dict[str, list[str]] | None:
    """Return the base's translations of these very sources from an earlier start, as it wrote them, or None."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        kept = told["sets"]
        found = {each.name: [(source, text) for source, text in kept[each.name]] for each in sets}
    except (OSError, ValueError, TypeError, KeyError):
        return None
    same = told.get("sha256") == _digest(kept) and all(
        [source for source, _ in found[each.name]] == [pair.source for pair in each.pairs] for each in sets
    )
    return {name: [text for _, text in rows] for name, rows in found.items()} if same else None


def write_results(
    run: PreparedRun, state: State, judgement: Judgement, deliverable: Path, facts: dict[str, Any]
) -> bool:
    """Write every result file of the run directory, the report, then ``finished.json``, and promote what it promotes.

    Returns:
        False, with nothing finished, when the run is to be promoted and another one was published since it was judged.

    Raises:
        Retry: another process keeps the store.
    """
    lines = list(read_lines(run.paths.metrics))
    train = _train_results(lines, state)
    scores = {"base": judgement.base, "tuned": judgement.tuned, "comparison": judgement.comparison}
    folder = run.paths.folder
    files.write_json(folder / "train_results.json", train)
    files.write_json(folder / "eval_results.json", scores)
    files.write_json(folder / "all_results.json", {"train": train, "eval": scores})
    files.write_json(folder / "trainer_state.json", {**state.to_dict(), "log_history": lines})
    finished = {
        "status": "finished",
        "finished_at": runs.now(),
        "model": run.card.key,
        "run_id": run.paths.run_id,
        "method": run.config.method,
        "deliverable": str(deliverable.relative_to(folder)),
        FILES: files.listing(deliverable),
        EVAL_FILES: files.listing(run.paths.eval),
        "steps": state.step,
        "epochs": round(state.epoch + state.position / state.steps_per_epoch, 4),
        "stopped_early": state.stopped_early,
        "recovered": [line for line in lines if line["type"] in RECOVERIES],
        "test": facts[TEST],
        "scores": scores,
        "published": judgement.published,
        "guard_sets": {
            name: {"test": facts[f"{GUARD}{name}"], **scored} for name, scored in judgement.guard_sets.items()
        },
        "gate": judgement.gate,
        "leakage": {name: counts for name, counts in run.stats["leakage"].items() if name != "examples"},
    }
    publishing.write_report(run.paths, finished, lambda line: print(line, flush=True))
    return publishing.finish(run.paths, finished)


def _train_results(lines: list[dict[str, Any]], state: State) -> dict[str, Any]:
    """Sum up the logged steps: means over the run, each line by its tokens or its time; ``last_*`` is the last line."""
    steps = [line for line in lines if line["type"] == "train"]
    last = steps[-1] if steps else {}

    def over_run(name: str, weight: str, digits: int) -> float | None:
        value = mean(steps, name, weight)
        return None if value is None else round(value, digits)

    return {
        "steps": state.step,
        "rows": state.rows,
        "loss": over_run("loss", "target_tokens", 5),
        "nll": over_run("nll", "target_tokens", 5),
        "last_loss": last.get("loss"),
        "last_nll": last.get("nll"),
        "target_tokens_per_second": over_run("tokens_per_second", "seconds", 1),
        "real_token_share": over_run("real_token_share", "padded_tokens", 4),
        "checkpoint_seconds": round(sum(line["seconds"] for line in lines if line["type"] == "checkpoint"), 3),
        "peak_memory_gib": max((line["peak_memory_gib"] for line in steps), default=None),
    }
