"""``report.html``: what a run did and whether it helped, on one page that needs nothing beside it.

The page holds no script and asks for nothing from outside; every text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2

from mtft import files
from mtft.runs import RunPaths
from trainer import report_charts, report_documents, report_leakage, report_samples, report_scores
from trainer.report_files import Metrics, mean, read_metrics, read_rejections, read_sentences, read_text

_VERDICTS = {
    "promoted": ("good", "▲", "Better: promoted"),
    "better": ("good", "▲", "Better than the base"),
    "not better": ("fair", "●", "Not better"),
    "regressed": ("bad", "▼", "Worse"),
}


def write(paths: RunPaths, finished: dict[str, Any]) -> None:
    """Write ``report.html`` of a run from what lies in its folder.

    A part whose file is missing or empty says so; lines that cannot be read are passed over.

    Args:
        paths: the run.
        finished: what ``finished.json`` will hold.
    """
    files.write_text(paths.report, render(paths, finished))


def render(paths: RunPaths, finished: dict[str, Any]) -> str:
    """Return the page as text."""
    metrics, sentences = read_metrics(paths.metrics), read_sentences(paths.eval)
    gate = finished.get("gate", {})
    return page(
        "report.html.j2",
        model=finished.get("model", paths.model),
        run_id=finished.get("run_id", paths.run_id),
        facts=list(_facts(finished)),
        verdict=verdict_of(finished),
        reasons=gate.get("reasons", []),
        warning=report_leakage.warning(finished),
        policy=report_scores.policy_text(gate.get("policy", {})),
        directions=report_scores.directions(finished),
        rival=(finished.get("published") or {}).get("run_id"),
        leakage=report_leakage.splits(finished.get("leakage", {})),
        charts=report_charts.charts(metrics),
        samples=report_samples.choose(sentences),
        worst=report_documents.worst(sentences),
        rejections=read_rejections(paths.rejected),
        resources=list(_resources(finished, metrics)),
        documents=[
            ("Effective configuration", paths.config.name, read_text(paths.config)),
            ("Provenance", paths.provenance.name, read_text(paths.provenance)),
        ],
    )


def page(template: str, **values: Any) -> str:
    """Return a page made of a template of this folder; every text in it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def verdict_of(finished: dict[str, Any]) -> tuple[str, str, str]:
    """Return tone, sign and words of a finished run's verdict."""
    verdict = (finished.get("gate") or {}).get("verdict")
    return _VERDICTS.get(str(verdict), ("fair", "●", "No verdict"))


def time_text(time: str) -> str:
    """Return a time of a record as a person reads it."""
    return time.replace("T", " ").replace("Z", " UTC")


_RECOVERED = {"out_of_memory": "Out of memory", "skipped": "Step skipped", "went_back": "Went back"}


def _facts(finished: dict[str, Any]) -> Iterator[str]:
    """Give the short facts below the verdict."""
    if method := finished.get("method"):
        yield {"lora": "LoRA", "qlora": "QLoRA", "full": "full fine-tuning"}.get(method, method)
    if (steps := finished.get("steps")) is not None:
        yield f"{steps:,} steps"
    if (epochs := finished.get("epochs")) is not None:
        yield f"{epochs:.4g} {'epoch' if epochs == 1 else 'epochs'}"
    if finished.get("stopped_early"):
        yield "stopped early"
    if at := finished.get("finished_at"):
        yield time_text(at)


def _resources(finished: dict[str, Any], metrics: Metrics) -> Iterator[tuple[str, str, str]]:
    """Give name, value and remark of what the run cost."""
    if metrics.seconds is not None:
        yield (
            "Wall time",
            duration(metrics.seconds),
            "from the first to the last line of metrics.jsonl, pauses included",
        )
    if (steps := finished.get("steps")) is not None:
        yield "Optimizer steps", f"{steps:,}", f"{finished.get('epochs', 0):.4g} epochs"
    if memory := metrics.values("peak_memory_gib"):
        yield "Peak memory", f"{max(memory):.2f} GiB", "rank 0: allocated on the GPU, or resident on a CPU"
    if rate := mean(metrics.train, "tokens_per_second", "seconds"):
        yield "Target tokens per second", f"{rate:,.0f}", "mean over the logged steps, all ranks"
    if share := mean(metrics.train, "real_token_share", "padded_tokens"):
        yield "Real-token share", f"{share:.1%}", "mean over the logged steps; the rest is padding"
    for each in finished.get("recovered", []):
        yield _RECOVERED[each["type"]], f"step {each['step']:,}", each["text"]


def duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
