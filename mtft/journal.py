"""The journal of a store: one small file for each promotion and rollback, written once and never changed.

Before the pointer moves, ``.pending.json`` says what is about to happen; after it, that gets the next number. So a
process killed between the two leaves nothing unexplained: :func:`settle` compares it with the pointer.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mtft import files
from mtft.errors import InputError
from mtft.runs import check_run_id

FOLDER = "promotions"
_PENDING = ".pending.json"
_NUMBERED = re.compile(r"(\d{6,})\.json")
_ACTIONS = ("promote", "rollback", "found")
_LONGEST_TEXT = 500  # characters


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One change of what is current.

    Attributes:
        at: when, UTC.
        action: ``promote``, ``rollback``, or ``found``: somebody moved the pointer by hand.
        previous: run-id that was current, of a rollback also one whose pointer was lost; None: nothing was.
        run: run-id that is current from then on.
        verdict: the gate's of that run.
        forced: promoted although the verdict spoke against it.
        who: person or job.
        reason: in their words.
        number: place in the journal, from 1; 0 while it is pending.
    """

    at: str
    action: str
    previous: str | None
    run: str
    verdict: str | None = None
    forced: bool = False
    who: str = ""
    reason: str = ""
    number: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no place in a journal.

        Raises:
            InputError: a run-id that could be a path, text that is not one line, or an unknown action.
        """
        check_run_id(self.run)
        if self.previous is not None:
            check_run_id(self.previous)
        if self.action not in _ACTIONS:
            raise InputError(f"{self.action!r} is no action of a journal; allowed: {', '.join(_ACTIONS)}")
        for name in ("at", "who", "reason"):
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > _LONGEST_TEXT or (text and not text.isprintable()):
                raise InputError(f"{name}: {text!r} is not one line of at most {_LONGEST_TEXT} printable characters")


def read(folder: Path) -> list[Promotion]:
    """Return every promotion of a model, oldest first; files that cannot be understood are passed over.

    Args:
        folder: of the model's outputs.

    Raises:
        InputError: its folder is a link, so that entries would be written elsewhere.
        OSError: the volume does not answer: a journal with an entry missing would be believed.
    """
    return look(folder)[0]


def look(folder: Path) -> tuple[list[Promotion], list[str]]:
    """Return every promotion of a model, oldest first, and of each damaged entry which file it is and what is wrong.

    Raises:
        InputError: its folder is a link, so that entries would be written elsewhere.
        OSError: the volume does not answer: a journal with an entry missing would be believed.
    """
    refuse_link(folder)
    try:
        paths = files.steadily(lambda: list((folder / FOLDER).iterdir()))
    except FileNotFoundError:
        return [], []
    found, damaged = [], []
    for path in sorted(paths):
        if match := _NUMBERED.fullmatch(path.name):
            try:
                found.append(replace(_read(path), number=int(match[1])))
            except InputError as error:
                damaged.append(str(error))
    return sorted(found, key=lambda entry: entry.number), damaged


def refuse_link(folder: Path) -> None:
    """Refuse a journal that lies elsewhere.

    Raises:
        InputError: its folder is a link.
    """
    if (folder / FOLDER).is_symlink():
        raise InputError(f"{folder / FOLDER}: is a link, which may lead out of the store; put the folder itself there")


def intend(folder: Path, entry: Promotion, entries: list[Promotion]) -> None:
    """Write down what is about to happen, after what happened and has no number yet.

    Raises:
        OSError: the volume takes no entry.
    """
    if entries and not entries[-1].number:
        entries[-1] = _append(folder, entries[-1], entries[:-1])
    files.write_text(folder / FOLDER / _PENDING, _text(entry))


def settle(folder: Path, current: str | None) -> list[Promotion]:
    """Make the journal agree with the pointer and return it; only the holder of the store's lease does so.

    What was about to happen gets its number where it did happen, and is forgotten where it did not.

    Raises:
        InputError: the journal's folder is a link.
        OSError: the volume does not answer.
    """
    entries, pending = read(folder), folder / FOLDER / _PENDING
    intended: Promotion | None = None
    try:
        intended = _read(pending)
    except FileNotFoundError:
        return entries
    except InputError:
        pass  # a pointer that moved is found all the same
    if intended and intended.run == current and (not entries or replace(entries[-1], number=0) != intended):
        try:
            entries.append(_append(folder, intended, entries))
        except FileNotFoundError:  # swept by another holder, who settles it too
            raise
        except OSError:
            return [*entries, intended]  # it happened, and gets its number when there is room
    pending.unlink(missing_ok=True)
    return entries


def add(folder: Path, entry: Promotion, entries: list[Promotion]) -> Promotion:
    """Give an entry its number after those that are there, and forget that it was pending."""
    numbered = _append(folder, entry, entries)
    with contextlib.suppress(OSError):  # the next change finds it numbered
        (folder / FOLDER / _PENDING).unlink(missing_ok=True)
    return numbered


def was_current(entries: list[Promotion], run_id: str) -> bool:
    """Tell whether a run was ever promoted, whatever became of it since."""
    return any(run_id in (entry.run, entry.previous) for entry in entries)


def last_run(entries: list[Promotion]) -> str | None:
    """Return the run that was made current last; None: none ever was."""
    return entries[-1].run if entries else None


def line_of_runs(entries: list[Promotion]) -> list[str]:
    """Return the runs that one rollback after another would go through, the current one last.

    A rollback takes back what came after its target, so another one goes further back. What an entry says was current
    before it is believed where the entry that made it so is damaged.
    """
    line: list[str] = []
    for entry in entries:
        if entry.previous is not None:
            _make_last(line, entry.previous, back=True)
        _make_last(line, entry.run, back=entry.action == "rollback")
    return line


def _make_last(line: list[str], run_id: str, *, back: bool) -> None:
    """Put a run at the end of the line; ``back``: by taking back what came after it, where it is in the line."""
    if back and run_id in line:
        while line[-1] != run_id:
            line.pop()
    elif line[-1:] != [run_id]:
        line.append(run_id)


def _append(folder: Path, entry: Promotion, entries: list[Promotion]) -> Promotion:
    number = entries[-1].number if entries else 0
    beside = folder / FOLDER / f".{secrets.token_hex(8)}.tmp"
    try:
        files.write_text(beside, _text(entry))
        while True:
            number += 1
            # A damaged file keeps its number, and so does the entry of a holder that overslept its lease.
            if files.link_new(beside, folder / FOLDER / f"{number:06}.json"):
                return replace(entry, number=number)
    finally:
        beside.unlink(missing_ok=True)


def _text(entry: Promotion) -> str:
    values = asdict(entry)
    del values["number"]
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def _read(path: Path) -> Promotion:
    """Return the entry of a file.

    Raises:
        InputError: it cannot be understood.
        OSError: the volume does not answer.
    """
    try:
        values: dict[str, Any] = dict(json.loads(files.read_steadily(path)))
        known = {field.name for field in fields(Promotion)} - {"number"}
        return Promotion(**{name: value for name, value in values.items() if name in known})
    except IsADirectoryError:
        raise InputError(f"{path}: is no entry of a journal: it is a folder") from None
    except (ValueError, TypeError, InputError) as error:
        raise InputError(f"{path}: is no entry of a journal: {error}") from None
