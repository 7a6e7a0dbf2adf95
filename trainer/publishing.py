"""From a verdict to the store: ``finished.json`` says what is decided, then the run becomes current; torch-free.

Killed between the two, the next start of the job does what was decided: :func:`settle`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mtft import exit_codes, files, promotion
from mtft.errors import MtftError
from mtft.runs import RunPaths


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
    with promotion.changing(paths.root, paths.model) as store:
        if store.current != gate["published"]:
            return False
        files.write_json(paths.finished, finished)
        _promote(store, paths, gate)
    return True


def settle(paths: RunPaths, keep_runs: int | None, say: Callable[[str], object]) -> None:
    """Promote a finished run whose promotion was cut short, then remove old runs as far as the settings say.

    A run that was promoted once, and perhaps rolled back by a person, is left alone.

    Raises:
        InputError: the store's pointer cannot be moved.
        Retry: another process keeps the store.
    """
    if not paths.finished.exists():
        return
    finished = files.read_json(paths.finished)
    gate = finished.get("gate") or {}
    promoted = gate.get("verdict") == exit_codes.PROMOTED
    if not promoted and keep_runs is None:
        return
    with promotion.changing(paths.root, paths.model) as store:
        if promoted and not store.was_current(paths.run_id):
            if store.current == gate["published"]:
                _promote(store, paths, gate)
                say(f"run {paths.run_id} is promoted; its last start was ended before it could be")
            else:
                say(_withdraw(paths, finished, store.current))
        if keep_runs is not None:
            _prune(store, keep_runs, say)


def _promote(store: promotion.Store, paths: RunPaths, gate: dict[str, Any]) -> None:
    provenance = files.read_json(paths.provenance) if paths.provenance.exists() else {}
    reason = "; ".join(gate["reasons"])
    store.promote(paths.run_id, who=f"job {provenance.get('job', 'unknown')}", reason=reason[:500])


def _withdraw(paths: RunPaths, finished: dict[str, Any], current: str | None) -> str:
    """Take back a verdict that was given against another published run, and say so."""
    why = f"run {current} was published before this one could be; `mtft-launch promote --run` takes it all the same"
    gate = finished["gate"]
    changed = {**gate, "verdict": exit_codes.NOT_BETTER, "reasons": [*gate["reasons"], why]}
    files.write_json(paths.finished, {**finished, "gate": changed})
    return f"run {paths.run_id} is not promoted: {why}"


def _prune(store: promotion.Store, keep: int, say: Callable[[str], object]) -> None:
    try:
        for run_id in store.prune(keep):
            say(f"run {run_id} is removed: storage.keep_runs is {keep}")
    except (MtftError, OSError) as error:  # old runs that stay never cost a new one
        say(f"note: old runs could not be removed: {error}")
