"""Documents users write: YAML, JSON or TOML, read so that every program reads the same values.

YAML follows the 1.2 core schema: ``1e-5`` is a number. Plain texts that YAML 1.1 readers such as Helm take for
something else (``no``, ``010``, ``12:30``, ``1_000``) are refused; quoted they are text everywhere.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mtft.errors import ConfigError, InputError, Problem, unread

# A document is a page or two; the bound stops aliases that multiply without end.
MOST_NODES = 100_000

# Python reads no longer integer; the readers of JSON and TOML refuse it with a plain ValueError.
_MOST_DIGITS = 4300
_TOO_MANY_DIGITS = f"holds a number of more than {_MOST_DIGITS:,} digits"

_TAG = "tag:yaml.org,2002:"
_AMBIGUOUS = "!ambiguous"
_PLAIN_SCALARS = (
    (_TAG + "null", r"(~|null|Null|NULL|)", ["~", "n", "N", ""]),
    (_TAG + "bool", r"(true|True|TRUE|false|False|FALSE)", list("tTfF")),
    (
        _AMBIGUOUS,
        r"([yY](es)?|YES|[nN]o?|NO|[oO]n|ON|[oO]ff|OFF|[-+]?0[0-9_]+|[-+]?0b[01_]+|[-+]?[0-9]+(:[0-5]?[0-9])+"
        r"|[-+]?\.?[0-9][0-9.eE+-]*_[0-9_.eE+-]*)",
        list("yYnNoO-+.0123456789"),
    ),
    (_TAG + "int", r"([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        _TAG + "float",
        r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))",
        list("-+.0123456789"),
    ),
)


class Document(dict[str, Any]):
    """What a file says, with the line of every field.

    Attributes:
        source: the file's name as the user gave it.
        lines: dotted field path -> line, counted from 1; empty for formats that do not tell.
        problems: single values that could not be read, each None in the document; :func:`mtft.settings.resolve`
            reports them with the schema's.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        source: str,
        lines: Mapping[str, int] | None = None,
        problems: Sequence[Problem] = (),
    ) -> None:
        super().__init__(values)
        self.source = source
        self.lines = dict(lines or {})
        self.problems = tuple(problems)

    def where(self, path: str) -> str:
        """Return ``file:line`` of a field, of the nearest part around it, or the file alone."""
        while path:
            if path in self.lines:
                return f"{self.source}:{self.lines[path]}"
            path = path.rpartition(".")[0]
        return self.source


def load_document(path: Path) -> Document:
    """Read a YAML, JSON or TOML file.

    Raises:
        InputError: the file cannot be read.
        ConfigError: it is not a well-formed mapping, repeats a key or holds a text that readers disagree about.
    """
    document = read_document(path)
    if document.problems:
        raise ConfigError(document.problems)
    return document


def read_document(path: Path) -> Document:
    """Read a YAML, JSON or TOML file whose ``problems`` are told later, with those of the schema.

    Raises:
        InputError: the file cannot be read.
        ConfigError: it is not a well-formed mapping.
    """
    source = str(path)
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_json, ".toml": _read_toml}
    if path.suffix.lower() not in readers:
        raise InputError(f"{source}: not a known kind of configuration file; allowed: {', '.join(readers)}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{source}: there is no such file; `mtft-launch init` writes mtft.yaml") from None
    except OSError as error:
        raise unread(f"{source}: cannot be read: {error.strerror}", error) from None
    except UnicodeDecodeError as error:
        raise _refusal(source, f"is not UTF-8 text (byte {error.start})") from None
    return readers[path.suffix.lower()](text, source)


def parse_value(text: str, source: str) -> Any:
    """Read one YAML scalar or flow value, as ``--set`` takes it.

    Raises:
        ConfigError: the text is not one well-formed value.
    """
    value, _, problems = _compose(text, source)
    if problems:
        raise ConfigError(problems)
    return value


class CoreDumper(yaml.SafeDumper):
    """Writes plain scalars that both YAML 1.1 and 1.2 readers read back as the same value."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Write text in double quotes where PyYAML would let a line separator other than newline be lost."""
        style = None if data.isprintable() else '"'
        return self.represent_scalar(_TAG + "str", data, style=style)


CoreDumper.add_representer(str, CoreDumper.represent_str)


def yaml_text(values: Any) -> str:
    """Write plain values as mtft writes all its YAML but manifests: in their order, in UTF-8, for any reader."""
    return str(yaml.dump(values, Dumper=CoreDumper, sort_keys=False, allow_unicode=True, width=120))


class _CoreLoader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML copies it on the first addition


for _tag, _pattern, _first in _PLAIN_SCALARS:
    _CoreLoader.add_implicit_resolver(_tag, re.compile(f"^{_pattern}$"), _first)
    CoreDumper.add_implicit_resolver(_tag, re.compile(f"^{_pattern}$"), _first)


def _read_yaml(text: str, source: str) -> Document:
    value, lines, problems = _compose(text, source)
    if problems and not isinstance(value, dict):
        raise ConfigError(problems)
    return Document(_mapping(value, source), source=source, lines=lines, problems=problems)


def _read_json(text: str, source: str) -> Document:
    repeated: list[str] = []

    def pairs(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) < len(items):
            keys = [key for key, _ in items]
            repeated.extend(key for key in result if keys.count(key) > 1)
        return result

    def constant(name: str) -> Any:
        raise _refusal(source, f"{name} is not a JSON number")

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant) if text.strip() else None
    except json.JSONDecodeError as error:
        raise _refusal(f"{source}:{error.lineno}", f"is not JSON: {error.msg}") from None
    except ValueError:
        raise _refusal(source, _TOO_MANY_DIGITS) from None
    except RecursionError:
        raise _refusal(source, "is nested too deeply") from None
    problems = [Problem(path=key, message="is given twice in one object", where=source) for key in repeated]
    return Document(_mapping(value, source), source=source, problems=problems)


def _read_toml(text: str, source: str) -> Document:
    import tomllib

    try:
        return Document(tomllib.loads(text), source=source)
    except tomllib.TOMLDecodeError as error:
        raise _refusal(source, f"is not TOML: {error}") from None
    except ValueError:
        raise _refusal(source, _TOO_MANY_DIGITS) from None
    except RecursionError:
        raise _refusal(source, "is nested too deeply") from None


def _mapping(value: Any, source: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise _refusal(source, f"holds {kind}; a mapping of fields is needed, such as `model: m2m100_418m`")
    return value


def _refusal(where: str, message: str) -> ConfigError:
    return ConfigError([Problem(path="document", message=message, where=where)])


def _compose(text: str, source: str) -> tuple[Any, dict[str, int], list[Problem]]:
    """Return the value, the line of every field, and what is wrong with single values."""
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        line = f"{source}:{error.problem_mark.line + 1}" if error.problem_mark else source
        message = ", ".join(filter(None, (error.context, error.problem)))
        if "'\\t'" in message:
            message = "a tab stands where YAML wants spaces"
        raise _refusal(line, f"is not YAML: {message}") from None
    except yaml.YAMLError as error:
        raise _refusal(source, f"is not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise _refusal(source, "is nested too deeply") from None
    if node is None:
        return None, {}, []
    builder = _Builder(source)
    return builder.build(node, ""), builder.lines, builder.problems


class _Builder:
    """Turns YAML nodes into plain values and notes lines and problems on the way."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines: dict[str, int] = {}
        self.problems: list[Problem] = []
        self.nodes = 0
        self.open: set[int] = set()

    def refuse(self, node: yaml.Node, path: str, message: str, **more: str) -> None:
        where = f"{self.source}:{node.start_mark.line + 1}"
        self.problems.append(Problem(path=path or "document", message=message, where=where, **more))

    def build(self, node: yaml.Node, path: str) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES or id(node) in self.open:
            raise _refusal(f"{self.source}:{node.start_mark.line + 1}", "has aliases that multiply without end")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self.build(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
            if isinstance(node, yaml.ScalarNode):
                return self.scalar(node, path)
        finally:
            self.open.discard(id(node))
        self.refuse(node, path, f"has the tag {node.tag}", allowed="values without tags")
        return None

    def mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.build(key_node, path)
            if key == "<<":
                self.refuse(key_node, path, "has a merge key (<<), which is not read", hint="write the values out")
                continue
            if not isinstance(key, str):
                self.refuse(key_node, path, "has a key that is not a plain text", allowed="text; quote it if it is one")
                continue
            child = f"{path}.{key}" if path else key
            if key in result:
                self.refuse(key_node, child, "is given twice", hint=f"first in line {self.lines[child]}")
                continue
            self.lines[child] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, child)
        return result

    def scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "null":
            return None
        if kind == "str":
            return text
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == _AMBIGUOUS:
            allowed = "true | false, a plain number, or a text in quotes"
            self.refuse(node, path, "means different things to different YAML readers", value=text, allowed=allowed)
            return None
        try:
            if kind == "int":
                if len(text) > _MOST_DIGITS:
                    self.refuse(node, path, _TOO_MANY_DIGITS, value=f"{text[:20]}...")
                    return None
                return int(text, 0 if text[:2] in ("0o", "0x") else 10)
            if kind == "float":
                return _number(text)
        except ValueError:
            pass
        self.refuse(node, path, f"cannot be read as {node.tag}", value=text, allowed="values without tags")
        return None


def _number(text: str) -> float:
    plain = text.lower()
    if plain.endswith(".inf"):
        return -math.inf if plain.startswith("-") else math.inf
    return math.nan if plain == ".nan" else float(text)
