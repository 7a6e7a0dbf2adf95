"""Paths into nested mappings: dotted text, or the names one by one where a name may hold a dot itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def look_up(values: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Return the value at a dotted path; a plain ``model:`` text stands for its key."""
    at: Any = values
    for name in path.split("."):
        if name == "key" and isinstance(at, str):
            return at
        if not isinstance(at, Mapping) or name not in at:
            return default
        at = at[name]
    return at


def put(values: dict[str, Any], path: str | Sequence[str], value: Any) -> None:
    """Set the value at a path in place; the mappings on the way are made, and copied where present."""
    *parents, last = path.split(".") if isinstance(path, str) else path
    at = values
    for name in parents:
        child = at.get(name)
        if name == "model" and isinstance(child, str):
            child = {"key": child}
        at[name] = dict(child) if isinstance(child, Mapping) else {}
        at = at[name]
    at[last] = value


def flattened(values: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Return the names that lead to every value that is not itself a filled mapping."""
    flat: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, (*prefix, name))
        else:
            flat[*prefix, name] = value
    return flat


def overlay(values: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Write a layer over values in place: mappings are joined, everything else is replaced."""
    for name, value in layer.items():
        if isinstance(value, Mapping):
            below = values.get(name)
            values[name] = dict(below) if isinstance(below, Mapping) else {}
            overlay(values[name], value)
        else:
            values[name] = value
