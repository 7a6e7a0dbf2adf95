"""The users' old parameter names: accepted at the top level of a document and mapped, each with a note."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mtft.errors import Problem
from mtft.models import MODELS
from mtft.paths import look_up, put

# Old name -> the field it is read as. The groups below share one field between several switches.
OLD_NAMES: dict[str, str] = {
    "which": "model.key",
    "model_name": "model.key",
    "data_path": "data.train",
    "output_directory": "storage.root",
    "grad_accum": "train.gradient_accumulation",
    "gradient_accumulation": "train.gradient_accumulation",
    "max_source_len": "train.max_source_length",
    "max_source_length": "train.max_source_length",
    "max_target_len": "train.max_target_length",
    "max_target_length": "train.max_target_length",
    "lora_r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "device_map": "train.device_map",
    "bf16": "train.precision",
    "use_bfloat16": "train.precision",
    "fp16": "train.precision",
    "use_fp16": "train.precision",
    "use_qlora": "method",
    "no_qlora": "method",
}

_PRECISIONS = {"bf16": "bf16", "use_bfloat16": "bf16", "fp16": "fp16", "use_fp16": "fp16"}
_QLORA_WHEN = {"use_qlora": True, "no_qlora": False}
_SWITCHES = (*_PRECISIONS, *_QLORA_WHEN)
_MISSING = object()


@dataclass
class Translation:
    """A document with only present-day names.

    Attributes:
        values: the document.
        names: new field path -> the old name its value was written under.
        notes: one sentence for each old name.
        problems: old names that contradict each other or a present-day name.
    """

    values: dict[str, Any]
    names: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def translate(document: Mapping[str, Any], where: Callable[[str], str]) -> Translation:
    """Map the old names of a document; ``where`` tells the place of a top-level name."""
    old = {name: value for name, value in document.items() if name in OLD_NAMES}
    result = Translation({name: value for name, value in document.items() if name not in old})
    if not old:
        return result

    def problem(name: str, message: str, **more: str) -> None:
        result.problems.append(Problem(path=name, message=message, where=where(name), **more))

    for name in _SWITCHES:
        if name in old and not isinstance(old[name], bool):
            problem(name, "is a switch", value=repr(old.pop(name)), allowed="true | false")

    for name, path, value in _readings(old, _model_key(old, document), problem):
        present = look_up(result.values, path, _MISSING)
        if present is _MISSING:
            put(result.values, path, value)
            result.names[path] = name
        elif present != value:
            other = result.names.get(path, path)
            problem(name, f"contradicts {other}", value=repr(old[name]), hint=f"keep only {path}")
            continue
        result.notes.append(f"{where(name)}: {name} is an old name, read as {path}: {_written(value)}")
    return result


def without_old_names(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the document without the old names of one field, for a value that replaces them."""
    return {name: value for name, value in document.items() if _field_of(name, document) != path}


def _field_of(name: str, document: Mapping[str, Any]) -> str | None:
    """Return the field an old name is read as, None for other names; ``model_name`` says a key or a folder."""
    if name != "model_name":
        return OLD_NAMES.get(name)
    read = _read_model_name(str(document[name]), _model_key(document, document), lambda *_, **__: None)
    return read[0][1] if read else OLD_NAMES[name]


def _readings(old: Mapping[str, Any], model_key: Any, problem: Callable[..., None]) -> list[tuple[str, str, Any]]:
    """Return (old name, field path, value) for every old name that says something."""
    readings = []
    any_half = any(old.get(name) for name in _PRECISIONS)
    for name, value in old.items():
        if name in _PRECISIONS:
            if value or not any_half:
                readings.append((name, "train.precision", _PRECISIONS[name] if value else "fp32"))
            elif any(old.get(other) for other, kind in _PRECISIONS.items() if kind == _PRECISIONS[name]):
                problem(name, "contradicts another switch of the same precision", value="False")
        elif name in _QLORA_WHEN:
            readings.append((name, "method", "qlora" if value is _QLORA_WHEN[name] else "lora"))
        elif name == "model_name":
            readings += _read_model_name(str(value), model_key, problem)
        else:
            readings.append((name, OLD_NAMES[name], value))
    return readings


def _read_model_name(value: str, model_key: Any, problem: Callable[..., None]) -> list[tuple[str, str, Any]]:
    """Read ``model_name``: a key of ours, a hub repository, or a directory."""
    if value.startswith(("/", "./", "../", "~")):
        return [("model_name", "model.path", value)]
    keys = [card.key for card in MODELS.values() if card.base.lower() == value.lower()]
    if not keys:
        return [("model_name", "model.key", value)]
    if model_key in keys:
        return [("model_name", "model.key", model_key)]
    if len(keys) > 1 and model_key is None:
        problem("model_name", "is the base of several models", value=value, allowed=" | ".join(keys), hint="set model")
        return []
    return [("model_name", "model.key", keys[0])]


def _model_key(old: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    return old.get("which", look_up(document, "model.key"))


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
