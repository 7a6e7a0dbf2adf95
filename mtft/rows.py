r"""Read JSON Lines of sentence pairs: every line becomes a `Row` or a `Rejected`, never a crash, never other text.

A row is one JSON object on one line: ``source``, ``target``, ``source_lang`` ("en" or "fr") and, optionally,
``pub_number``. Decided here, where JSON Lines leaves it open:

- Lines end at ``\n`` only: U+2028 inside a string is text. CRLF, a leading byte order mark and a last line without
  ``\n`` are read; lines without anything but white space are no rows.
- Text is kept as it is: no strip, no normalisation. Tab, line feed and carriage return (escaped) are text; every
  other character below U+0020, and U+007F, makes the row bad.
- Other fields are ignored, whatever they hold, and their names are counted; NaN and Infinity are no JSON anywhere.
- A side of white space and zero-width characters alone (U+200B, U+2060, U+FEFF) is blank.
- A ``pub_number`` that is null or blank counts as absent.
- A line of more than `sources.MAX_LINE_BYTES` bytes is bad and is never held in memory.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

from mtft.errors import InputError
from mtft.sources import MAX_LINE_BYTES, BrokenStreamError, expand, read_lines
from mtft.text import printable

LANGUAGES = ("en", "fr")
FIELDS = frozenset({"source", "target", "source_lang", "pub_number"})
EMPTY_SIDE = "empty_side"
BROKEN_FILE = "broken_file"
EMPTY_FILE = "empty_file"
EXCERPT_CHARACTERS = 120
SHOWN = 5

_BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(r"[\s\u200b\u2060\ufeff]*\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Row:
    """One sentence pair and where it stands; ``line`` counts from 1."""

    source: str
    target: str
    source_lang: str
    pub_number: str | None
    file: str
    line: int

    @property
    def target_lang(self) -> str:
        """The other of the two languages."""
        return "fr" if self.source_lang == "en" else "en"


@dataclass(frozen=True, slots=True)
class Rejected:
    """One line that gives no row.

    Attributes:
        file: the file as the user named it.
        line: line number, from 1.
        reason: a stable code, a colon, and words.
        excerpt: the beginning of the line, printable, at most 120 characters.
    """

    file: str
    line: int
    reason: str
    excerpt: str

    @property
    def code(self) -> str:
        """The stable part of the reason."""
        return self.reason.partition(":")[0]

    @property
    def whole_file(self) -> bool:
        """Whether a file is broken or empty: how many rows are lost is not known."""
        return self.code in (BROKEN_FILE, EMPTY_FILE)

    @property
    def empty(self) -> bool:
        """Whether a side is empty or blank: dropped and counted, but not a bad row."""
        return self.code == EMPTY_SIDE

    def as_dict(self) -> dict[str, str | int]:
        """Return what ``rejected.jsonl`` and ``data check`` show."""
        return {"file": self.file, "line": self.line, "reason": self.reason, "excerpt": self.excerpt}


class _BadRowError(Exception):
    """Carries the reason of a rejection."""


def read_rows(paths: Sequence[Path | str], *, extra_fields: Counter[str] | None = None) -> Iterator[Row | Rejected]:
    """Stream the rows of files and folders in order; the names of ignored fields are counted in ``extra_fields``.

    Raises:
        InputError: a path is missing or unreadable (all are looked at before the first row is read).
    """
    files = expand(paths)
    return (item for file in files for item, _ in read_file(file, extra_fields))


def read_file(file: str, extra_fields: Counter[str] | None = None) -> Iterator[tuple[Row | Rejected, bytes]]:
    """Stream the rows of one file, each with its line as stored; a file without any row gives one `Rejected`."""
    found, number = False, 0
    try:
        for number, line in enumerate(read_lines(file), 1):
            raw = line.removeprefix(_BOM) if number == 1 else line
            if raw and not raw.isspace():
                found = True
                yield parse_row(raw, file, number, extra_fields), raw
    except BrokenStreamError as broken:
        reason = f"{BROKEN_FILE}: {broken}; nothing after this line can be read, and rows before it may be damaged"
        yield Rejected(file, number + 1, reason, excerpt(broken.rest)), broken.rest
        return
    if not found:
        yield Rejected(file, 1, f"{EMPTY_FILE}: there is no row in this file", ""), b""


def parse_row(line: bytes, file: str, number: int, extra_fields: Counter[str] | None = None) -> Row | Rejected:
    """Read one line, without its line feed."""
    try:
        record = _parse(line)
        source = _text(record, "source")
        target = _text(record, "target")
        source_lang = _text(record, "source_lang")
        pub_number = _text(record, "pub_number") if record.get("pub_number") is not None else None
        if source_lang not in LANGUAGES:
            raise _BadRowError(f"unknown_language: source_lang is {source_lang[:20]!r}; allowed: en, fr")
        # Only an escape can bring these characters past the JSON parser, but for U+007F.
        if b"\\" in line or b"\x7f" in line:
            _check_characters(source=source, target=target, pub_number=pub_number or "")
        for name, text in (("source", source), ("target", target)):
            if _BLANK.match(text):
                raise _BadRowError(f"{EMPTY_SIDE}: {name} is {'blank' if text else 'empty'}")
    except _BadRowError as bad:
        return Rejected(file, number, str(bad), excerpt(line))
    if extra_fields is not None and not record.keys() <= FIELDS:
        extra_fields.update(printable(name)[:40] for name in record.keys() - FIELDS)
    if pub_number is not None and (not pub_number or pub_number.isspace()):
        pub_number = None
    return Row(source, target, source_lang, pub_number, file, number)


def excerpt(line: bytes) -> str:
    """Show the beginning of a line: at most 120 characters, what is not printable escaped."""
    # A character has at most 4 bytes.
    text = printable(line[: 4 * EXCERPT_CHARACTERS + 4].decode("utf-8", "backslashreplace"))
    return text if len(text) <= EXCERPT_CHARACTERS else text[: EXCERPT_CHARACTERS - 1] + "…"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise _BadRowError(f"duplicate_key: {printable(twice)[:40]!r} is given more than once")
    return record


def _not_json(constant: str) -> NoReturn:
    raise _BadRowError(f"bad_json: {constant} is not JSON")


# No field is a number: their value is not needed, and a huge one is not worth converting.
_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_json, parse_int=len, parse_float=len).decode


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _BadRowError(f"too_long: the line has more than {MAX_LINE_BYTES:,} bytes")
    try:
        record = _decode(line.decode())
    except UnicodeDecodeError as error:
        raise _BadRowError(f"not_utf8: byte {error.start + 1} of the line ({error.reason})") from None
    except json.JSONDecodeError as error:
        code = "control_character" if error.msg.startswith("Invalid control character") else "bad_json"
        raise _BadRowError(f"{code}: {error.msg} (column {error.colno})") from None
    except RecursionError:
        raise _BadRowError("bad_json: nested too deeply") from None
    if not isinstance(record, dict):
        raise _BadRowError("not_an_object: a row is a JSON object with source, target and source_lang")
    return record


def _text(record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if isinstance(value, str):
        return value
    if name not in record:
        raise _BadRowError(f"missing_field: there is no {name!r}")
    kinds = {dict: "an object", list: "a list", bool: "true or false", int: "a number", type(None): "null"}
    raise _BadRowError(f"not_a_string: {name} is {kinds[type(value)]}")


def _check_characters(**texts: str) -> None:
    for name, text in texts.items():
        if found := _CONTROL.search(text):
            raise _BadRowError(f"control_character: U+{ord(found.group()):04X} in {name}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _BadRowError(
                f"lone_surrogate: U+{ord(text[error.start]):04X} in {name} is half a character"
            ) from None


@dataclass(slots=True)
class Tally:
    """Counts of what was read, and the first bad rows; every line is in exactly one of the last four counts."""

    rows: int = 0
    accepted: int = 0
    wrong_direction: int = 0
    dropped_empty: int = 0
    bad: int = 0
    whole_files: list[Rejected] = field(default_factory=list)
    first_bad: list[Rejected] = field(default_factory=list)

    def add(self, item: Row | Rejected, source_langs: Iterable[str] = LANGUAGES) -> bool:
        """Count one item; True when it is a row whose source language is wanted."""
        self.rows += 1
        if isinstance(item, Row):
            wanted = item.source_lang in source_langs
            self.accepted += wanted
            self.wrong_direction += not wanted
            return wanted
        if item.empty:
            self.dropped_empty += 1
        else:
            self.bad += 1
            if item.whole_file:
                self.whole_files.append(item)
            if len(self.first_bad) < SHOWN:
                self.first_bad.append(item)
        return False

    def as_dict(self) -> dict[str, int]:
        """Return the counts."""
        return {
            "rows": self.rows,
            "accepted": self.accepted,
            "wrong_direction": self.wrong_direction,
            "dropped_empty": self.dropped_empty,
            "bad": self.bad,
        }

    def check(self, *, on_bad_row: Literal["fail", "skip"], max_bad_fraction: float) -> None:
        """Refuse data of which too many rows are bad; with ``skip`` any number of them is dropped.

        An empty file is never within the fraction. A broken one is refused with ``skip`` too: its checksum does not
        fit, so rows that look good may hold another text than was written.

        Raises:
            InputError: a file is broken, or on_bad_row is ``fail`` and more than this fraction of all rows is bad;
                names the first five.
        """
        broken = any(each.code == BROKEN_FILE for each in self.whole_files)
        too_many = bool(self.whole_files) or self.bad > max_bad_fraction * self.rows
        if not (broken if on_bad_row == "skip" else too_many):
            return
        repair = "Repair the file, or drop bad rows with: --set data.on_bad_row=skip"
        if broken:
            repair = "Compress the file again from the original; no setting makes up for damaged rows."
        if self.whole_files:
            share = f"{len(self.whole_files)} of them whole files, of which nobody knows how much is lost"
        else:
            share = f"{self.bad / self.rows:.2%}; data.max_bad_fraction allows {max_bad_fraction:.2%}"
        shown = dict.fromkeys([*self.whole_files, *self.first_bad])
        raise InputError(
            "\n".join(
                [
                    f"{self.bad:,} of {self.rows:,} rows are bad ({share}). The first of them:",
                    *(f"  {bad.file}:{bad.line}: {bad.reason}: {bad.excerpt}" for bad in list(shown)[:SHOWN]),
                    _see_all(next(iter(shown)).file),
                    repair,
                ]
            )
        )

    def nothing_left(self, what: str, model: str, source_langs: Iterable[str], files: Sequence[str]) -> str:
        """Say why there is nothing left of ``what``."""
        return (
            f"{what}: of {self.rows:,} rows {self.wrong_direction:,} have another source_lang than "
            f"{' or '.join(source_langs)} (what {model} translates), {self.dropped_empty:,} have an empty side and "
            f"{self.bad:,} are bad; files: {', '.join(files[:3])}"
        )


def _see_all(file: str) -> str:
    """Say how a person sees every bad row of a file, who cannot reach what only a pod has mounted."""
    from mtft.cluster_config import POD_NAME

    if os.environ.get(POD_NAME) and "://" not in file:
        return (
            f"{file} is a path of the job's volume. See all of them where the file came from, with: "
            f"mtft-launch data check {PurePosixPath(file).name}"
        )
    return f"See all of them with: mtft-launch data check {file}"
