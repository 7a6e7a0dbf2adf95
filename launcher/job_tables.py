"""Job states as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from launcher.output import print_rows, say
from launcher.results import SCORES
from launcher.states import JobState
from mtft import exit_codes

_NOTHING = "-"


def list_row(state: JobState, *, with_namespace: bool) -> dict[str, Any]:
    """Return what `list` shows: what the job is and how it stands."""
    return {
        **({"namespace": state.namespace} if with_namespace else {}),
        "name": state.name,
        "model": state.model or _NOTHING,
        "batch": state.batch or _NOTHING,
        "state": state.state,
        "gpus": state.gpus,
        "age": duration(state.age_s),
        "took": duration(state.took_s),
    }


def list_document(state: JobState) -> dict[str, Any]:
    """Return the same for programs: seconds instead of words, null where nothing is known."""
    names = ("namespace", "name", "model", "batch", "state", "gpus", "age_s", "took_s")
    return {name: getattr(state, name) for name in names}


def status_row(state: JobState, *, with_namespace: bool) -> dict[str, Any]:
    """Return what `status` shows: how far the job is and what a person should know."""
    return {
        **({"namespace": state.namespace} if with_namespace else {}),
        "name": state.name,
        "state": state.state,
        "phase": state.phase,
        "done": _NOTHING if state.percent is None else f"{state.percent:.0f}%",
        "eta": duration(state.eta_s),
        "loss": _NOTHING if state.loss is None else f"{state.loss:.3f}",
        "tok/s": _NOTHING if state.tokens_per_second is None else f"{state.tokens_per_second:.0f}",
        "restarts": restarts_text(state),
        "gpus": state.gpus,
        "node": ",".join(state.nodes) or _NOTHING,
        "note": note(state),
    }


def note(state: JobState) -> str:
    """Return verdict and scores of a finished job, and what spoke against it; of any other the first words of why."""
    if state.state == "Succeeded":
        parts = [f"{direction} {scores_text(values)}" for direction, values in state.scores.items()]
        verdict = [state.verdict] if state.verdict else []
        against = state.verdict_reasons[:1] if state.verdict == exit_codes.REGRESSED else ()
        return "; ".join([*verdict, *parts, *against]) or state.reason or _NOTHING
    return first_words(state.reason or _NOTHING)


def first_words(text: str) -> str:
    """Return the first line of a text, with the next one where it only announces that."""
    first, _, rest = text.partition("\n")
    return f"{first} {rest.strip().partition(chr(10))[0]}" if first.endswith(":") and rest.strip() else first


def print_answers(rows: Sequence[Mapping[str, str]], column: str) -> None:
    """Print a table of jobs with the first words of a column; what is longer follows, once where several say the same.

    Args:
        rows: of one job each; ``name`` is its name.
        column: the one that may hold several lines.
    """
    print_rows([{**row, column: first_words(row[column])} for row in rows], "table")
    for long in dict.fromkeys(row[column] for row in rows if "\n" in row[column]):
        say(f"\n{', '.join(row['name'] for row in rows if row[column] == long)}:\n{long}")


def scores_text(scores: Any) -> str:
    """Return ``BLEU 33.46 (+3.46) chrF 57.25 (+2.25)``; in parentheses the difference from the base."""
    return " ".join(_compared(scores, SCORES, "{:.2f}".format, "{:+.2f}".format))


def rates_text(scores: Any, names: Mapping[str, str]) -> str:
    """Return ``numbers 98.1% (+0.4), ...``; in parentheses the difference from the base, in percentage points."""
    return ", ".join(_compared(scores, names, "{:.1%}".format, lambda delta: f"{100 * delta:+.1f}"))


def _compared(
    scores: Any, names: Mapping[str, str], value: Callable[[float], str], change: Callable[[float], str]
) -> Iterator[str]:
    """Yield name, value and change of those that there are."""
    for key, name in names.items():
        if key in scores:
            delta = f" ({change(scores[f'{key}_delta'])})" if f"{key}_delta" in scores else ""
            yield f"{name} {value(scores[key])}{delta}"


def restarts_text(state: JobState) -> str:
    """Return the number of restarts and where the last one went on."""
    if state.restarts is None:
        return _NOTHING
    return str(state.restarts) + (f" (from step {state.resumed_at})" if state.resumed_at is not None else "")


def duration(seconds: float | None) -> str:
    """Return seconds as a person reads them: 45s, 12m, 3h05m, 2d04h."""
    if seconds is None:
        return _NOTHING
    minutes, whole = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m" if minutes >= 10 else f"{minutes}m{whole:02}s" if minutes else f"{whole}s"
