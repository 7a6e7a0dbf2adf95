"""The small runs that are disturbed, and what has to be true of one at every moment and at its end."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.corpus import Pair
from mtft import files, journal, promotion, store
from mtft.errors import InputError
from mtft.runs import RunPaths, read_job
from tests.standins.build import cached_standin
from tests.standins.text import generated_pairs, lines_of

MODEL = "opus_mt_en_fr"
JOB = "one"
ROWS = 24
STEPS = 32
EVERY = 4  # steps between two checkpoints
_CONTINUING = re.compile(r"^continuing from (step-\d+) of", re.MULTILINE)


@dataclass(frozen=True)
class Kind:
    """One of the runs.

    Attributes:
        name: of it in the table.
        ranks: its processes.
        log_every: steps between two lines of progress.
    """

    name: str
    ranks: int
    log_every: int = 1


KINDS = (Kind("1 rank", 1), Kind("2 ranks", 2, log_every=3))


def write_config(folder: Path, kind: Kind) -> Path:
    """Write data and configuration of a run into a folder and return the configuration's path."""
    folder.mkdir(parents=True)
    write_data(folder)
    files.write_json(folder / "config.json", document(str(folder), str(base()), kind))
    return folder / "config.json"


def write_data(folder: Path) -> None:
    """Write a few short sentences to learn by heart."""
    pairs = sorted(generated_pairs(400), key=lambda pair: len(pair.source_en) + len(pair.target_fr))[:ROWS]
    for name, some in (("train", pairs), ("dev", pairs[:6]), ("test", pairs[:6])):
        _write_rows(folder / f"{name}.jsonl", some)


def base() -> Path:
    """Return the stand-in that is trained."""
    return cached_standin("marian", lines=lines_of(generated_pairs(400)))


def document(data: str, model: str, kind: Kind, *, steps: int = STEPS) -> dict[str, Any]:
    """Return the configuration of a run whose data and base lie there."""
    train = {"max_steps": steps, "learning_rate": 8e-3, "label_smoothing": 0, "device": "cpu", "batch_size": 4}
    return {
        "model": {"key": MODEL, "path": model},
        "data": {name: f"{data}/{name}.jsonl" for name in ("train", "dev", "test")},
        "train": {**train, "gradient_accumulation": 1},
        # The best weights are taken; patience never ends a run.
        "eval": {
            "beams": 1,
            "every": 1,
            "max_dev_rows": 4,
            "bootstrap_samples": 20,
            "early_stopping": {"metric": "nll", "patience": 1000},
        },
        "checkpoint": {"every_steps": EVERY},
        # A run learns its test by heart, so that it is better.
        "gate": {"max_p": 1, "min_sentences": 1, "max_leaked": 1},
        "tracking": {"log_every_steps": kind.log_every, "tensorboard": kind.ranks > 1},
        # Each kill is a restart, and there are more of them than any pool has.
        "cluster": {"gpus_per_node": 0, "processes_per_node": kind.ranks, "max_restarts": 100_000},
    }


def _write_rows(path: Path, pairs: list[Pair]) -> None:
    rows = [{"source": pair.source_en, "target": pair.target_fr, "source_lang": "en"} for pair in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def arguments(config: Path, root: Path) -> list[str]:
    """Return the arguments of ``python -m trainer``, as a pod gets them."""
    return ["--config", str(config), "--model", MODEL, "--job", JOB, "--root", str(root)]


def paths_of(root: Path, name: str = JOB) -> RunPaths | None:
    """Return the run of a job; None: it has not claimed one yet."""
    job = read_job(root, MODEL, name)
    return RunPaths.at(root, MODEL, job.run_id) if job else None


def last_checkpoint(root: Path) -> str | None:
    """Return the name of the newest complete checkpoint."""
    from trainer.checkpoints import is_complete

    paths = paths_of(root)
    if paths is None:
        return None
    named = sorted(paths.checkpoints.glob("step-*"), key=lambda path: int(path.name[5:]), reverse=True)
    return next((path.name for path in named if is_complete(path)), None)


def continued_from(output: str) -> str | None:
    """Return the checkpoint an attempt says it goes on from."""
    found = _CONTINUING.search(output)
    return found[1] if found else None


def train_lines(text: str) -> list[dict[str, Any]]:
    """Return the logged steps among lines of output or of ``metrics.jsonl``; a line that was cut off is none."""
    return [line for line in _lines(text) if line.get("type") == "train"]


def _lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict):
            yield values


@dataclass(frozen=True)
class Result:
    """What a run made: digests of the deliverable's files, every logged loss and dev NLL with its step, verdict."""

    digests: dict[str, str]
    losses: list[tuple[int, str, float]]
    verdict: str

    @property
    def steps(self) -> list[int]:
        """The logged steps."""
        return [step for step, kind, _ in self.losses if kind == "train"]

    @classmethod
    def of(cls, paths: RunPaths) -> Result:
        """Read what a finished run made."""
        finished = json.loads(paths.finished.read_text())
        deliverable = paths.folder / finished["deliverable"]
        digests = {path.name: files.sha256_file(path) for path in deliverable.iterdir()}
        losses = [
            (line["step"], line["type"], line.get("loss", line["nll"]))
            for line in _lines(paths.metrics.read_text())
            if "nll" in line
        ]
        return cls(digests, losses, finished["gate"]["verdict"])


def half_made(root: Path, job: str = JOB) -> Iterator[str]:
    """Name what no kill may leave where a reader looks: checkpoints, a run or a pointer that are not whole."""
    from trainer.checkpoints import is_complete

    paths = paths_of(root, job)
    if paths is None:
        return
    for checkpoint in paths.checkpoints.glob("step-*"):
        if not is_complete(checkpoint):
            yield f"{checkpoint} is not complete"
    if paths.finished.exists() and not store.is_complete(store.outputs(root, MODEL), paths.run_id, hashed=True):
        yield f"{paths.finished} is there, and the run is not complete"
    try:
        store.current(root, MODEL)
    except InputError as error:
        yield f"the store cannot be read: {error}"


def left_behind(folder: Path) -> Iterator[str]:
    """Name the unfinished files in a model's outputs; those of a lease go with the next change after two minutes."""
    for path in folder.rglob(".*"):
        if not path.name.endswith(".lock") and not path.name.startswith("..store.lease."):
            yield str(path.relative_to(folder))


def faults_at_end(root: Path, expected: Result) -> Iterator[str]:
    """Name what is wrong with a job that says it is finished."""
    paths = paths_of(root)
    if paths is None or not paths.finished.exists():
        yield "the job ended well, but there is no finished.json"
        return
    yield from half_made(root)
    made = Result.of(paths)
    if made.steps != expected.steps:
        yield f"steps in {paths.metrics}: {made.steps}"
    elif made.losses != expected.losses:
        yield f"losses in {paths.metrics} are not those of the unbroken run"
    if made.digests != expected.digests:
        yield f"{sorted(name for name in expected.digests if made.digests.get(name) != expected.digests[name])} differ"
    if made.verdict != expected.verdict:
        yield f"verdict {made.verdict}, not {expected.verdict}"
    folder = store.outputs(root, MODEL)
    promoted = [entry.run for entry in journal.read(folder)]
    wanted = [paths.run_id] if expected.verdict == "promoted" else []
    if promoted != wanted or store.current_id(folder) != (wanted[0] if wanted else None):
        yield f"promotions {promoted}, current {store.current_id(folder)}; the run is {paths.run_id}"
    # Killed once its promotion is numbered, a job has nothing to mend: the next change of the store tidies up.
    with promotion.changing(root, MODEL):
        pass
    if left := sorted(left_behind(folder)):
        yield f"left behind: {left}"
    if [entry.run for entry in journal.read(folder)] != wanted:
        yield f"the next change of the store made its history {journal.read(folder)}"
    if len(list((folder / "runs").iterdir())) != 1:
        yield "the job has more than one run"
