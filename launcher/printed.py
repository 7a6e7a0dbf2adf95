"""The commands that are printed for a person to copy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_AT_A_STORE = re.compile(r"`(mtft-launch (?:promote|rollback|history|fetch|translate|reproduce) [^`]*)`")


class _Given:
    """What the command line named and every printed command repeats."""

    context: str | None = None


@contextmanager
def repeating(context: str | None) -> Iterator[None]:
    """Let every command printed within name a kubeconfig context; None: the current one is meant."""
    before, _Given.context = _Given.context, context
    try:
        yield
    finally:
        _Given.context = before


def launch(verb: str, job: Mapping[str, Any], options: str = "") -> str:
    """Return the command that does something with a PyTorchJob, such as ``mtft-launch resume m-1 -n team``."""
    meta = job["metadata"]
    return f"mtft-launch {verb} {meta['name']}{options}{in_namespace(meta['namespace'])}"


def in_namespace(namespace: str | None) -> str:
    """Return `` -n NAMESPACE``, and the context where the command line gave one: what a command ends with.

    The namespace is always named: jobs of several namespaces have equal names, and who copies the command may stand in
    another folder by then.
    """
    place = f" -n {namespace}" if namespace else ""
    return place + (f" --context {shlex.quote(_Given.context)}" if _Given.context else "")


def placed(text: str, place: str) -> str:
    """Let the commands in a store's own words name that store: they come from where nobody knows how it is reached."""
    return _AT_A_STORE.sub(lambda found: f"`{found[1]}{place}`", text)


def here(root: str | Path | None) -> str:
    """Return what a command on a store of this machine ends with; None: that of the current folder."""
    return " --backend local" if root is None else f" --output {shlex.quote(str(root))}"
