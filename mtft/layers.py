"""Layers of settings: what a document, ``--set`` or the flags say, for all models and for single ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mtft.documents import parse_value
from mtft.errors import ConfigError, Problem
from mtft.fields import fields, sections, suggest
from mtft.legacy import translate
from mtft.models import MODELS, suggest_key
from mtft.paths import look_up, put
from mtft.problems import shown

# Nested values, and where the value at a dotted path comes from.
Source = tuple[Mapping[str, Any], Callable[[str], str]]


@dataclass(frozen=True)
class Layer:
    """Values of one origin: ``shared`` for all models, ``overrides`` for one each; ``notes`` by model, None for all."""

    shared: dict[str, Any]
    overrides: dict[str, dict[str, Any]]
    origin: Callable[[str], str]
    notes: dict[str | None, Sequence[str]]

    def sources(self, key: str | None) -> list[Source]:
        """Return what the layer says of a model, the stronger last."""
        found: list[Source] = [(self.shared, self.origin)]
        if key in self.overrides:
            found.append((self.overrides[key], lambda path: self.origin(f"models.{key}.{path}")))
        return found


def layer_of(document: Mapping[str, Any], where: Callable[[str], str], problems: list[Problem]) -> Layer:
    """Divide a document into the shared part and the models' own, both with present-day names only."""
    overrides: dict[str, dict[str, Any]] = {}
    notes: dict[str | None, Sequence[str]] = {}
    names: dict[str, str] = {}
    for key, override in overrides_of(document, where, problems).items():
        own = translate(override, partial(_inside, where, f"models.{key}."))
        problems += own.problems
        notes[key] = own.notes
        names |= {f"models.{key}.{path}": f"models.{key}.{name}" for path, name in own.names.items()}
        overrides[key] = _tidy(own.values)
        if (other := look_up(overrides[key], "model.key", key)) != key:
            path = f"models.{key}.model.key"
            place = where(names.get(path, path))
            problems.append(
                Problem(path=path, message="is another model", value=shown(other), allowed=key, where=place)
            )
    shared = translate({name: value for name, value in document.items() if name not in ("models", "chart")}, where)
    problems += shared.problems
    notes[None] = shared.notes
    return Layer(
        shared=_tidy(shared.values),
        overrides=overrides,
        origin=lambda path: where({**names, **shared.names}.get(path, path)),
        notes=notes,
    )


def overrides_of(
    document: Mapping[str, Any], where: Callable[[str], str], problems: list[Problem]
) -> dict[str, dict[str, Any]]:
    """Return what a batch says of each model, without ``enabled``."""
    models = document.get("models")
    if models is None and ("models" not in document or "model" in document):
        return {}

    def problem(path: str, message: str, **more: str) -> None:
        problems.append(Problem(path=path, message=message, where=where(path), **more))

    if not isinstance(models, Mapping):
        problem("models", "is not a mapping", allowed="{key: {enabled: true, ...overrides}}")
        return {}
    if "model" in document:
        problem("models", "stands beside model", hint="keep model for one job, models for a batch")
    result = {}
    for key, override in models.items():
        path = f"models.{key}"
        if key not in MODELS:
            problem(path, "there is no such model", allowed=" | ".join(MODELS), **_hint(suggest_key(str(key))))
        elif override is not None and not isinstance(override, Mapping):
            problem(path, "is not a mapping", value=repr(override), allowed="{enabled: true, ...overrides}")
        elif override and not isinstance(override.get("enabled", True), bool):
            problem(f"{path}.enabled", "is a switch", value=repr(override["enabled"]), allowed="true | false")
        else:
            result[key] = {name: value for name, value in (override or {}).items() if name != "enabled"}
    return result


def parse_sets(sets: Sequence[str], problems: list[Problem]) -> dict[str, Any]:
    """Return the nested values of ``path=value`` texts; ``\\.`` is a dot inside a name, as in a node label."""
    values: dict[str, Any] = {}
    for text in sets:
        path, equals, value = text.partition("=")
        names = [name.replace("\\.", ".") for name in re.split(r"(?<!\\)\.", path)]
        if not equals or not all(names):
            problems.append(_no_pair(path) if equals or path not in fields() else _no_value(path))
            continue
        try:
            put(values, names, parse_value(value, "--set"))
        except ConfigError as error:
            problems += [
                Problem(path=path, message=one.message, value=one.value, allowed=one.allowed, where="--set")
                for one in error.problems
            ]
    return values


def _no_value(path: str) -> Problem:
    field = fields()[path]
    hint = f"such as {path}={json.dumps(field.default)}" if field.default is not None else None
    return Problem(path=path, message="needs a value", allowed=field.allowed, hint=hint, where="--set")


def _no_pair(path: str) -> Problem:
    return Problem(path=path or "--set", message="is not path=value", where="--set", **_hint(suggest(path)))


def _inside(where: Callable[[str], str], prefix: str, name: str) -> str:
    return where(prefix + name)


def _tidy(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write ``model: KEY`` as ``model: {key: KEY}`` and parts left empty as empty mappings."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        path = prefix + name
        if path == "model" and isinstance(value, str):
            result[name] = {"key": value}
        elif path in sections() and (value is None or isinstance(value, Mapping)):
            result[name] = _tidy(value or {}, path + ".")
        else:
            result[name] = value
    return result


def _hint(text: str | None) -> dict[str, str]:
    return {"hint": text.strip()} if text else {}
