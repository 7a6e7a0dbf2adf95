"""What a person sees while a run goes on, and what is written down of it.

On a terminal a progress bar, elsewhere one JSON line per logged step; ``metrics.jsonl`` always, and
TensorBoard where asked. Only rank 0 has a reporter that does anything.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from mtft import files
from mtft.errors import MtftError
from trainer.loop import StepResult
from trainer.state import State, Window

GIB = 2**30
RECOVERIES = ("out_of_memory", "skipped", "went_back")
"""Kinds of lines that tell what a run had to recover from."""


class Reporter:
    """Writes steps and evaluations to every place they belong.

    Args:
        metrics: path of ``metrics.jsonl``.
        tensorboard: folder for event files, or None for none.
        every: optimizer steps between two reports.
        device: device whose peak memory is reported.
        quiet: report nothing (every rank but 0).
    """

    def __init__(
        self, metrics: Path, *, tensorboard: Path | None, every: int, device: torch.device, quiet: bool = False
    ) -> None:
        self.metrics = metrics
        self.every = every
        self.device = device
        self.quiet = quiet
        self._step_seconds = 0.0
        self._tensorboard = tensorboard
        self._writer: SummaryWriter | None = None
        self._first_step: int | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        # After any other error the volume may be full: what is left to write would end in the traceback of a thread.
        if self._writer is not None and (error is None or isinstance(error, MtftError)):
            self._writer.close()

    def say(self, text: str) -> None:
        """Print one line for the person."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def resume_at(self, step: int, *, evaluated: bool, going_back: bool = False) -> None:
        """Drop written lines of what will be done again: later steps, the test, and dev where it is still due.

        What a run recovered from before it went back, now or in an earlier start, stays: its state counts it.
        """
        if self.quiet or not self.metrics.exists():
            return
        self._first_step = step + 1 if step else None
        # A line that a kill cut off inside a character is no JSON either, and goes.
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").split("\n")
        went_back = [number for number, line in enumerate(lines) if _kind(line, step) == "went_back"]
        counted = len(lines) if going_back else max(went_back, default=0)
        kept = [
            line
            for number, line in enumerate(lines)
            if _is_done(line, step, evaluated) or (number < counted and _kind(line) in RECOVERIES)
        ]
        files.write_text(self.metrics, "".join(line + "\n" for line in kept))

    def has_gone_back(self) -> bool:
        """Tell whether it is written down that the run went back to a checkpoint; who writes nothing need not know."""
        if self.quiet or not self.metrics.exists():
            return self.quiet
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").split("\n")
        return any(_kind(line) == "went_back" for line in lines)

    def step(self, state: State, result: StepResult, *, told: bool = False) -> None:
        """Take in one optimizer step; report when ``every`` steps are together, at the end, and where ``told``."""
        if not result.skipped:
            state.window.add(result)
        window = state.window
        if not window.steps or not (told or state.done or state.step % self.every == 0):
            return
        state.window = Window()
        if self.quiet:
            return
        line = self._line(state, window)
        self._write(line, "train")
        self._show(state, line)

    def evaluation(self, step: int, split: str, scores: dict[str, Any]) -> None:
        """Take in the scores of one evaluation."""
        if self.quiet:
            return
        self._write({"type": "eval", "split": split, "step": step, **scores}, split)
        parts = [f"nll {scores['nll']:.4f}"] if "nll" in scores else []
        for name, values in scores.get("directions", {}).items():
            parts.append(f"{name} BLEU {values['bleu']:.2f} chrF {values['chrf']:.2f} (n={values['n']})")
        self.say(f"step {step} {split}: " + ", ".join(parts))

    def event(self, step: int, kind: str, text: str, **values: Any) -> None:
        """Tell and write down what a run had to recover from; ``RECOVERIES`` lists the kinds."""
        if self.quiet:
            return
        self._write({"type": kind, "step": step, "text": text, **values})
        self.say(text)

    def saved(self, step: int, seconds: float) -> None:
        """Write down what a checkpoint cost."""
        if not self.quiet:
            self._write({"type": "checkpoint", "step": step, "seconds": round(seconds, 3)})

    def _line(self, state: State, window: Window) -> dict[str, Any]:
        seconds, tokens = window.seconds, window.target_tokens
        per_step = seconds / window.steps
        # A running mean keeps the ETA calm while lengths vary from step to step.
        self._step_seconds = per_step if not self._step_seconds else 0.8 * self._step_seconds + 0.2 * per_step
        return {
            "type": "train",
            "step": state.step,
            "total": state.total_steps,
            "percent": round(100 * state.step / state.total_steps, 1),
            "epoch": round(state.epoch + state.position / state.steps_per_epoch, 4),
            "eta_s": round((state.total_steps - state.step) * self._step_seconds, 1),
            "loss": round(window.loss / tokens, 5),
            "nll": round(window.nll / tokens, 5),
            "lr": window.learning_rate,
            "grad_norm": None if window.grad_norm is None else round(window.grad_norm, 5),
            "tokens_per_second": round(tokens / seconds, 1),
            "sentences_per_second": round(window.rows / seconds, 1),
            "real_token_share": round(window.real_tokens / window.padded_tokens, 4),
            # What the means above count by, where those of a whole run are made of them.
            "target_tokens": tokens,
            "padded_tokens": window.padded_tokens,
            "seconds": round(seconds, 3),
            "peak_memory_gib": round(peak_memory_gib(self.device), 3),
        }

    def _write(self, line: dict[str, Any], group: str | None = None) -> None:
        """Add a line to the metrics and, given a group, its numbers to TensorBoard."""
        self.metrics.parent.mkdir(parents=True, exist_ok=True)
        with self.metrics.open("a", encoding="utf-8") as out:
            out.write(json.dumps({**line, "time": round(time.time(), 3)}, ensure_ascii=False) + "\n")
        if self._tensorboard is not None and group is not None:
            if self._writer is None:  # TensorBoard forgets what an earlier start wrote from this step on
                self._writer = SummaryWriter(str(self._tensorboard), purge_step=self._first_step)
            for name, value in _numbers(line):
                self._writer.add_scalar(f"{group}/{name}", value, line["step"])

    def _show(self, state: State, line: dict[str, Any]) -> None:
        if not sys.stdout.isatty():
            print(json.dumps(line), flush=True)
            return
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=sys.stdout))
            self._bar.start()
            self._task = self._bar.add_task("training", total=state.total_steps)
        assert self._task is not None
        text = (
            f"step {line['step']}/{line['total']} loss {line['loss']:.3f} lr {line['lr']:.1e} "
            f"{line['tokens_per_second']:.0f} tok/s"
        )
        self._bar.update(self._task, completed=state.step, description=text)


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory used so far: allocated on a GPU, resident of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def _is_done(line: str, step: int, evaluated: bool) -> bool:
    try:
        values = json.loads(line)
        again = values.get("split") == "dev" and values["step"] == step
        return int(values["step"]) <= step and (evaluated or not again) and values.get("split") != "test"
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # cut off in the middle of a write


def _kind(line: str, until: float = math.inf) -> str | None:
    """Return the type of a line of this step or an earlier one, else None."""
    try:
        values = json.loads(line)
        return str(values["type"]) if values["step"] <= until else None
    except (ValueError, KeyError, TypeError):
        return None


def _numbers(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name not in ("step", "total"):
            found.append((prefix + name, value))
    return found
