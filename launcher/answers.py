"""Whether what came is what an API server answers to a request; a gateway in its place may answer anything. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.cluster_errors import Request


def is_object(answer: Any, request: Request) -> bool:
    """Return whether it is the object that was asked for, or made."""
    return _is(answer, request.resource.kind) and request.name in (None, answer["metadata"].get("name"))


def is_list(answer: Any, request: Request) -> bool:
    """Return whether it is a list of the objects that were asked for."""
    if not _is(answer, f"{request.resource.kind}List") or not answer["metadata"].get("resourceVersion"):
        return False
    items = answer.get("items") or []
    return isinstance(items, list) and all(_named(each) for each in items)


def is_deletion(answer: Any, request: Request) -> bool:
    """Return whether it is what a deletion is answered with: a Status, or the object that goes."""
    return _is(answer, "Status") or is_object(answer, request)


def is_review(answer: Any, request: Request) -> bool:
    """Return whether it says what a user may do."""
    given = isinstance(answer, Mapping) and answer.get("kind") == request.resource.kind
    status = answer.get("status") if given else None
    return isinstance(status, Mapping) and isinstance(status.get("allowed"), bool)


def is_version(answer: Any, _: Request) -> bool:
    """Return whether it is a version, which has no kind."""
    return isinstance(answer, Mapping) and isinstance(answer.get("gitVersion"), str)


def is_discovery(answer: Any, _: Request) -> bool:
    """Return whether it says which kinds a group has."""
    if not isinstance(answer, Mapping) or answer.get("kind") != "APIResourceList":
        return False
    found = answer.get("resources")
    return isinstance(found, list) and all(isinstance(each, Mapping) and "name" in each for each in found)


def _is(answer: Any, kind: str) -> bool:
    return isinstance(answer, Mapping) and answer.get("kind") == kind and isinstance(answer.get("metadata"), Mapping)


def _named(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("metadata"), Mapping) and "name" in item["metadata"]
