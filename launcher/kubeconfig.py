"""The shape of a kubeconfig: its reader takes that for granted and fails with Python's words where it is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_PARTS = {"clusters": "cluster", "users": "user", "contexts": "context"}
_TEXTS = frozenset(
    (
        *("server", "tls-server-name", "proxy-url", "certificate-authority", "certificate-authority-data"),
        *("cluster", "user", "namespace"),
        *("token", "tokenFile", "client-certificate", "client-certificate-data", "client-key", "client-key-data"),
        *("username", "password", "as", "command", "apiVersion"),
    )
)
_KINDS: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    dict: "a mapping",
    list: "a list",
    type(None): "nothing",
}


def faults(value: Any) -> Iterator[str]:
    """Say what is wrong in what a file of ``KUBECONFIG`` says, never with a value: it may be a secret."""
    if value is None:  # an empty file beside others
        return
    if not isinstance(value, dict):
        yield _wrong("the file", "a mapping", value)
        return
    if not isinstance(value.get("current-context"), str | None):
        yield _wrong("current-context", "text", value["current-context"])
    for part, entry in _PARTS.items():
        found = value.get(part)
        if found is not None and not isinstance(found, list):
            yield _wrong(part, "a list", found)
            continue
        for index, each in enumerate(found or []):
            yield from _entry(each, f"{part}[{index}]", entry)


def _entry(value: Any, where: str, entry: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield _wrong(where, f"a mapping with name and {entry}", value)
        return
    if not isinstance(value.get("name"), str):
        yield _wrong(f"{where}.name", "text", value.get("name"))
    if not isinstance(value.get(entry), dict):
        yield _wrong(f"{where}.{entry}", "a mapping", value.get(entry))
        return
    yield from _fields(value[entry], f"{where}.{entry}")
    if "exec" in value[entry]:
        login = value[entry]["exec"]
        if isinstance(login, dict):
            yield from _login(login, f"{where}.{entry}.exec")
        else:
            yield _wrong(f"{where}.{entry}.exec", "a mapping", login)


def _login(given: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _fields(given, where)
    for part in ("args", "env"):
        if not isinstance(given.get(part), list | None):
            yield _wrong(f"{where}.{part}", "a list", given[part])
            return
    for index, word in enumerate(given.get("args") or []):
        if not isinstance(word, str):
            yield _wrong(f"{where}.args[{index}]", "text", word)
    for index, variable in enumerate(given.get("env") or []):
        if not isinstance(variable, dict):
            yield _wrong(f"{where}.env[{index}]", "a mapping with name and value", variable)
            continue
        for key in ("name", "value"):
            if not isinstance(variable.get(key), str):
                yield _wrong(f"{where}.env[{index}].{key}", "text", variable.get(key))


def _fields(given: Mapping[str, Any], where: str) -> Iterator[str]:
    for key, value in given.items():
        if key in _TEXTS and not isinstance(value, str | None):
            yield _wrong(f"{where}.{key}", "text", value)
        if key == "insecure-skip-tls-verify" and not isinstance(value, bool | None):
            yield _wrong(f"{where}.{key}", "true or false", value)


def _wrong(where: str, allowed: str, value: Any) -> str:
    return f"{where} must be {allowed}; it is {_KINDS.get(type(value), type(value).__name__)}"
