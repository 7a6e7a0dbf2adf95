"""The store of a model's runs, and which of them is current: the one resolver of translate, fetch and serving.

::

    outputs/<model>/current -> runs/<run-id>      what users of the model get
    outputs/<model>/current.json                  the same where the volume has no symlinks: {"run": "runs/<run-id>"}
    outputs/<model>/promotions/<n>.json           what was promoted and rolled back (mtft.journal)

Reading takes no lock: the pointer changes in one rename, and no run it names is ever incomplete.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtft import files, journal, lease
from mtft.errors import InputError
from mtft.exit_codes import PROMOTABLE
from mtft.models import card
from mtft.runs import RUN_ID, RunPaths, check_run_id, model_folder
from mtft.text import printable

CURRENT = "current"
CURRENT_FILE = "current.json"
RUNS = "runs"
_DELIVERABLES = ("lora", "model")
_USE = ".use.{}.lease"
BEGUN_USES = f"{RUNS}/*/.{_USE.format('*')}.*.tmp"
"""Names below a model's outputs of what becomes the lease of a reader."""
_FILE = re.compile(r"[^/\0]+")
FILES = "deliverable_files"
"""Field of ``finished.json``: size and SHA-256 of each file of the deliverable, so that a damaged run is known."""
EVAL_FILES = "eval_files"
"""The same of what lies in ``eval/``: later runs are judged by the translations there."""
_SIZES = "deliverable_bytes"  # in runs of earlier versions: the sizes alone


def outputs(root: Path, model: str) -> Path:
    """Return the folder of a model's runs and pointer.

    Raises:
        InputError: there is no such model.
    """
    return model_folder(root.absolute(), card(model).key)


def current_id(folder: Path) -> str | None:
    """Return the run-id that a model's pointer names, or None while nothing is promoted.

    Args:
        folder: of the model's outputs.

    Raises:
        InputError: the pointer leads out of the store, or is none.
        OSError: the volume does not answer.
    """
    # The file goes first, so either kind can take the place of the other in one step.
    pointer = folder / CURRENT_FILE
    with contextlib.suppress(FileNotFoundError):
        return _named(pointer, _field(pointer, files.read_steadily(pointer)))
    link = folder / CURRENT
    try:
        return _named(link, str(files.steadily(link.readlink)))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InputError(f"{link}: is no link of mtft's; move it away, then promote a run") from None


def lost(folder: Path) -> str | None:
    """Return the run that was promoted last where nothing is current, or None.

    No verb takes the pointer away: a person did, or a copy of the store that passes over links.

    Raises:
        InputError: the pointer or the journal leads out of the store, or is none.
    """
    last = journal.last_run(journal.read(folder))  # first, as the pointer moves before there is an entry
    return last if current_id(folder) is None else None


def lost_words(folder: Path, run_id: str) -> str:
    """Say that a pointer is missing, and what puts it back, also where the run's verdict speaks against it."""
    verdict = None
    with contextlib.suppress(InputError, OSError):  # of a damaged run its promotion tells more
        verdict = gate_of(run_at(folder, run_id)).get("verdict")
    force = "" if verdict in PROMOTABLE else " --force"
    return (
        f"nothing is current, although run {run_id} was promoted last: {folder / CURRENT} was removed, or not copied "
        f"with the store; `mtft-launch promote {folder.name} --run {run_id}{force}` puts it back"
    )


def run_at(folder: Path, run_id: str, *, hashed: bool = False) -> RunPaths:
    """Return a run of the store that is complete.

    Args:
        folder: of the model's outputs.
        run_id: its name.
        hashed: compare its deliverable's SHA-256 too, for which all of it is read.

    Raises:
        InputError: its name is no run-id, it is not there, it is not complete, or its weights are links.
    """
    path = folder / RUNS / check_run_id(run_id)
    if path.is_symlink() or not path.is_dir():
        raise InputError(f"{path}: there is no such run; `mtft-launch history {folder.name}` lists what was promoted")
    paths = RunPaths.of(path)
    _refuse_links(path / str(read_finished(paths, hashed=hashed)["deliverable"]))
    return paths


def read_finished(paths: RunPaths, *, hashed: bool = False) -> dict[str, Any]:
    """Return ``finished.json`` of a run whose deliverable is there, of the sizes it says, or ``hashed``: the bytes.

    Raises:
        InputError: the run is not finished, or lost its weights.
    """
    try:
        finished = json.loads(files.read_steadily(paths.finished))
        deliverable, listed = finished["deliverable"], _listed(finished)
    except FileNotFoundError:
        raise InputError(f"{paths.folder} is not a finished run (no finished.json in it)") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{paths.finished}: cannot be understood ({error}); train the run anew with --rerun") from None
    weights = paths.folder / deliverable if deliverable in _DELIVERABLES else None
    if weights is None or weights.is_symlink() or not any(weights.glob("*.safetensors")):
        raise InputError(f"{paths.folder}: its deliverable {deliverable!r} holds no safetensors; the run is damaged")
    if found := files.damage(weights, listed, hashed=hashed):
        raise InputError(f"{found}; the run is damaged")
    return dict(finished)


def gate_of(paths: RunPaths) -> dict[str, Any]:
    """Return what the gate found of a finished run; empty where it was not judged.

    Raises:
        InputError: the run is not finished, or damaged.
    """
    gate = read_finished(paths).get("gate") or {}
    sound = isinstance(gate, dict) and isinstance(gate.get("reasons", []), list)
    if not sound or not isinstance(gate.get("verdict", ""), str):
        raise InputError(f"{paths.finished}: its gate cannot be understood; train the run anew with --rerun")
    return dict(gate)


def _listed(finished: dict[str, Any]) -> dict[str, dict[str, Any]]:
    sizes = {name: {"size": size} for name, size in finished.get(_SIZES, {}).items()}
    listed = {name: dict(entry) for name, entry in finished.get(FILES, sizes).items()}
    if strange := [name for name, entry in listed.items() if "size" not in entry or not _FILE.fullmatch(name)]:
        raise ValueError(f"{strange[0]!r} below {FILES!r}")
    return listed


def is_complete(folder: Path, run_id: str, *, hashed: bool = False) -> bool:
    """Tell whether a run is there with all that users need; ``hashed``: byte for byte."""
    try:
        run_at(folder, run_id, hashed=hashed)
    except InputError:
        return False
    return True


def current(root: Path, model: str, *, hashed: bool = False) -> RunPaths | None:
    """Return a model's current run, ``hashed``: as it was written byte for byte, or None while nothing is promoted.

    Raises:
        InputError: there is no such model, or the pointer names a run that is gone or damaged.
    """
    folder = outputs(root, model)
    run_id = current_id(folder)
    if run_id is None:
        return None
    try:
        return run_at(folder, run_id, hashed=hashed)
    except InputError as error:
        raise InputError(
            f"the current run of {model} cannot be used: {error}; `mtft-launch rollback {model}` goes back to the one "
            f"before; without one, `mtft-launch promote {model} --run RUN-ID --force` takes another"
        ) from None


def find(root: Path, model: str, run_id: str | None = None) -> RunPaths:
    """Return the run a model's users get: the one named, else the current one, else the newest finished one.

    Raises:
        InputError: there is none, or it is not complete.
    """
    folder = outputs(root, model)
    if run_id is not None:
        return run_at(folder, run_id)
    if found := current(root, model):
        return found
    return run_at(folder, newest(folder))


def newest(folder: Path) -> str:
    """Return the run-id of a model's newest finished run.

    Raises:
        InputError: no run is finished.
    """
    finished, model = finished_ids(folder), folder.name
    if not finished:
        raise InputError(
            f"no finished run of {model} below {folder}; train one first, or name the storage root that holds one"
        )
    return finished[-1]


def unpromoted(paths: RunPaths) -> str:
    """Say of a run that stands in while nothing is promoted what the gate found, and what users get meanwhile.

    Raises:
        InputError: the run is not finished, or lost its weights.
    """
    gate = read_finished(paths).get("gate")
    verdict, reasons = (gate.get("verdict"), gate.get("reasons")) if isinstance(gate, dict) else (None, None)
    why = f": {reasons[0]}" if isinstance(reasons, list) and reasons else ""
    found = f"run {paths.run_id}, the newest finished one ({verdict or 'not judged'}{why})"
    folder = model_folder(paths.root, paths.model)
    if last := lost(folder):
        return printable(f"{lost_words(folder, last)}; this is {found}")
    return printable(f"nothing is promoted, so this is {found}; users of the model get its base until one is promoted")


def finished_ids(folder: Path) -> list[str]:
    """Return the run-ids of every finished run of a model, in the order they finished, the oldest first.

    Raises:
        OSError: the volume does not answer; a run is not taken for an old one then.
    """
    found = []
    for path in folder.glob(f"{RUNS}/*/finished.json"):
        if RUN_ID.fullmatch(path.parent.name) and not path.parent.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                found.append((_finished_at(path), path.parent.name))
    return [run_id for _, run_id in sorted(found)]


@contextlib.contextmanager
def using(paths: RunPaths) -> Iterator[None]:
    """Keep a run from being removed while this process reads it, as far as the volume lets it say so."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a volume mounted read-only
            stack.enter_context(lease.hold(paths.folder / _USE.format(secrets.token_hex(8))))
        yield


def in_use(folder: Path, run_id: str) -> bool:
    """Tell whether a process is reading a run."""
    return any(lease.is_live(path) for path in (folder / RUNS / run_id).glob(_USE.format("*")))


def left_uses(folder: Path) -> list[Path]:
    """Return what processes left that were killed while they read a run of a model."""
    return [path for path in folder.glob(f"{RUNS}/*/{_USE.format('*')}") if not lease.is_live(path)]


def _refuse_links(deliverable: Path) -> None:
    """Refuse weights that lie elsewhere: whoever can write there would change what users get."""
    for path in (deliverable, *deliverable.iterdir()):
        if path.is_symlink():
            raise InputError(f"{path}: is a link, which may lead out of the store; put the files themselves there")


def _finished_at(path: Path) -> str:
    """Return the time in a ``finished.json``, which sorts as text; one that cannot be understood counts as oldest."""
    try:
        return str(json.loads(files.read_steadily(path))["finished_at"])
    except (ValueError, KeyError, TypeError):
        return ""


def _field(path: Path, text: str) -> object:
    try:
        return json.loads(text)["run"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: does not name a run; move it away, then promote a run") from None


def _named(pointer: Path, target: object) -> str:
    top, _, run_id = str(target).partition("/")
    if top != RUNS or not RUN_ID.fullmatch(run_id):
        raise InputError(f"{pointer}: leads to {str(target)!r}, out of the store; move it away, then promote a run")
    return run_id
