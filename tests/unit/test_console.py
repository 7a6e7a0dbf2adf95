"""The recipe on watching jobs: every command of the page has a test, and what it shows is compared in earnest."""

from __future__ import annotations

import pytest

from tests.cluster.console import PAGE, is_shown, shown

TABLE = "NAME              STATE    ETA\nnight-0a1b2c3d4e  Running  4h46m\n"


def test_a_test_runs_every_command_of_the_page() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    commands = list(shown())
    assert [each.command for each in commands] == [line[2:] for line in lines if line.startswith("$ ")]
    assert {each.test for each in commands} == {"jobs", "push", "push_other", "fetch_other"}


@pytest.mark.parametrize(
    "printed",
    [
        TABLE,
        "NAME                STATE      ETA\nnight-00000b2c3d4e  Running    2s",
        "NAME  STATE  ETA\nnight-ffffffff00  Running  1d2h  ",
    ],
)
def test_numbers_times_hashes_and_widths_may_be_others(printed: str) -> None:
    assert is_shown(TABLE.strip(), printed)


@pytest.mark.parametrize(
    "printed",
    [
        TABLE.replace("STATE", "PHASE"),
        TABLE.replace("Running", "Failed"),
        TABLE.replace("4h46m", "-"),
        TABLE + "one more line\n",
        TABLE.splitlines()[0],
        "",
    ],
)
def test_nothing_else_may(printed: str) -> None:
    assert not is_shown(TABLE.strip(), printed)


@pytest.mark.parametrize(
    ("page", "printed", "same"),
    [
        ("a ... z", "a b c z", True),
        ("a ... z", "a b\nc z", False),
        ("a\n...\nz", "a\nb\nc\nz", True),
        ("a\n...\nz", "a\nz", True),
        ("a\n...\nz", "a\nb", False),
        ("loss -0.5 (+1)", "loss 3 (-2.25)", True),
        ("run 20260102T030405Z-0a1b2c3d", "run 20300102T000000Z-ffffffff", True),
        ("a.b", "axb", False),
    ],
)
def test_dots_stand_for_what_is_cut(page: str, printed: str, same: bool) -> None:
    assert is_shown(page, printed) is same
