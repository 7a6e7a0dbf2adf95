"""The commands that are printed for a person to copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def launch(verb: str, job: Mapping[str, Any], options: str = "") -> str:
    """Return the command that does something with a PyTorchJob, such as ``mtft-launch resume m-1 -n team``."""
    meta = job["metadata"]
    return f"mtft-launch {verb} {meta['name']}{options}{in_namespace(meta['namespace'])}"


def in_namespace(namespace: str | None) -> str:
    """Return `` -n NAMESPACE``, which a command ends with.

    Always named: jobs of several namespaces have equal names, and who copies the command may stand in another folder
    or have another context by then.
    """
    return f" -n {namespace}" if namespace else ""
