"""Guard sets: sentences of another kind than test, on which a tuned model may not get worse.

Each start of a run reads them anew when it prepares its data; they lie in the run's folder for every rank.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mtft import files, sources
from mtft.config import Config
from mtft.errors import InputError
from mtft.leakage import Leakage, remarks
from mtft.models import ModelCard
from mtft.rows import Rejected, Row, Tally, read_rows
from mtft.runs import RunPaths
from trainer.pairs import GUARD, set_words

_log = logging.getLogger("mtft.data")


def guard_file(paths: RunPaths, name: str) -> Path:
    """Return where the accepted rows of a guard set lie in a run."""
    return paths.folder / "guard_sets" / f"{name}.jsonl"


def prepare_guards(paths: RunPaths, config: Config, card: ModelCard, used: Iterable[str]) -> list[Rejected]:
    """Check every guard set of the configuration, keep its rows in the run, and return the dropped ones.

    Args:
        paths: the run.
        config: names the sets.
        card: rows of languages it does not translate are left out.
        used: the files of data.train, data.dev and data.test.

    Raises:
        InputError: a set cannot be read, has too many bad rows, has none left, or shares a file with other data.
        Retry: it cannot be read at the moment.
    """
    owners = dict.fromkeys(map(sources.real_path, used), "data.train, data.dev or data.test")
    rejected = []
    for name, given in sorted(config.gate.guard_sets.items()):
        field = f"gate.guard_sets.{name}"
        found = sources.expand(sources.as_list(given), field)
        for file in found:
            if (owner := owners.setdefault(sources.real_path(file), field)) != field:
                raise InputError(f"{field}: {file} is used for {owner} too; a guard set needs sentences of its own")
        if note := sources.passed_over_note(sources.passed_over(sources.as_list(given))):
            _log.info("note: %s: %s", field, note)
        rejected += _keep(found, guard_file(paths, name), config, card, field)
    return rejected


def count_leaked(paths: RunPaths, config: Config, train: Iterable[str]) -> None:
    """Count the rows of the prepared guard sets that ``data.train`` shows too, held out of it or not.

    Once a run: its inputs stay what they are from the moment its data is prepared.
    """
    sets = {f"{GUARD}{name}": guard_file(paths, name) for name in sorted(config.gate.guard_sets)}
    if not sets or (paths.prepared.exists() and _counted(paths) is not None):
        return
    leakage = Leakage(list(sets))
    for name, file in sets.items():
        for item in read_rows([str(file)]):
            if isinstance(item, Row):
                leakage.hold(name, item)
    _log.info("comparing training rows with the guard sets")
    for item in read_rows(list(train)):
        if isinstance(item, Row):
            leakage.see(item)
    found = leakage.report()
    for name in sets:
        for _, text in remarks(set_words(name), found[name]["loose"]):
            _log.warning(text)
    files.write_json(_leaked_file(paths), {name: found[name] for name in sets})


def leaked(paths: RunPaths, config: Config) -> dict[str, Any]:
    """Return what ``count_leaked`` found, by the names of the test sets; counts as of :mod:`mtft.leakage`."""
    return dict(files.read_json(_leaked_file(paths))) if config.gate.guard_sets else {}


def _counted(paths: RunPaths) -> dict[str, Any] | None:
    """Return what an earlier start counted; None where there is nothing, or nothing that can be understood."""
    try:
        return dict(files.read_json(_leaked_file(paths)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _leaked_file(paths: RunPaths) -> Path:
    return paths.folder / "guard_sets" / "leakage.json"


def _keep(found: list[str], target: Path, config: Config, card: ModelCard, field: str) -> list[Rejected]:
    # prepared_data needs the data sets library, which the ranks that only look for a file here need not wait for.
    from trainer.prepared_data import raw_line

    source_langs = tuple(source for source, _ in card.directions)
    tally, rejected = Tally(), []
    with files.replacing(target) as beside, beside.open("w", encoding="utf-8", newline="\n") as out:
        for item in read_rows(found):
            if tally.add(item, source_langs) and isinstance(item, Row):
                out.write(raw_line(item))
            elif isinstance(item, Rejected):
                rejected.append(item)
        tally.check(on_bad_row=config.data.on_bad_row, max_bad_fraction=config.data.max_bad_fraction)
        if not tally.accepted:
            raise InputError(tally.nothing_left(f"{field}: no rows", card.key, source_langs, found))
    return rejected
