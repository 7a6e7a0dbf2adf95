"""A store under several processes, kills and the ways of network volumes. The NFS faults are injected: no NFS here."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mtft import files, journal, store
from mtft.errors import InputError
from mtft.promotion import changing
from tests.unit.runs_on_disk import MODEL, current, make_run, run_id


def promote(root: Path, number: int, who: str = "anna") -> None:
    with changing(root, MODEL) as held:
        held.promote(run_id(number), who=who)


def history(root: Path) -> list[journal.Promotion]:
    return journal.read(store.outputs(root, MODEL))


def in_child(work: Callable[[], object]) -> int:
    """Do something in another process and return its number; it ends with 0, or 1 when the work failed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return child


@pytest.mark.parametrize("links", [True, False])
def test_a_reader_sees_whole_runs_alone_while_two_promote_a_hundred_times(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        make_run(tmp_path, number)
    if not links:
        monkeypatch.setattr(os, "symlink", refuse(errno.EPERM))
    promote(tmp_path, 0)

    def publish(first: int) -> None:
        for turn in range(50):
            promote(tmp_path, first + turn % 2, who=f"publisher {first}")

    monkeypatch.setattr(os, "fsync", lambda _: None)  # the same order of steps, sooner
    publishers = [in_child(lambda: publish(0)), in_child(lambda: publish(2))]
    ended: dict[int, int] = {}
    looks, seen = 0, set()
    while len(ended) < 2:
        found = store.current(tmp_path, MODEL)
        assert found is not None
        seen.add(found.run_id)
        looks += 1
        done, status = os.waitpid(-1, os.WNOHANG)
        if done in publishers:
            ended[done] = status
    assert set(ended.values()) == {0}
    entries = history(tmp_path)
    # Its very first promotion may find its run current already.
    assert 100 <= len(entries) <= 101 and {each.who for each in entries} == {"anna", "publisher 0", "publisher 2"}
    assert [each.previous for each in entries[1:]] == [each.run for each in entries[:-1]]
    assert current(tmp_path) == entries[-1].run
    assert len(seen) == 4 and looks > 100


STEPS = {os: ("replace", "rename", "link", "symlink", "unlink")}


def dying(nth: int, when: str) -> Callable[[], int]:
    """Make this process kill itself at its nth change of a volume, and return what counts them."""
    done = 0

    def wrap(step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done == nth and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return step(*args, **kwargs)
            finally:
                if done == nth:
                    os.kill(os.getpid(), signal.SIGKILL)

        return wrapped

    for module, names in STEPS.items():
        for name in names:
            setattr(module, name, wrap(getattr(module, name)))
    return lambda: done


def steps_of(work: Callable[[], object]) -> int:
    """Return how many changes of a volume some work makes."""
    reader, writer = os.pipe()

    def count() -> None:
        counted = dying(0, "never")
        work()
        os.write(writer, str(counted()).encode())

    _, status = os.waitpid(in_child(count), 0)
    assert status == 0
    return int(os.read(reader, 100))


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_killed_at_any_step_leaves_old_or_new_and_the_next_one_works(
    tmp_path: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the same order of steps, sooner

    def fresh(name: str) -> Path:
        root = tmp_path / name
        for number in (1, 2, 3):
            make_run(root, number)
        promote(root, 1)
        promote(root, 2)
        return root

    def work(root: Path) -> None:
        with changing(root, MODEL) as held:
            if action == "promote":
                held.promote(run_id(3), who="anna", reason="the one that is killed")
            else:
                held.rollback(who="anna", reason="the one that is killed")

    def die_at(place: tuple[int, str], root: Path) -> None:
        dying(*place)
        work(root)

    target = run_id(3 if action == "promote" else 1)
    counted = fresh("count")
    steps = steps_of(lambda: work(counted))
    assert steps >= 8
    before, after = 0, 0
    for place in [(nth, when) for nth in range(1, steps + 1) for when in ("before", "after")]:
        root = fresh(f"{place[0]}-{place[1]}")
        _, status = os.waitpid(in_child(lambda at=place, root=root: die_at(at, root)), 0)  # type: ignore[misc]
        assert os.WTERMSIG(status) == signal.SIGKILL, (place, steps)
        assert store.current(root, MODEL) is not None
        kept = current(root)
        assert kept in (run_id(2), target)
        before, after = before + (kept == run_id(2)), after + (kept == target)
        make_run(root, 4)
        promote(root, 4)  # takes over what the killed one held, at once: its process is gone
        expected = [run_id(1), run_id(2), *([target] if kept == target else []), run_id(4)]
        assert [each.run for each in history(root)] == expected, place
        assert [each.reason for each in history(root)][2:-1] == (["the one that is killed"] if kept == target else [])
        left = {path.name for path in store.outputs(root, MODEL).rglob(".*")}
        assert not {name for name in left if not name.startswith("..store.lease")}, place
    assert before and after


def refuse(code: int) -> Callable[..., NoReturn]:
    def refused(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return refused


def test_a_volume_without_symlinks_or_hard_links_has_a_file_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, number)
    folder = store.outputs(tmp_path, MODEL)
    promote(tmp_path, 1)
    with monkeypatch.context() as without:
        without.setattr(os, "symlink", refuse(errno.EPERM))
        without.setattr(os, "link", refuse(errno.ENOTSUP))
        promote(tmp_path, 2)
        assert store.find(tmp_path, MODEL).run_id == run_id(2)
        assert (folder / "current.json").exists() and not (folder / "current").is_symlink()
    promote(tmp_path, 3)  # the volume was moved to one that has them
    assert store.find(tmp_path, MODEL).run_id == run_id(3)
    assert not (folder / "current.json").exists() and len(history(tmp_path)) == 3


def test_a_folder_in_the_place_of_the_link_is_left_alone(tmp_path: Path) -> None:
    make_run(tmp_path, 1)
    folder = store.outputs(tmp_path, MODEL) / "current"
    folder.mkdir()  # as a copy leaves it that follows links
    for look in (lambda: promote(tmp_path, 1), lambda: store.find(tmp_path, MODEL)):
        with pytest.raises(InputError, match="current: is no link"):
            look()
    assert folder.is_dir()


def test_stale_handles_and_repeated_answers_of_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ESTALE once on every first read and rename; each rename and link is carried out, then answered with an error."""
    for number in (1, 2):
        make_run(tmp_path, number)
    promote(tmp_path, 1)
    faults: list[str] = []

    def stale_once(step: Callable[..., Any], name: str) -> Callable[..., Any]:
        seen: set[str] = set()

        def stale(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path) not in seen:
                seen.add(str(path))
                faults.append(name)
                raise OSError(errno.ESTALE, "Stale file handle", str(path))
            return step(path, *args, **kwargs)

        return stale

    def repeated_rename(source: Any, target: Any, rename: Callable[..., Any] = os.replace) -> None:
        rename(source, target)
        if Path(target).name == "current":
            faults.append("rename")
            rename(source, target)

    def repeated_link(source: Any, target: Any, link: Callable[..., Any] = os.link) -> None:
        link(source, target)
        faults.append("link")
        link(source, target)

    monkeypatch.setattr(files, "_STALE_PAUSE", 0.001)
    monkeypatch.setattr(os, "readlink", stale_once(os.readlink, "readlink"))
    monkeypatch.setattr(Path, "read_text", stale_once(Path.read_text, "read"))
    monkeypatch.setattr(os, "replace", repeated_rename)
    monkeypatch.setattr(os, "link", repeated_link)
    promote(tmp_path, 2)
    assert store.find(tmp_path, MODEL).run_id == run_id(2) == history(tmp_path)[-1].run
    assert len(history(tmp_path)) == 2
    assert {"readlink", "read", "rename", "link"} <= set(faults)


@pytest.mark.parametrize("name", ["000002.json", ".pending.json"])
def test_a_journal_that_cannot_be_read_is_not_taken_for_a_shorter_one(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
        promote(tmp_path, number)
    before = history(tmp_path)
    (store.outputs(tmp_path, MODEL) / "promotions" / ".pending.json").write_text("{}")

    def broken(path: Path, *args: Any, read: Callable[..., str] = Path.read_text, **kwargs: Any) -> str:
        if path.name == name:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path, *args, **kwargs)

    with monkeypatch.context() as faulty:
        faulty.setattr(Path, "read_text", broken)
        with pytest.raises(OSError, match="Input/output error"):
            promote(tmp_path, 1)
    assert history(tmp_path) == before and current(tmp_path) == run_id(2)


def test_a_pointer_that_cannot_be_read_is_not_called_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path, 1)
    promote(tmp_path, 1)

    def broken(*_: Any) -> str:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as faulty:
        faulty.setattr(os, "readlink", broken)
        for look in (lambda: promote(tmp_path, 1), lambda: store.find(tmp_path, MODEL)):
            with pytest.raises(OSError, match="Input/output error"):
                look()
    assert current(tmp_path) == run_id(1) and len(history(tmp_path)) == 1


def test_a_change_is_done_though_its_lease_or_what_it_removed_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        make_run(tmp_path, number)
    promote(tmp_path, 1)

    def unlink(path: Path, *args: Any, step: Callable[..., Any] = Path.unlink, **kwargs: Any) -> None:
        if path.name == ".store.lease":
            raise OSError(errno.EIO, "Input/output error", str(path))
        step(path, *args, **kwargs)

    def sync(folder: Path, step: Callable[[Path], None] = files.sync_folder) -> None:
        if folder == store.outputs(tmp_path, MODEL) and current(tmp_path) == run_id(2):
            raise OSError(errno.EIO, "Input/output error", str(folder))
        step(folder)

    def glob(path: Path, pattern: str, *args: Any, step: Callable[..., Any] = Path.glob, **kwargs: Any) -> Any:
        if pattern.endswith(".gone"):
            raise OSError(errno.EIO, "Input/output error", str(path))
        return step(path, pattern, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(Path, "glob", glob)
    monkeypatch.setattr(files, "sync_folder", sync)
    promote(tmp_path, 2)
    assert current(tmp_path) == run_id(2) and len(history(tmp_path)) == 2


def test_a_slow_volume_keeps_two_publishers_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        make_run(tmp_path, number)
    promote(tmp_path, 0)

    def slow(step: Callable[..., Any]) -> Callable[..., Any]:
        def late(*args: Any, **kwargs: Any) -> Any:
            time.sleep(0.02)
            return step(*args, **kwargs)

        return late

    for name in ("replace", "link", "symlink", "unlink", "rename"):
        monkeypatch.setattr(os, name, slow(getattr(os, name)))
    children = [in_child(lambda number=number: promote(tmp_path, number)) for number in (1, 2)]  # type: ignore[misc]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    entries = history(tmp_path)
    assert {each.run for each in entries[1:]} == {run_id(1), run_id(2)}
    assert current(tmp_path) == entries[-1].run and entries[2].previous == entries[1].run
