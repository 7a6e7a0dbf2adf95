"""A lease among holders that are slow, gone, or have a wrong clock."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from mtft import lease, store
from mtft.errors import Retry
from mtft.promotion import changing
from tests.unit.runs_on_disk import MODEL, make_run, run_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.lease"


def write(path: Path, expires: float, owner: str = "far:1:x") -> None:
    path.write_text(json.dumps({"owner": owner, "expires": expires}))


class Beats(threading.Event):
    """The end of a holder's work, after some renewals; notes how long each is waited for."""

    def __init__(self, renewals: int) -> None:
        super().__init__()
        self.renewals = renewals
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        return len(self.waits) > self.renewals


def test_one_that_nobody_renews_is_over_whatever_expiry_it_names(path: Path) -> None:
    write(path, 9e9)
    waited = [0.0]

    def pause(seconds: float) -> None:
        waited[0] += seconds

    with lease.hold(path, patience=900, elapsed=lambda: waited[0], pause=pause) as held:
        assert lease.read(path)[0] == held.owner
    assert waited == [lease.LEASE_SECONDS] and not path.exists()


def test_one_that_is_renewed_is_waited_for_however_wrong_its_clock(path: Path) -> None:
    write(path, 9e9)
    waited = [0.0]

    def pause(seconds: float) -> None:
        waited[0] += seconds
        if waited[0] % (lease.LEASE_SECONDS - 1) == 0:
            write(path, 9e9 + waited[0])

    watched = lease.hold(path, patience=900, elapsed=lambda: waited[0], pause=pause)
    with pytest.raises(Retry, match="held by far:1:x"), watched:
        pass
    assert waited == [900]


@pytest.mark.parametrize(("age", "removed"), [(0, []), (lease.LEASE_SECONDS + 1, [run_id(1)])])
def test_who_does_not_wait_believes_the_age_of_one_from_a_clock_that_was_ahead(
    tmp_path: Path, age: float, removed: list[str]
) -> None:
    paths = [make_run(tmp_path, number, "better") for number in (1, 2)]
    used = paths[0].folder / ".use.0a1b.lease"
    write(used, 9e9)
    os.utime(used, (time.time() - age,) * 2)
    with changing(tmp_path, MODEL) as held:
        assert list(held.prune(1)) == removed
    assert store.finished_ids(store.outputs(tmp_path, MODEL)) == sorted({run_id(1), run_id(2)} - {*removed})


def test_a_holder_renews_several_times_before_it_would_expire(path: Path) -> None:
    held, clock = lease.Held(path, "me:1:x"), [1000.0]
    write(path, 0, held.owner)
    beats = Beats(renewals=3)
    lease._renew(held, lambda: clock[0] + sum(beats.waits), beats)
    assert max(beats.waits) <= lease.LEASE_SECONDS / 3
    assert lease.read(path) == (held.owner, 1000 + sum(beats.waits[:3]) + lease.LEASE_SECONDS)


def test_a_holder_that_lost_it_does_not_write_it_again(path: Path) -> None:
    write(path, 1234, "another:2:y")
    beats = Beats(renewals=3)
    lease._renew(lease.Held(path, "me:1:x"), time.time, beats)
    assert lease.read(path) == ("another:2:y", 1234)
    assert len(beats.waits) == 1, "nothing is left to renew"


def test_a_younger_one_that_was_moved_away_is_put_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, 1)

    def overtaken(moved: Path, aside: Path) -> Path:
        write(moved, time.time() + lease.LEASE_SECONDS, "quicker:2:y")
        return moved.replace(aside)

    monkeypatch.setattr(Path, "rename", overtaken)
    with pytest.raises(Retry, match="held by quicker:2:y"), lease.hold(path, patience=0):
        pass
    assert lease.read(path)[0] == "quicker:2:y" and [each.name for each in path.parent.iterdir()] == [path.name]


def test_whom_a_wait_is_for_is_said_once_it_is_more_than_a_moment(path: Path) -> None:
    path.write_text(json.dumps({"owner": "far/4026531836:17:x", "expires": 9e9}))
    said: list[str] = []
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 8:
            path.write_text(json.dumps({"owner": "near:18:y", "expires": 9e9}))
        if len(waits) <= 4:
            assert said == [], "a change takes well under a second"

    with pytest.raises(Retry), lease.hold(path, patience=9, pause=pause, poll=0.5, say=said.append):
        pass
    assert said == [
        f"waiting for process {who}, which holds {path}; 9 s at most" for who in ("17 on far", "18 on near")
    ]


def test_waiting_writes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(json.dumps({"owner": "far:1:x", "expires": 9e9}))
    written: list[object] = []
    monkeypatch.setattr(lease, "_put", lambda *put: written.append(put))
    with pytest.raises(Retry, match="held by far:1:x"), lease.hold(path, patience=3, pause=lambda _: None):
        pass
    assert written == []


def test_a_lease_that_is_away_for_a_moment_is_still_held(path: Path) -> None:
    with lease.hold(path) as held:
        aside = path.rename(path.with_name("aside"))  # by another, to see whether it expired
        back = threading.Timer(0.1, aside.rename, [path])
        back.start()
        held.check()
        back.join()


def test_it_is_waited_for_until_released(path: Path) -> None:
    waits: list[int] = []
    path.write_text('{"owner": "other", "expires": 1000}')

    def pause(_: float) -> None:
        waits.append(1)
        if len(waits) == 3:
            path.unlink()

    with lease.hold(path, now=lambda: 900.0, pause=pause):
        assert json.loads(path.read_text())["expires"] == 900 + lease.LEASE_SECONDS
    assert len(waits) == 3
    assert not path.exists()


@pytest.mark.parametrize("content", ['{"owner": "dead", "expires": 899}', "", '{"owner'])
def test_an_expired_one_is_taken_over(path: Path, content: str) -> None:
    path.write_text(content)
    os.utime(path, (100, 100))
    with lease.hold(path, now=lambda: 900.0, pause=lambda _: pytest.fail("waited")):
        assert json.loads(path.read_text())["owner"] != "dead"


def test_one_being_written_is_respected(path: Path) -> None:
    path.write_text("")
    os.utime(path, (899, 899))

    class WaitedError(Exception):
        pass

    def pause(_: float) -> None:
        raise WaitedError

    with pytest.raises(WaitedError), lease.hold(path, now=lambda: 900.0, pause=pause):
        pass


def test_one_lost_to_another_is_not_removed(path: Path) -> None:
    with lease.hold(path):
        path.write_text('{"owner": "other", "expires": 1000}')
    assert path.exists()
