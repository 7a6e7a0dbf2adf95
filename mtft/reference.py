"""What is generated from the schema: docs/reference.md, docs/config.schema.json and the starter file of ``init``.

Run ``python -m mtft.reference`` to write them, with ``--check`` to learn whether they are up to date.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mtft import exit_codes
from mtft.config import Config
from mtft.fields import Field, fields, leaves, schema, sections
from mtft.files import write_text
from mtft.legacy import OLD_NAMES
from mtft.models import MODELS, ModelCard
from mtft.presets import PRESETS

DOCS = Path(__file__).parents[1] / "docs"


def documents() -> dict[Path, str]:
    """Return every generated file and its text."""
    return {
        DOCS / "reference.md": reference(),
        DOCS / "config.schema.json": json.dumps(document_schema(), ensure_ascii=False, indent=2) + "\n",
    }


def document_schema() -> dict[str, Any]:
    """Return the JSON Schema of the documents users write.

    A document is ``Config`` with three differences: nothing is required, because other layers may give it; a batch has
    ``models``, each with overrides of everything; and old names are known.
    """
    whole: dict[str, Any] = copy.deepcopy(dict(schema()))
    _close_maps(whole)
    definitions = whole["$defs"]
    settings = whole["properties"]
    for part in ("ModelRef", "DataConfig"):
        del definitions[part]["required"]
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


def _close_maps(part: Any) -> None:
    """Refuse keys of a map that match no pattern: JSON Schema lets them pass unless told otherwise."""
    if isinstance(part, dict):
        if "patternProperties" in part:
            part["additionalProperties"] = False
        for inside in part.values():
            _close_maps(inside)


def reference() -> str:
    """Return the text of docs/reference.md."""
    return "\n".join([*_introduction(), *_settings(), *_models(), *_presets(), *_old_names()]) + "\n"


def starter_file(card: ModelCard, data: str) -> str:
    """Return a commented YAML document: the model and the data are set, every other setting shows its default.

    Lines that begin with ``##`` explain; taking the ``#`` off any other one, and off the part it belongs to, sets it.
    """
    lines = [
        "## Settings of mtft. Lines with ## explain. Take the # off a line, and off the part it belongs to, to set it.",
        "## `mtft-launch validate` shows every effective value and where it comes from.",
        "",
        f"## {sections()['model']} Allowed: {fields()['model.key'].allowed}.",
        f"model: {card.key}",
        *_starter_lines("", card),
        "",
        "data:",
        f"  ## {fields()['data.train'].description}",
        f"  train: {json.dumps(data, ensure_ascii=False)}",
        *_starter_lines("data", card),
    ]
    for part, description in sections().items():
        if part in ("model", "data"):
            continue
        indent = "  " * part.count(".")
        lines += [f"#{indent}## {description}" if indent else f"\n## {description}"]
        lines += [f"#{indent}{part.rpartition('.')[2]}:", *_starter_lines(part, card)]
    return "\n".join(lines) + "\n"


def _starter_lines(part: str, card: ModelCard) -> Iterator[str]:
    """Yield the commented settings of one part with their defaults."""
    by_card = {"train.batch_size": card.batch_size, "train.learning_rate": card.learning_rate}
    for field in fields().values():
        parent, _, name = field.path.rpartition(".")
        if parent == part and not field.required:
            indent = "  " * field.path.count(".")
            yield f"#{indent}## {field.description} Allowed: {field.allowed}."
            yield f"#{indent}{name}: {json.dumps(by_card.get(field.path, field.default))}"


def main() -> int:
    """Write the generated files, or with ``--check`` report the stale ones."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print("usage: python -m mtft.reference [--check]", file=sys.stderr)
        return exit_codes.BAD_INPUT
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if not check:
            write_text(path, documents()[path])
        print(f"{path.name}: {'stale, run `python -m mtft.reference`' if check else 'written'}")
    return exit_codes.FAILED if check and stale else exit_codes.DONE


def _introduction() -> Iterator[str]:
    yield "# Configuration reference"
    yield ""
    yield "Generated from `mtft/config.py` and `mtft/cluster_config.py` by `python -m mtft.reference`; do not edit."
    yield ""
    yield "Precedence: built-in < model card < preset < file (`--config`, else `./mtft.yaml`) < `--set` < flags."
    yield "In a batch, `models.<key>` goes over the shared part."
    yield "`mtft-launch validate` prints the value and the origin of every setting."


def _settings() -> Iterator[str]:
    for part, description in {"": str(Config.__doc__), **sections()}.items():
        inside = [field for field in fields().values() if field.path.rpartition(".")[0] == part]
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


if __name__ == "__main__":
    sys.exit(main())
