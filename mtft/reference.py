"""What the schema says, for readers: the reference, the JSON Schema of documents, the starter file of ``init``."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mtft.config import Config
from mtft.fields import Field, fields, is_part, leaves, schema, sections
from mtft.legacy import OLD_NAMES
from mtft.models import MODELS, ModelCard
from mtft.parts import Part
from mtft.presets import PRESETS


def document_schema() -> dict[str, Any]:
    """Return the JSON Schema of the documents users write.

    A document is ``Config`` with four differences: nothing is required, because other layers may give it; a part may be
    left empty; a batch has ``models``, each with overrides of everything; and old names are known.
    """
    whole: dict[str, Any] = copy.deepcopy(dict(schema()))
    close_maps(whole)
    definitions = whole["$defs"]
    settings = whole["properties"]
    for definition in definitions.values():
        definition.pop("required", None)
    for part in _section_types(Config) - {"ModelRef"}:
        definitions[part]["type"] = ["object", "null"]
    key = {"type": "string", "enum": list(MODELS)}
    settings["model"] = {"description": settings["model"]["description"], "anyOf": [key, {"$ref": "#/$defs/ModelRef"}]}
    for old, new in OLD_NAMES.items():
        settings[old] = {"description": f"Old name of {new}.", "deprecated": True}
    enabled = {"type": "boolean", "default": True, "description": "Train this model in the batch."}
    definitions["Overrides"] = {
        "type": "object",
        "description": "What differs for one model of a batch.",
        "additionalProperties": False,
        "properties": {"enabled": enabled, **settings},
    }
    batch = {"anyOf": [{"$ref": "#/$defs/Overrides"}, {"type": "null"}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mtft configuration",
        "type": "object",
        "additionalProperties": False,
        "not": {"required": ["model", "models"]},
        "properties": {
            **settings,
            "models": {
                "type": "object",
                "description": "A batch: model key -> what differs for it.",
                "propertyNames": key,
                "additionalProperties": batch,
            },
            "chart": {"type": "object", "description": "Settings of the Helm chart alone; the trainer ignores them."},
        },
        "$defs": definitions,
    }


def _section_types(part: type[Part]) -> set[str]:
    found = set()
    for info in part.model_fields.values():
        if is_part(info.annotation):
            found |= {info.annotation.__name__} | _section_types(info.annotation)  # type: ignore[union-attr,arg-type]
    return found


def close_maps(part: Any) -> None:
    """Refuse keys of a map that match no pattern: JSON Schema lets them pass unless told otherwise."""
    if isinstance(part, dict):
        if "patternProperties" in part:
            part["additionalProperties"] = False
        for inside in part.values():
            close_maps(inside)


def reference() -> str:
    """Return the text of docs/reference.md."""
    return (
        "\n".join([*_introduction(), *settings_tables(sections(), fields()), *_models(), *_presets(), *_old_names()])
        + "\n"
    )


def starter_file(card: ModelCard, data: str, namespace: str | None = None) -> str:
    """Return a commented YAML document: the model and the data are set, every other setting shows its default.

    Lines that begin with ``##`` explain; taking the ``#`` off any other one, and off the part it belongs to, sets it.
    """
    shown = {"train.batch_size": card.batch_size, "train.learning_rate": card.learning_rate}
    others = {part: text for part, text in sections().items() if part not in ("model", "data")}
    lines = [
        "## Settings of mtft. Lines with ## explain. Take the # off a line, and off the part it belongs to, to set it.",
        "## `mtft-launch validate` shows every effective value and where it comes from.",
        "",
        f"## {sections()['model']} Allowed: {fields()['model.key'].allowed}.",
        f"model: {card.key}",
        *_setting_lines("", fields(), shown),
        "",
        "data:",
        f"  ## {fields()['data.train'].description}",
        f"  train: {json.dumps(data, ensure_ascii=False)}",
        *_setting_lines("data", fields(), shown),
        *starter_lines(others, fields(), shown),
    ]
    if namespace is not None:
        set_now = {"#cluster:": "cluster:", "#  namespace: null": f"  namespace: {json.dumps(namespace)}"}
        lines = [set_now.get(line, line) for line in lines]
    return "\n".join(lines) + "\n"


def starter_lines(parts: Mapping[str, str], settings: Mapping[str, Field], shown: Mapping[str, Any]) -> Iterator[str]:
    """Yield commented YAML of parts and their settings, each with its default or with what ``shown`` says instead."""
    for part, description in parts.items():
        indent = "  " * part.count(".")
        yield f"#{indent}## {description}" if indent else f"\n## {description}"
        yield f"#{indent}{part.rpartition('.')[2]}:"
        yield from _setting_lines(part, settings, shown)


def _setting_lines(part: str, settings: Mapping[str, Field], shown: Mapping[str, Any]) -> Iterator[str]:
    for field in settings.values():
        parent, _, name = field.path.rpartition(".")
        if parent == part and (field.path in shown or not field.required):
            indent = "  " * field.path.count(".")
            yield f"#{indent}## {field.description} Allowed: {field.allowed}."
            yield f"#{indent}{name}: {json.dumps(shown.get(field.path, field.default))}"


def _introduction() -> Iterator[str]:
    yield "# Configuration reference"
    yield ""
    yield "Generated from `mtft/config.py` and `mtft/cluster_config.py` by `python -m mtft.generated`; do not edit."
    yield ""
    yield "Precedence: built-in < model card < preset < file (`--config`, else `./mtft.yaml`) < `--set` < flags."
    yield "In a batch, `models.<key>` goes over the shared part."
    yield "`mtft-launch validate` prints the value and the origin of every setting."


def settings_tables(parts: Mapping[str, str], settings: Mapping[str, Field]) -> Iterator[str]:
    """Yield the lines of one Markdown table for each part that has settings of its own, the top level first."""
    for part, description in {"": str(Config.__doc__), **parts}.items():
        inside = [field for field in settings.values() if field.path.rpartition(".")[0] == part]
        if not inside:
            continue
        yield ""
        yield f"## `{part}`" if part else "## Top level"
        yield ""
        yield description
        yield ""
        yield "| setting | default | allowed | meaning |"
        yield "|---|---|---|---|"
        yield from (_row(f"`{field.path}`", _default(field), field.allowed, field.description) for field in inside)


def _models() -> Iterator[str]:
    yield ""
    yield "## Models"
    yield ""
    yield "The card of a model sets `train.batch_size` and `train.learning_rate`."
    yield ""
    yield "| key | base | direction | batch_size | learning_rate |"
    yield "|---|---|---|---|---|"
    for card in MODELS.values():
        directions = ", ".join("->".join(pair) for pair in card.directions)
        yield _row(f"`{card.key}`", card.base, directions, str(card.batch_size), f"{card.learning_rate:g}")


def _presets() -> Iterator[str]:
    yield ""
    yield "## Presets"
    yield ""
    yield "| preset | sets |"
    yield "|---|---|"
    for name, values in PRESETS.items():
        yield _row(
            f"`{name}`", ", ".join(f"`{path}={_json(value)}`" for path, value in leaves(values).items()) or "nothing"
        )


def _old_names() -> Iterator[str]:
    yield ""
    yield "## Old names"
    yield ""
    yield "Accepted at the top level of a document and of a model's overrides, each with a note."
    yield ""
    yield "| old name | read as |"
    yield "|---|---|"
    yield from (_row(f"`{old}`", f"`{new}`") for old, new in OLD_NAMES.items())


def _default(field: Field) -> str:
    if field.required:
        return "required"
    return "model card" if field.path in ("train.batch_size", "train.learning_rate") else f"`{_json(field.default)}`"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _row(*cells: str) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"
