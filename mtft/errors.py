"""Errors a person can act on, each with the exit code it leads to.

MtftError
 +-- InputError            2: bad config, data or environment; fix it and run again
 |    +-- ConfigError      2: every problem of a configuration at once
 +-- Diverged              3: training diverged (trainer)
 +-- Retry                 143: preempted or a peer was lost; run me again (trainer)
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mtft import exit_codes
from mtft.redaction import UNSHOWN, masked, masked_path, refers_to_secret
from mtft.text import printable

NO_ROOM = "free space below storage.root or choose another one"
"""Ends the text of every failure for want of room, by which the launcher knows them."""

NO_RIGHT = "check who may read and write there"
"""Ends the text of every failure for want of rights on a file or folder, by which the launcher knows them."""


class MtftError(Exception):
    """A failure whose text is meant for the user; shown without a traceback."""

    exit_code: ClassVar[int] = exit_codes.FAILED


class InputError(MtftError):
    """The user's configuration, data or environment is at fault."""

    exit_code = exit_codes.BAD_INPUT


class Diverged(MtftError):
    """The loss stopped being a finite number."""

    exit_code = exit_codes.DIVERGED


class Retry(MtftError):
    """The work was interrupted from outside; starting it again continues it."""

    exit_code = exit_codes.RETRY


# Trouble of a volume, a network or a machine. Not every system has every one of them.
_TRANSIENT = {
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EBUSY", "ENOLCK", "EREMOTEIO", "ENOMEM", "ENFILE"),
        *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN", "EPIPE", "EPROTO"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
    )
    if hasattr(errno, name)
}


_IN_WORDS = re.compile(r"\(os error (\d+)\)")


def error_number(error: BaseException) -> int | None:
    """Return the errno of an error; libraries in Rust and C++ have it in their text alone, or its words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if found := _IN_WORDS.search(text):
        return int(found[1])
    return next((number for number in _TRANSIENT if os.strerror(number) in text), None)


def may_pass(error: BaseException) -> bool:
    """Whether another try may succeed though nobody mends anything: a volume or the network failed for a moment."""
    if (number := error_number(error)) is not None:
        return number in _TRANSIENT
    return isinstance(error, ConnectionError | TimeoutError)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give an error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def unread(text: str, error: BaseException) -> MtftError:
    """Return the error for what could not be read: Retry if a volume failed for a moment, else InputError."""
    numbers = {error_number(each) for each in causes(error)}
    return Retry(text) if numbers & _TRANSIENT else InputError(text)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with a configuration.

    Attributes:
        path: dotted field path, for example ``train.learning_rate``; a key that looks like a secret is hidden.
        message: what is wrong, in a few words.
        value: the value received, as the user wrote it, but what stands below ``cluster.secrets`` is hidden; None when
            it is absent.
        allowed: what would be accepted.
        hint: a suggestion, for example the name that was probably meant.
        where: ``file:line`` or the option the value came from.
    """

    path: str
    message: str
    value: str | None = None
    allowed: str | None = None
    hint: str | None = None
    where: str | None = None

    def __post_init__(self) -> None:
        if self.value is not None and refers_to_secret(self.path):
            object.__setattr__(self, "value", UNSHOWN)
        object.__setattr__(self, "path", printable(masked_path(self.path)))
        for name in ("message", "hint"):
            if text := getattr(self, name):
                object.__setattr__(self, name, masked(text))
        for name in ("value", "where"):
            if text := getattr(self, name):
                object.__setattr__(self, name, printable(text))

    def __str__(self) -> str:
        parts = [f"{self.path}: {self.message}"]
        if self.value is not None:
            parts.append(f"got {self.value}")
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.hint:
            parts.append(self.hint)
        text = "; ".join(parts)
        return f"{self.where}: {text}" if self.where else text


class ConfigError(InputError):
    """Every problem found in a configuration, reported at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "the configuration has 1 problem" if count == 1 else f"the configuration has {count} problems"
        super().__init__("\n".join([head + ":", *(f"  {problem}" for problem in self.problems)]))
