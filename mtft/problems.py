"""What is wrong with a configuration, in words: the schema's findings and secrets in the wrong place."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mtft.cluster_config import SecretRef
from mtft.config import Config
from mtft.errors import Problem
from mtft.fields import Field, fields, fields_of, sections, setting_paths, suggest
from mtft.models import suggest_key
from mtft.parts import LARGEST, PATH
from mtft.redaction import HIDDEN, holds_secret, looks_secret, names_secret

Where = Callable[[str], str | None]

_REFERENCE = "set cluster.secrets.<VARIABLE>={name: <secret>, key: <key>} and keep the value in a Kubernetes Secret"
_MODEL_PART = re.compile(r"^models\.[^.]*\.")
_LONGEST_VALUE = 80  # characters


def schema_problems(values: Mapping[str, Any], where: Where, problems: list[Problem]) -> Config | None:
    """Check values against the schema; add what is wrong to ``problems``, one for each path."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        seen = {problem.path for problem in problems}
        for detail in error.errors(include_url=False):
            problem = _problem(detail, values, where)
            if problem.path not in seen:
                seen.add(problem.path)
                problems.append(problem)
        return None


def misplaced_secrets(values: Mapping[str, Any], where: Where) -> list[Problem]:
    """Find values that look like secrets, or stand where a secret would be written down, also in parts of a batch."""
    return [
        Problem(
            path=path, message="a secret is given by reference only", value=HIDDEN, hint=_REFERENCE, where=where(path)
        )
        for path, value in _texts(values, "")
        if looks_secret(value) or looks_secret(path) or _misplaced(path, value)
    ]


def _misplaced(path: str, value: str) -> bool:
    path = _MODEL_PART.sub("", path)
    parent, _, name = path.rpartition(".")
    if parent == "cluster.env":
        return holds_secret(name, value)
    unknown = parent in ("", *sections()) and path not in setting_paths()
    return "cluster.secrets" in (path, parent) or (unknown and names_secret(name))


def _texts(values: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield path, values
    elif isinstance(values, Mapping):
        for name, value in values.items():
            inside = f"{path}.{name}" if path else str(name)
            yield from [(inside, "")] if looks_secret(str(name)) else _texts(value, inside)
    elif isinstance(values, list):
        for index, value in enumerate(values):
            yield from _texts(value, f"{path}[{index}]")


def _problem(detail: ErrorDetails, values: Mapping[str, Any], where: Where) -> Problem:
    path = _path(detail, values)
    known = fields().get(path) or _of_reference(path) or _around(path)
    kind = detail["type"]
    place = where(path)
    if kind == "missing":
        hint = {"data.train": "add --data PATH", "model": "add --model KEY", "model.key": "add --model KEY"}.get(path)
        return Problem(path=path, message="is required", allowed=_allowed(path, known), hint=hint)
    if kind == "extra_forbidden":
        parent = path.rpartition(".")[0]
        names = [
            name.removeprefix(parent + ".") for name in (*sections(), *fields()) if name.rpartition(".")[0] == parent
        ]
        allowed = None if suggest(path) else ", ".join(names) or None
        return Problem(path=path, message="there is no such field", allowed=allowed, hint=suggest(path), where=place)
    if kind == "value_error":
        message = detail["msg"].removeprefix("Value error, ")
        if path in sections():
            return Problem(path=path, message=message, where=place)
        value, hint = shown(detail["input"]), None
        if path == "model.key":
            hint = suggest_key(str(detail["input"])).strip() or None
        return Problem(path=path, message=message, value=value, allowed=_allowed(path, known), hint=hint, where=place)
    message = _MESSAGES.get(kind) or ("has the wrong type" if kind.endswith("_type") else detail["msg"])
    bound = detail.get("ctx", {})
    if bound.get("le") == LARGEST:
        message += f", more than {LARGEST}"
    if bound.get("pattern") == PATH:
        message = "has a control character in it, such as NUL or a line break"
    value = shown(detail["input"])
    hint = _near(detail) if kind == "literal_error" else None
    if kind == "string_type" and isinstance(detail["input"], bool | int | float):
        hint = "text is wanted: write it in quotes"  # without the value, which may be a secret
    return Problem(path=path, message=message, value=value, allowed=_allowed(path, known), hint=hint, where=place)


def _near(detail: ErrorDetails) -> str | None:
    """Return the choice that was probably meant, as pydantic lists them: ``'a', 'b' or 'c'``."""
    choices = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected", "")))
    near = difflib.get_close_matches(str(detail["input"]), choices, n=1)
    return f"did you mean {near[0]}?" if near else None


_MESSAGES = {
    "literal_error": "is not one of the choices",
    "greater_than": "is too small",
    "greater_than_equal": "is too small",
    "less_than": "is too large",
    "less_than_equal": "is too large",
    "string_pattern_mismatch": "has the wrong form",
    "string_too_short": "is empty",
    "too_short": "is empty",
    "finite_number": "is not a finite number",
    "string_unicode": "is not UTF-8 text; give the file or folder a name that is",
}


def _path(detail: ErrorDetails, values: Mapping[str, Any]) -> str:
    """Return the dotted path of a finding without the names pydantic gives to the branches of a union."""
    path = ""
    at: Any = values
    for part in detail["loc"]:
        if isinstance(at, Mapping) and part in at:
            at = at[part]
            path = f"{path}.{part}" if path else str(part)
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
            path = f"{path}[{part}]"
        elif detail["type"] == "missing" and part == detail["loc"][-1]:
            path = f"{path}.{part}" if path else str(part)
    return path


def _of_reference(path: str) -> Field | None:
    """Return the field of a reference to a secret, whose values are not shown: its form is all there is to tell."""
    parent, _, name = path.rpartition(".")
    return fields_of(SecretRef).get(name) if parent.startswith("cluster.secrets.") else None


def _around(path: str) -> Field | None:
    """Return the setting a path lies in, such as that of an item of a list."""
    while path:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
        if path in fields():
            return fields()[path]
    return None


def _allowed(path: str, known: Field | None) -> str | None:
    if known is not None:
        return known.allowed
    if path == "model":
        return fields()["model.key"].allowed
    names = [name.rpartition(".")[2] for name in fields() if name.rpartition(".")[0] == path]
    return "a mapping of " + ", ".join(names) if names else None


def shown(value: Any) -> str:
    """Return a received value for a message: as JSON, cut where it is long, hidden where it looks like a secret."""
    if looks_secret(value):
        return HIDDEN
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
