"""What is found in a store on the volume, for the far end of `fetch`; it stands alone, as remote_files.py does.

The rules of mtft/store.py over again, since this may run where there is no mtft; a test holds them equal.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

RUN = re.compile(r"runs/[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def run_of(root: str, model: str, kind: str = "", named: str = "") -> dict[str, str | None]:
    """Return the folder of a run, of a job's run, or of a model's current run: the newest finished one if none is.

    A job that has not claimed a run yet has no folder. With a note, where a person should know that nothing is current.
    """
    outputs = Path(root, "outputs", model)
    pointer, link, newest = outputs / "current.json", outputs / "current", False
    if kind == "run":
        name = f"runs/{named}"
    elif kind == "job":
        try:
            record = (outputs / "jobs" / f"{named}.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {"folder": None, "deliverable": None, "note": None}
        name = f"runs/{json.loads(record)['run_id']}"
    elif pointer.is_file():
        name = str(json.loads(pointer.read_text(encoding="utf-8"))["run"])
    elif link.is_symlink() or link.exists():
        name = str(link.readlink())
    else:
        name, newest = f"runs/{newest_of(outputs)}", True
    folder = outputs / name
    if not RUN.fullmatch(name) or folder.is_symlink():
        raise ValueError(f"{outputs}: {name!r} leads out of the store")
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such run; `mtft-launch history {model}` lists what was promoted")
    deliverable = deliverable_of(folder, unfinished=kind == "job")
    return {"folder": str(folder), "deliverable": deliverable, "note": unpromoted(folder) if newest else None}


def newest_of(outputs: Path) -> str:
    """Return the run-id of a model's newest finished run."""
    finished = []
    for path in outputs.glob("runs/*/finished.json"):
        if RUN.fullmatch(f"runs/{path.parent.name}") and not path.parent.is_symlink():
            with suppress(FileNotFoundError):  # removed meanwhile
                # Times sort as text; a file that cannot be understood counts as oldest.
                finished.append((str(told_in(path).get("finished_at", "")), path.parent.name))
    if not finished:
        raise ValueError(f"{outputs}: no run of {outputs.name} is finished yet")
    return max(finished)[1]


def unpromoted(folder: Path) -> str:
    """Say of a run that stands in while nothing is promoted what the gate found, and what users get meanwhile."""
    gate = gate_of(folder)
    verdict, reasons = gate.get("verdict"), gate.get("reasons")
    why = f": {reasons[0]}" if isinstance(reasons, list) and reasons else ""
    found = f"run {folder.name}, the newest finished one ({verdict or 'not judged'}{why})"
    outputs = folder.parents[1]
    if last := promoted_last(outputs):
        force = "" if gate_of(outputs / "runs" / last).get("verdict") in ("promoted", "better") else " --force"
        return (
            f"nothing is current, although run {last} was promoted last: {outputs / 'current'} was removed, or not "
            f"copied with the store; `mtft-launch promote {outputs.name} --run {last}{force}` puts it back; this is "
            f"{found}"
        )
    return f"nothing is promoted, so this is {found}; users of the model get its base until one is promoted"


def gate_of(folder: Path) -> dict[str, Any]:
    """Return what the gate found of a run; empty where it was not judged or cannot be read."""
    with suppress(OSError):
        gate = told_in(folder / "finished.json").get("gate")
        return gate if isinstance(gate, dict) else {}
    return {}


def promoted_last(outputs: Path) -> str | None:
    """Return the run of the last entry in a model's journal, None where nothing was ever promoted.

    Raises:
        OSError: an entry cannot be read; an older one would be taken for the last.
    """
    numbered = [path for path in outputs.glob("promotions/*.json") if path.stem.isdecimal()]
    for path in sorted(numbered, key=lambda each: int(each.stem), reverse=True):
        name = told_in(path).get("run")
        if isinstance(name, str) and RUN.fullmatch(f"runs/{name}"):  # else a damaged entry
            return name
    return None


def told_in(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty where it holds none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def deliverable_of(folder: Path, *, unfinished: bool) -> str | None:
    """Return the name of what a run made, None where it is not finished; its files are there, and no links."""
    about = folder / "finished.json"
    told = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    name = told.get("deliverable")
    if name not in ("lora", "model"):
        return None
    weights = folder / name
    for each in (weights, *weights.glob("*")):
        if each.is_symlink():
            raise ValueError(f"{each}: is a link, which may lead out of the store; put the files themselves there")
    if not unfinished and not any(weights.glob("*.safetensors")):
        raise ValueError(f"{folder}: its deliverable {name!r} holds no safetensors; the run is damaged")
    return str(name)


def sound(run: str) -> None:
    """Hold the files of a deliverable against their size and SHA-256 in finished.json; earlier versions wrote none."""
    told = json.loads(Path(run, "finished.json").read_text(encoding="utf-8"))
    for name, entry in told.get("deliverable_files", {}).items():
        path = Path(run, told["deliverable"], name)
        if not path.is_file() or path.stat().st_size != entry["size"] or digest(path) != entry["sha256"]:
            raise ValueError(
                f"{path}: is not as it was written; the run is damaged: take another one with --run RUN-ID "
                "(`mtft-launch history MODEL`), or train it anew with --rerun"
            )


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
