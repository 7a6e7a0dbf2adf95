"""From a verdict to the store: ``finished.json`` says what is decided, then the run becomes current; torch-free.

Killed between the two, the next start of the job does what was decided: :func:`settle`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mtft import exit_codes, files, journal, promotion
from mtft.errors import MtftError
from mtft.runs import RunPaths
from mtft.store import gate_of, outputs, read_finished


def finish(paths: RunPaths, finished: dict[str, Any]) -> bool:
    """Write ``finished.json`` and promote the run where it says so; False when another one was published since.

    Raises:
        InputError: the store's pointer cannot be moved.
        Retry: another process keeps the store.
    """
    gate = finished["gate"]
    if gate["verdict"] != exit_codes.PROMOTED:
        files.write_json(paths.finished, finished)
        return True
    with promotion.changing(paths.root, paths.model, say=lambda line: print(line, flush=True)) as store:
        if store.standing != gate.get("published"):
            return False
        files.write_json(paths.finished, finished)
        _promote(store, paths, gate)
    return True


def settle(
    paths: RunPaths,
    keep_runs: int | None,
    say: Callable[[str], object],
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Promote a finished run whose promotion was cut short, then remove old runs as far as the settings say.

    A run that was promoted once, and perhaps rolled back by a person, is left alone. Old runs that stay, or a store
    that another process keeps, never cost a run that has nothing to promote.

    Args:
        paths: of the run.
        keep_runs: how many finished runs stay; None: all.
        say: told what is done, and whom a wait is for.
        pause: waits that many seconds for another process; what it raises ends the wait.

    Raises:
        InputError: ``finished.json`` is damaged, or the store's pointer cannot be moved.
        Retry: another process keeps the store.
    """
    if not paths.finished.exists():
        return
    finished = read_finished(paths)
    if gate_of(paths).get("verdict") == exit_codes.PROMOTED:
        _mend(paths, finished, say, pause)
    if keep_runs is not None:
        try:
            _prune(paths, keep_runs, say, pause)
        except (MtftError, OSError) as error:
            say(f"note: old runs could not be removed: {error}")


def write_report(paths: RunPaths, finished: dict[str, Any], say: Callable[[str], object]) -> None:
    """Write the report; a page that cannot be made never costs a trained model."""
    try:
        from trainer import report

        report.write(paths, finished)
    except Exception as error:
        say(f"{paths.report.name} could not be written: {type(error).__name__}: {error}")


def write_overview(root: Path, say: Callable[[str], object]) -> None:
    """Write the page of all models; one that cannot be made never costs a trained model."""
    try:
        from trainer import overview

        overview.write(root)
    except Exception as error:
        say(f"note: the page of all models could not be written: {type(error).__name__}: {error}")


def _mend(
    paths: RunPaths, finished: dict[str, Any], say: Callable[[str], object], pause: Callable[[float], object]
) -> None:
    if journal.was_current(journal.read(outputs(paths.root, paths.model)), paths.run_id):
        return  # nothing to promote, so nobody is waited for
    with promotion.changing(paths.root, paths.model, pause=pause, say=say) as store:
        if store.was_current(paths.run_id):
            return
        if store.standing == finished["gate"].get("published"):
            _promote(store, paths, finished["gate"])
            say(f"run {paths.run_id} is promoted; its last start was ended before it could be")
        else:
            _withdraw(paths, finished, store.standing, say)


def _promote(store: promotion.Store, paths: RunPaths, gate: dict[str, Any]) -> None:
    provenance = files.read_json(paths.provenance) if paths.provenance.exists() else {}
    reason = "; ".join(gate["reasons"])
    store.promote(paths.run_id, who=f"job {provenance.get('job', 'unknown')}", reason=reason[:500])


def _withdraw(paths: RunPaths, finished: dict[str, Any], current: str | None, say: Callable[[str], object]) -> None:
    """Take back a verdict that was given against another published run, and say so."""
    why = f"run {current} was published before this one could be; {promotion.overruling(paths.model, paths.run_id)}"
    gate = finished["gate"]
    changed = {**finished, "gate": {**gate, "verdict": exit_codes.NOT_BETTER, "reasons": [*gate["reasons"], why]}}
    files.write_json(paths.finished, changed)
    write_report(paths, changed, say)
    say(f"run {paths.run_id} is not promoted: {why}")


def _prune(paths: RunPaths, keep: int, say: Callable[[str], object], pause: Callable[[float], object]) -> None:
    with promotion.changing(paths.root, paths.model, pause=pause, say=say) as store:
        removed = store.prune(keep, spare=[paths.run_id])
    for run_id, aside in removed.items():
        say(f"run {run_id} is removed: storage.keep_runs is {keep}")
        if aside.exists():
            say(f"note: {aside}, which is left of it, cannot be deleted; check who may write there, then remove it")
