"""What `promote`, `rollback`, `history` and `reproduce` ask of a store, here or in a pod that mounts it.

In a pod: ``python3 -m mtft.keeper VERB JSON`` answers one JSON object on stdout, ``{"error": ...}`` when a person has
to do something.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mtft import files, journal, store
from mtft import provenance as recorded
from mtft.errors import MtftError, Retry
from mtft.promotion import changing
from mtft.runs import RunPaths, check_run_id

_ALIVE_SECONDS = 20.0  # the launcher takes a longer silence for a cut, and a busy store is waited for


Say = Callable[[str], object]


def promote(
    root: str, model: str, run: str | None, who: str, reason: str, force: bool, say: Say | None = None
) -> dict[str, Any]:
    """Make a run current; without one, the newest that is finished. Tells what of the journal is damaged.

    Raises:
        InputError: it is gone or incomplete, or its verdict speaks against it and nothing is forced.
        Retry: another process kept the store for too long.
    """
    with changing(Path(root), model, say=say) as held:
        run_id = run or store.newest(held.folder)
        damaged = journal.look(held.folder)[1]
        entry = held.promote(run_id, who=who, reason=reason, force=force)
        if entry is None:
            return {"model": model, "changed": False, "run": run_id, "damaged": damaged}
        return {**_done(model, entry, say), "damaged": damaged}


def rollback(
    root: str, model: str, who: str, reason: str, away_from: str | None, say: Say | None = None
) -> dict[str, Any]:
    """Make the run current that was so before ``away_from``.

    Raises:
        InputError: there is no earlier run that is complete, or another run is current.
        Retry: another process kept the store for too long.
    """
    with changing(Path(root), model, say=say) as held:
        return _done(model, held.rollback(who=who, reason=reason, away_from=away_from), say)


def _done(model: str, entry: journal.Promotion, say: Say | None) -> dict[str, Any]:
    if not entry.number and say:
        say("the volume took no entry for the history now; it is kept, and the next change writes it")
    return {"model": model, "changed": True, **asdict(entry)}


def history(root: str, model: str) -> dict[str, Any]:
    """Return what is current and every promotion, oldest first, and what of the journal is damaged; reads only.

    Raises:
        InputError: there is no such model, or its pointer or journal leads out of the store.
    """
    folder = store.outputs(Path(root), model)
    entries, damaged = journal.look(folder)
    now_current = store.current_id(folder)
    told = [{**asdict(entry), "there": store.is_complete(folder, entry.run)} for entry in entries]
    return {
        "model": model,
        "current": now_current,
        "lost": None if now_current else journal.last_run(entries),
        "current_there": now_current is not None and store.is_complete(folder, now_current),
        "finished": store.finished_ids(folder),
        "promotions": told,
        "damaged": damaged,
    }


def provenance(root: str, model: str, run: str | None) -> dict[str, Any]:
    """Return ``provenance.json`` of a run, finished or not; without one, of the current run, else the newest finished.

    Raises:
        InputError: there is no such run.
    """
    folder = store.outputs(Path(root), model)
    run_id = check_run_id(run) if run else store.current_id(folder) or store.newest(folder)
    paths = RunPaths.at(Path(root), model, run_id)
    return {"model": model, "run": run_id, "provenance": recorded.read(paths.provenance)}


VERBS: dict[str, Callable[..., dict[str, Any]]] = {
    "promote": promote,
    "rollback": rollback,
    "history": history,
    "provenance": provenance,
}
_WAITING = ("promote", "rollback")


def answer(verb: str, say: Say, **values: Any) -> dict[str, Any]:
    """Answer one question; ``say`` is told what a wait is for.

    Raises:
        MtftError: as its function in ``VERBS``.
    """
    return VERBS[verb](**values, **({"say": say} if verb in _WAITING else {}))


def main(arguments: Sequence[str]) -> None:
    """Answer one question; what goes wrong is said, not raised."""
    os.umask(files.SHARED_UMASK)
    threading.Thread(target=_stay_alive, daemon=True).start()
    try:
        said = answer(arguments[0], lambda text: _tell({"note": text}), **json.loads(arguments[1]))
    except MtftError as error:
        said = {"error": str(error), "may_pass": isinstance(error, Retry)}
    except OSError as error:
        said = {"error": trouble(error)}
    _tell(said)


def _stay_alive() -> None:
    while True:
        time.sleep(_ALIVE_SECONDS)
        _tell({"alive": True})


def _tell(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def trouble(error: OSError) -> str:
    """Say in words what a volume refuses."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}; check who may write below the storage root, and its free space"


if __name__ == "__main__":
    main(sys.argv[1:])
