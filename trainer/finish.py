"""The end of a run: judged against the base and the published run, results written, ``finished.json`` last."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtft import exit_codes, files, runs
from mtft.config import Config
from mtft.split import HELD_OUT
from trainer import evaluation, publishing
from trainer.pairs import Pair
from trainer.prepared_run import PreparedRun
from trainer.progress import RECOVERIES
from trainer.published import Published
from trainer.report_files import mean
from trainer.state import State


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Scores on test and what follows from them.

    Attributes:
        base: scores and error rates of the base per direction.
        tuned: the same of the tuned model.
        comparison: paired bootstrap with the base per direction and metric.
        published: run-id, scores and comparison of the published run; None where nothing is published.
        gate: the verdict (``mtft.exit_codes``) with its reasons, and the run-id that was published when it was given.
    """

    base: dict[str, Any]
    tuned: dict[str, Any]
    comparison: dict[str, Any]
    published: dict[str, Any] | None
    gate: dict[str, Any]


def judge(
    config: Config, pairs: Sequence[Pair], base: Sequence[str], tuned: Sequence[str], published: Published
) -> Judgement:
    """Score the systems' outputs on test and apply the gate."""
    samples = config.eval.bootstrap_samples
    comparison = evaluation.compare_outputs(pairs, base, tuned, samples)
    rivals, rival = {"the base": comparison}, None
    if published.texts is not None:
        against = evaluation.compare_outputs(pairs, published.texts, tuned, samples)
        rivals["the published run"] = against
        scores = evaluation.quick_scores(pairs, published.texts)
        rival = {"run_id": published.run_id, "scores": scores, "comparison": against}
    gate = apply_gate(config, rivals, published.problem)
    return Judgement(
        base=evaluation.score_pairs(pairs, base),
        tuned=evaluation.score_pairs(pairs, tuned),
        comparison=comparison,
        published=rival,
        gate={**gate, "published": published.run_id},
    )


def apply_gate(config: Config, rivals: dict[str, dict[str, Any]], problem: str | None = None) -> dict[str, Any]:
    """Judge the tuned model against each rival: the base, and the published run where there is one.

    Promoted: against every rival, every direction gains at least ``min_delta`` points with p <= ``max_p``. Regressed:
    against one of them, a direction loses points with p <= ``max_p``.

    Args:
        config: has the policy.
        rivals: name -> paired bootstrap per direction and metric.
        problem: why the published run could not be compared with; nothing is promoted over it then.
    """
    gate = config.gate
    reasons, gains, losses = [], [], []
    for rival, comparison in rivals.items():
        for name, metrics in comparison.items():
            delta, p_value = metrics[gate.metric]["delta"], metrics[gate.metric]["p_value"]
            significant = p_value <= gate.max_p
            gains.append(significant and delta > 0 and delta >= gate.min_delta)
            losses.append(significant and delta < 0)
            reasons.append(f"{name}: {gate.metric} {delta:+.2f} against {rival}, p = {p_value:.4f}")
    if not gains:
        reasons.append("test holds no sentence: nothing to judge by; give data.test, or more documents to hold out")
    if problem is not None:
        reasons.append(f"nothing is promoted, because the published run cannot be compared with: {problem}")
    better = exit_codes.PROMOTED if gate.promote == "auto" else exit_codes.BETTER
    passed = gains and all(gains) and problem is None
    verdict = exit_codes.REGRESSED if any(losses) else better if passed else exit_codes.NOT_BETTER
    policy = gate.model_dump(mode="json")
    return {"verdict": verdict, "compared_with": list(rivals), "policy": policy, "reasons": reasons}


def write_base_outputs(path: Path, pairs: Sequence[Pair], texts: Sequence[str]) -> None:
    """Keep the base's translations of test for later starts of the run."""
    files.write_json(path, [[pair.source, text] for pair, text in zip(pairs, texts, strict=True)])


def read_base_outputs(path: Path, pairs: Sequence[Pair]) -> list[str] | None:
    """Return the base's translations of these very sources from an earlier start, or None."""
    try:
        sources, texts = zip(*json.loads(path.read_text(encoding="utf-8")), strict=True)
    except (OSError, ValueError, TypeError):
        return None
    return list(texts) if list(sources) == [pair.source for pair in pairs] else None


def write_results(
    run: PreparedRun, state: State, judgement: Judgement, deliverable: Path, facts: dict[str, Any]
) -> bool:
    """Write every result file of the run directory, the report, then ``finished.json``, and promote what it promotes.

    Returns:
        False, with nothing finished, when the run is to be promoted and another one was published since it was judged.

    Raises:
        Retry: another process keeps the store.
    """
    lines = _metric_lines(run.paths.metrics)
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
        "steps": state.step,
        "epochs": round(state.epoch + state.position / state.steps_per_epoch, 4),
        "stopped_early": state.stopped_early,
        "recovered": [line for line in lines if line["type"] in RECOVERIES],
        "test": facts,
        "scores": scores,
        "published": judgement.published,
        "gate": judgement.gate,
        "leakage": {split: run.prepared.stats["leakage"][split] for split in HELD_OUT},
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


def _metric_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
