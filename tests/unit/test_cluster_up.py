"""What `make cluster-up` and `make cluster-down` leave beside the cluster itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import __main__ as by_hand
from tests.cluster.parts import MissingPart


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(by_hand, "CACHE", tmp_path)
    monkeypatch.setattr(by_hand, "end", lambda _: None)
    return tmp_path


def test_a_start_locks_out_another_and_leaves_no_lock(cache: Path) -> None:
    with by_hand._starting():
        with pytest.raises(MissingPart, match="another `make cluster-up` is starting it"), by_hand._starting():
            pytest.fail("two start it at once")
        assert by_hand.main(["down"]) == 0  # leaves the lock to who holds it
        assert list(cache.iterdir())
    assert not list(cache.iterdir())


def test_down_removes_what_a_killed_start_left(cache: Path) -> None:
    (cache / "cluster.starting").touch()
    assert by_hand.main(["down"]) == 0
    assert not list(cache.iterdir())
