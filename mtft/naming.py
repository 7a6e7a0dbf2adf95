"""Names of jobs, and the canonical text of a configuration they depend on.

The canonical text is JSON that Python and Helm templates can both make, byte for byte:

- compact (``,`` and ``:`` alone), keys sorted by code point, nulls and empty mappings kept;
- text as UTF-8, not escaped but for ``"``, ``\\``, control characters (``\\b \\f \\n \\r \\t``, else ``\\u00xx``)
  and the line separators U+2028 and U+2029 (``\\u2028``, ``\\u2029``), as Go does it without HTML escapes;
- every number as the nearest 64-bit float in its shortest form: no exponent from 1e-6 to below 1e21 and no ``.0``,
  else ``1e-7``, ``1e+21`` (RFC 8785, which Go's encoder follows);
- left out: ``cluster`` and ``storage`` (placement), ``chart``, and a part left empty, which says nothing:
  ``eval: null`` of the document or of a model. Helm loses it in ``upgrade --reuse-values``.

``data.sha256`` is part of it, so new data makes a new name.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from mtft.paths import flattened, overlay

PLACEMENT = ("cluster", "storage", "chart")
LONGEST_NAME = 50  # characters; a pod is <job>-<master|worker>-<n> and its name a label of at most 63
DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""A DNS-1123 label, such as the name of a namespace."""
JOB_NAME = r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?"
"""What a job may be called: a DNS-1035 label of at most ``LONGEST_NAME`` characters."""
_LONGEST_MODEL = 20
_HASH_DIGITS = 10
_TOLD = 5  # differing settings named in a refusal
_LONGEST_VALUE = 72  # characters of a value there; a quoted SHA-256 has 66


def canonical(document: Mapping[str, Any], *, nonce: str | None = None) -> str:
    """Return the canonical text of an unresolved configuration; a nonce makes a rerun another one.

    Raises:
        ValueError: a number is not finite, or a value is not JSON.
    """
    kept: dict[str, Any] = {name: value for name, value in document.items() if name not in PLACEMENT}
    if nonce is not None:
        kept["nonce"] = nonce
    return _text(kept)


def document_text(document: Mapping[str, Any]) -> str:
    """Return the whole document as a job mounts it: canonical, everything but ``chart``.

    A part left empty is left out, and a model that a batch names without a word is written ``{}``: Helm cannot hand on
    a null in their place.

    Raises:
        ValueError: a number is not finite, or a value is not JSON.
    """
    mounted = {name: value for name, value in document.items() if name != "chart" and value is not None}
    if isinstance(models := mounted.get("models"), Mapping):
        mounted["models"] = {key: {} if override is None else override for key, override in models.items()}
    return _text(mounted)


def config_hash(document: Mapping[str, Any], model: str, *, nonce: str | None = None) -> str:
    """Return 10 hex digits that identify what a document asks of one model; see :func:`alone`."""
    return hashlib.sha256(canonical(alone(document, model), nonce=nonce).encode()).hexdigest()[:_HASH_DIGITS]


def alone(document: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Return the document of one model: the shared part with the model's own overrides written over it.

    So other models of a batch change nothing, and the same job alone has the same hash.
    """
    asked: dict[str, Any] = {
        name: value for name, value in document.items() if name not in ("model", "models") and value is not None
    }
    given = document.get("model")
    if isinstance(given, Mapping):
        asked["model"] = dict(given)
    override = (document.get("models") or {}).get(model) or {}
    overlay(asked, {name: value for name, value in override.items() if name != "enabled" and value is not None})
    overlay(asked, {"model": {"key": model}})
    return asked


def config_differences(before: Mapping[str, Any], now: Mapping[str, Any], model: str) -> list[str]:
    """Name what two documents of different :func:`config_hash` ask differently of one model, with both values."""
    asked = (alone(document, model) for document in (before, now))
    return differences(*({name: its for name, its in each.items() if name not in PLACEMENT} for each in asked))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the settings that differ, at most 5, with both values."""
    olds, news = ({".".join(path): value for path, value in flattened(each).items()} for each in (before, now))

    def text(values: Mapping[str, Any], name: str) -> str:
        if name not in values:
            return "not given"
        value = _text(values[name])
        return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…"

    def same(name: str) -> bool:
        return name in olds and name in news and _text(olds[name]) == _text(news[name])

    names = [name for name in sorted({*olds, *news}) if not same(name)]
    told = [f"{name} was {text(olds, name)}, is {text(news, name)}" for name in names[:_TOLD]]
    return [*told, f"and {len(names) - _TOLD} more"] if len(names) > _TOLD else told


def job_name(prefix: str, model: str, hash: str) -> str:
    """Return ``<prefix>-<model>-<hash>`` as a DNS-1035 label of at most 50 characters.

    A prefix or model that has to be changed or shortened gets a short hash of its own, so different ones stay
    different; underscores simply become dashes in a model. An empty prefix is left out.
    """
    tail = f"{_label(model.replace('_', '-'), _LONGEST_MODEL)}-{hash}"
    return f"{_label(prefix, LONGEST_NAME - len(tail) - 1)}-{tail}" if prefix else tail


def number_text(value: float) -> str:
    """Return the canonical text of a number: the shortest that reads back equal, ``4`` for 4.0.

    Raises:
        ValueError: the number is not finite.
    """
    try:
        value = float(value)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{value} has no place in JSON")
    # repr gives the shortest digits; only their layout differs between Python and Go.
    sign, digits, exponent = re.fullmatch(r"(-?)([\d.]+)(?:e([-+]\d+))?", repr(value)).groups()  # type: ignore[union-attr]
    whole, _, fraction = digits.partition(".")
    fraction = "" if fraction == "0" else fraction
    point = len(whole) + int(exponent or 0)
    digits = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    if not digits:
        return sign + "0"
    if not -6 < point <= 21:
        mantissa = digits[0] + ("." + digits[1:] if digits[1:] else "")
        return f"{sign}{mantissa}e{point - 1:+d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits.ljust(point, "0")
    return f"{sign}{digits[:point]}.{digits[point:]}"


def _label(text: str, longest: int) -> str:
    """Return the text as a DNS-1035 label, marked with a hash where it had to be changed."""
    if len(text) <= longest and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    readable = re.sub(r"^[^a-z]+", "", re.sub(r"[^a-z0-9]+", "-", text.lower()))
    return f"{readable[: longest - 7].strip('-') or 'x'}-{digest}"


def _text(value: Any) -> str:
    match value:
        case None | bool():
            return json.dumps(value)
        case int() | float():
            return number_text(value)
        case str():
            plain = json.dumps(value, ensure_ascii=False)
            return plain.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        case Mapping():
            return "{" + ",".join(f"{_text(str(name))}:{_text(value[name])}" for name in sorted(value)) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_text, value)) + "]"
        case _:
            raise ValueError(f"{value!r} has no place in JSON")
