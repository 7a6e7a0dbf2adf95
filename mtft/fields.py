"""The fields of the schema as a flat table: dotted path, what is allowed, unit, default."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from mtft.cluster_names import PATTERNS
from mtft.config import Config
from mtft.legacy import OLD_NAMES
from mtft.parts import LARGEST, PATH, Part

Schema = Mapping[str, Any]

_BOUNDS = (
    ("minimum", ">="),
    ("exclusiveMinimum", ">"),
    ("maximum", "<="),
    ("exclusiveMaximum", "<"),
)


@dataclass(frozen=True, kw_only=True)
class Field:
    """One setting.

    Attributes:
        path: dotted path.
        description: meaning and unit.
        allowed: what is accepted, in words.
        required: there is no built-in value.
        default: the built-in value; None where required.
    """

    path: str
    description: str
    allowed: str
    required: bool
    default: Any


@cache
def fields() -> dict[str, Field]:
    """Return every setting by its dotted path, in the order of the schema."""
    return fields_of(Config)


@cache
def fields_of(root: type[Part]) -> dict[str, Field]:
    """Return every setting of a schema by its dotted path, in order."""
    whole = schema() if root is Config else root.model_json_schema()
    return {field.path: field for field in _walk(root, "", whole)}


@cache
def setting_paths() -> tuple[str, ...]:
    """Return the dotted path of every setting in order; much cheaper than ``fields``, which builds the JSON Schema."""
    return tuple(_paths(Config, ""))


@cache
def sections() -> dict[str, str]:
    """Return every part of the configuration and its description, in the order of the schema."""
    return sections_of(Config)


@cache
def sections_of(root: type[Part]) -> dict[str, str]:
    """Return every part of a schema and its description, in order."""
    return dict(_sections(root, ""))


@cache
def schema() -> Schema:
    """Return the JSON Schema of ``Config`` as pydantic gives it."""
    return Config.model_json_schema()


def leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested mapping to the schema's settings; what the schema does not know stays as it is."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        path = prefix + key
        if path in sections() and isinstance(value, Mapping):
            flat.update(leaves(value, path + "."))
        else:
            flat[path] = value
    return flat


def suggest(path: str) -> str | None:
    """Return "did you mean ...?" for an unknown path, looking at its neighbours, then at every name."""
    parent, _, name = path.rpartition(".")
    known = [*sections(), *fields()]
    same_name = [known_path for known_path in known if known_path.rpartition(".")[2] == name]
    if name in OLD_NAMES:
        same_name.append(OLD_NAMES[name])
    if same_name:
        return f"did you mean {' or '.join(same_name)}?"
    neighbours = {other.rpartition(".")[2]: other for other in known if other.rpartition(".")[0] == parent}
    others = {other.rpartition(".")[2]: other for other in known}
    for candidates, likeness in ((neighbours, 0.6), (others, 0.8)):
        near = difflib.get_close_matches(name.replace("-", "_").lower(), candidates, n=1, cutoff=likeness)
        if near:
            return f"did you mean {candidates[near[0]]}?"
    return None


def describe(part: Schema) -> str:
    """Say in words what a JSON Schema accepts."""
    if "$ref" in part:
        return describe(_definition(part))
    if "anyOf" in part:
        return " | ".join(dict.fromkeys(describe(option) for option in part["anyOf"]))
    if "enum" in part:
        return " | ".join(part["enum"])
    if "const" in part:
        return str(part["const"])
    # What no program could count to says nothing about a setting.
    bounds = ", ".join(
        f"{sign} {_plain(part[name])}" for name, sign in _BOUNDS if name in part and part[name] != LARGEST
    )
    match part.get("type"):
        case "integer":
            return f"whole number {bounds}".strip()
        case "number":
            return f"number {bounds}".strip()
        case "boolean":
            return "true | false"
        case "array":
            return f"list of {describe(part['items'])}"
        case "object" if "properties" in part:
            return "{" + ", ".join(part["properties"]) + "}"
        case "object":
            return f"map of {_map_keys(part)} to {describe(_map_values(part))}"
        case "string" if "pattern" in part:
            return _pattern(part["pattern"])
        case "string":
            return "text"
        case other:
            return str(other)


def is_part(annotation: Any) -> bool:
    """Tell whether a field is a part with fields of its own."""
    return isinstance(annotation, type) and issubclass(annotation, Part)


def _paths(part: type[Part], prefix: str) -> Iterator[str]:
    for name, info in part.model_fields.items():
        if is_part(info.annotation):
            yield from _paths(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name


def _walk(part: type[Part], prefix: str, whole: Schema) -> list[Field]:
    found: list[Field] = []
    properties = whole.get("$defs", {}).get(part.__name__, whole)["properties"]
    for name, info in part.model_fields.items():
        path = prefix + name
        if is_part(info.annotation):
            found += _walk(info.annotation, path + ".", whole)  # type: ignore[arg-type]
            continue
        default = None if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
        found.append(
            Field(
                path=path,
                description=str(info.description),
                allowed=describe(properties[name]),
                required=info.is_required(),
                default=default,
            )
        )
    return found


def _sections(part: type[Part], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, info in part.model_fields.items():
        if is_part(info.annotation):
            found.append((prefix + name, str(info.description)))
            found += _sections(info.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
    return found


def _definition(part: Schema) -> Schema:
    definition: Schema = schema()["$defs"][part["$ref"].rpartition("/")[2]]
    return definition


def _map_values(part: Schema) -> Schema:
    values: Schema = part.get("additionalProperties") or next(iter(part["patternProperties"].values()))
    return values


def _map_keys(part: Schema) -> str:
    return _pattern(next(iter(part["patternProperties"]))) if "patternProperties" in part else "text"


def _pattern(pattern: str) -> str:
    return "path" if pattern == PATH else PATTERNS.get(pattern) or f"text matching {pattern}"


def _plain(number: Any) -> str:
    return json.dumps(int(number) if float(number).is_integer() else number)
