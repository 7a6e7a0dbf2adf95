"""Fixtures of the trainer core's tests; built once in a session.

torch and transformers are loaded in the fixtures: pytest-xdist's first process, which runs no test, reads this file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from demo.corpus import Pair
from mtft.models import MODELS
from tests.trainer.supervising import Bench, Start, StartAs

if TYPE_CHECKING:
    from tests.trainer.helpers import Practised


@pytest.fixture(params=sorted({card.family for card in MODELS.values()}))
def family(request: pytest.FixtureRequest) -> str:
    """Each model family in turn."""
    return str(request.param)


@pytest.fixture(autouse=True, scope="session")
def quiet_libraries() -> Iterator[None]:
    """Silence what the session silences in a run."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    yield


@pytest.fixture(scope="session")
def short_text(parallel_text: list[Pair]) -> list[Pair]:
    """The thirty-two shortest sentence pairs."""
    return sorted(parallel_text, key=lambda pair: len(pair.source_en) + len(pair.target_fr))[:32]


@pytest.fixture(scope="session")
def practised(
    standins: Callable[[str], Path], short_text: list[Pair], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Practised]:
    """Give a family's stand-in after full fine-tuning on twelve pairs, which it then translates."""
    from tests.trainer import helpers

    done: dict[str, Practised] = {}

    def practise(family: str) -> Practised:
        if family not in done:
            folder = tmp_path_factory.mktemp("practised") / family
            shutil.copytree(standins(family), folder)
            done[family] = helpers.practise(helpers.KEYS[family], folder, short_text[:12])
        return done[family]

    return practise


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path, forked=True)
    made.configure(cluster={"processes_per_node": 1})
    return made


@pytest.fixture
def executed(bench: Bench) -> Bench:
    """The same, started as in a pod: a rank that is a fork may be ready before its torchrun can pass on a signal."""
    bench.forked = False
    return bench


@pytest.fixture
def start_as(bench: Bench, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> StartAs:
    """Start the job in this process: without the break, and without ranks, as they are not met."""
    from mtft.runs import RunPaths
    from tests.trainer import workers
    from tests.trainer.supervising import MODEL, WORKERS
    from trainer import supervisor
    from trainer.outcome import Outcome

    def work(_: supervisor.Supervisor, paths: RunPaths, __: int) -> Outcome:
        workers.leave(paths)
        return Outcome(0, "finished", paths)

    for name in ("adopt_orphans", "end_with_parent"):
        monkeypatch.setattr(supervisor, name, lambda *_: None)
    monkeypatch.setattr(supervisor, "_BREAK_SECONDS", 0)
    monkeypatch.setattr(supervisor.Supervisor, "_work", work)
    modules = {"preparation_module": WORKERS, "worker_module": WORKERS}
    config = bench.root / "job.yaml"

    def start(attended: bool) -> tuple[int, str]:
        code = supervisor.supervise(
            supervisor.Request(config=config, model=MODEL, job="job", root=None, attended=attended, **modules)
        )
        return code, capfdbinary.readouterr().out.decode()

    return start


@pytest.fixture
def start(start_as: StartAs) -> Start:
    """Start the job as a cluster does."""
    return lambda: start_as(False)


@pytest.fixture
def attended(start_as: StartAs) -> Start:
    """Start the job as a person does."""
    return lambda: start_as(True)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """200 documents of 5 pairs in both directions: 2,000 rows."""
    from tests.trainer.preparing import pair, write

    return write(tmp_path / "train.jsonl", [pair(n, lang) for n in range(1000) for lang in ("en", "fr")])
