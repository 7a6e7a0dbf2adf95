"""Kubernetes objects as text that every YAML reader, kubectl's included, reads back as the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from mtft.documents import CoreDumper

# No reader takes a text that begins so for a number; words such as ``no`` the base class quotes.
_NO_NUMBER = re.compile(r"-{0,2}[^\W\d_]|/")


class _Dumper(CoreDumper):
    """Quotes every text that could be a number to some reader (hashes, sizes, versions), and leaves JSON readable."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out; aliases are no help in a manifest."""
        return True


def _text(dumper: _Dumper, data: str) -> yaml.ScalarNode:
    style = None if _NO_NUMBER.match(data) else '"'
    if data.startswith("{"):
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style if data.isprintable() else '"')


_Dumper.add_representer(str, _text)


def as_yaml(manifests: Sequence[dict[str, Any]]) -> str:
    """Return objects as a stream of YAML documents, each begun by ``---``."""
    return str(
        yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, explicit_start=True)
    )


def as_json(manifests: Sequence[dict[str, Any]]) -> str:
    """Return objects as one JSON ``List``, which kubectl takes as well."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)}, ensure_ascii=False, indent=2)
