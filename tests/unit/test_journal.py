"""A journal with damaged entries, and one that two write to at once: what each makes of the other's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mtft import journal, store
from mtft.errors import Retry
from mtft.promotion import changing
from tests.unit.runs_on_disk import MODEL, make_run, run_id
from tests.unit.test_store import promote, rollback


def entry_file(root: Path, number: int) -> Path:
    return store.outputs(root, MODEL) / journal.FOLDER / f"{number:06}.json"


def test_a_run_whose_entry_is_damaged_is_where_a_rollback_goes_and_stays(tmp_path: Path) -> None:
    for number in (1, 2, 6):
        make_run(tmp_path, number)
        promote(tmp_path, number)
    entry_file(tmp_path, 2).write_text("{")
    make_run(tmp_path, 7, "not better")
    with changing(tmp_path, MODEL) as held:
        assert list(held.prune(1)) == [run_id(1)]
    assert rollback(tmp_path) == run_id(2)


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 5])
def test_a_rollback_never_goes_to_what_was_rolled_back_though_an_entry_is_damaged(tmp_path: Path, lost: int) -> None:
    for number in (1, 2, 3, 4):
        make_run(tmp_path, number)
    for number in (1, 2, 3):
        promote(tmp_path, number)
    rollback(tmp_path)  # entry 4: from 3 to 2
    promote(tmp_path, 4)
    entry_file(tmp_path, lost).write_text("{")
    assert [rollback(tmp_path), rollback(tmp_path)] == [run_id(2), run_id(1)]


@pytest.mark.parametrize("settling", [False, True])
def test_an_entry_that_another_holder_swept_is_no_promotion_that_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settling: bool
) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, number)
    promote(tmp_path, 1)
    folder = store.outputs(tmp_path, MODEL)
    if settling:
        with changing(tmp_path, MODEL) as held:
            intended = held.promote(run_id(3), who="killed")
        assert intended
        entry_file(tmp_path, 2).rename(folder / journal.FOLDER / ".pending.json")

    def overtaken(source: Path, target: Path, link: Callable[[Path, Path], None] = os.link) -> None:
        if target == entry_file(tmp_path, 2):
            monkeypatch.setattr(os, "link", link)
            (folder / ".store.lease").write_text('{"owner": "elsewhere:1:x", "expires": 1}')  # by a wrong clock
            promote(tmp_path, 2)
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    with pytest.raises(Retry, match="another process changed the store at the same time; run again"):
        promote(tmp_path, 3 if not settling else 1)
    assert [entry.run for entry in journal.read(folder)] == [run_id(1), run_id(3), run_id(2)]
    assert store.current_id(folder) == run_id(2)
