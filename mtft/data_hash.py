"""Which ``data.sha256`` is of the data that are trained on: other data given over it leave it behind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mtft.layers import Layer, layer_of
from mtft.paths import look_up, overlay

HASH, DATA = "data.sha256", "data.train"
SHARED, OWN, OVER = range(3)
"""Levels of one model's values: what the document says for all models, for this one, and what is given over it."""
_ABSENT = object()


def place_of_hash(layers: Sequence[Layer], key: str | None) -> int | None:
    """Return the level of the strongest hash that is of a model's data; None where there is none.

    Args:
        layers: the document, then what is given over it: ``--set`` and flags count as one.
        key: of the model; None: of what is said for all models.
    """
    levels = _levels(layers, key)
    given = [at for at in (OVER, OWN, SHARED) if look_up(levels[at], HASH, _ABSENT) is not _ABSENT]
    return next((at for at in given if _fits(levels, at)), None)


def without_outdated(document: Mapping[str, Any], *above: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document without the hashes of data that what is given over it replaces."""
    layers = [layer_of(values, lambda _: "", []) for values in (document, *above)]
    result = dict(document) if _fits(_levels(layers, None), SHARED) else _without_hash(document)
    models = result.get("models")
    if isinstance(models, Mapping):
        result["models"] = {
            key: override if not override or _fits(_levels(layers, key), OWN) else _without_hash(override)
            for key, override in models.items()
        }
    return result


def _levels(layers: Sequence[Layer], key: str | None) -> list[Mapping[str, Any]]:
    document, *above = layers
    over: dict[str, Any] = {}
    for layer in above:
        for values, _ in layer.sources(key):
            overlay(over, values)
    return [document.shared, document.overrides.get(key or "", {}), over]


def _fits(levels: Sequence[Mapping[str, Any]], at: int) -> bool:
    """Whether a hash of one level is of the data that the strongest level names."""
    data = [look_up(level, DATA, _ABSENT) for level in levels]
    given = [place for place in (SHARED, OWN, OVER) if data[place] is not _ABSENT]
    if not given or given[-1] <= at:
        return True
    below = [place for place in given if place <= at]
    # A hash that stands in a file without data is of the data of its models, but of no others.
    return bool(data[below[-1]] == data[given[-1]]) if below else given[-1] != OVER


def _without_hash(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document, or what it says of one model, without the hash."""
    part = document.get("data")
    if not isinstance(part, Mapping) or "sha256" not in part:
        return dict(document)
    return {**document, "data": {name: value for name, value in part.items() if name != "sha256"}}
