"""Whole manifests for every document in tests/configs, as ``mtft-launch render`` prints them.

Run ``python -m tests.goldens`` to write tests/configs/golden, with ``--check`` to learn whether it is up to date.
It writes manifests/examples too, which come from the same documents.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.manifests import as_yaml
from launcher.pytorchjob import render
from launcher.surroundings import claim, network_policy
from mtft import exit_codes
from mtft.files import write_text
from mtft.settings import load_document, models_of

CONFIGS = Path(__file__).parent / "configs"
GOLDEN = CONFIGS / "golden"
EXAMPLES = Path(__file__).parents[1] / "manifests" / "examples"

# What the command line adds to a document.
OPTIONS: dict[str, dict[str, str]] = {
    "batch": {"batch": "weekly"},
    "batch_overrides": {"batch": "2026-11"},
    "rerun": {"nonce": "5f2c9a01"},
}
# The documents that are shown to users as well.
SHOWN = ("minimal", "batch", "multi_node", "queue")


def cases() -> list[str]:
    """Return the names of all documents."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def objects(case: str) -> list[dict[str, Any]]:
    """Return what a document is rendered to, every model of a batch in turn."""
    document = load_document(CONFIGS / f"{case}.yaml")
    options: dict[str, Any] = OPTIONS.get(case, {})
    return [each for model in models_of(document) for each in render(document, model, **options)]


def documents() -> dict[Path, str]:
    """Return every generated file and its text."""
    golden = {GOLDEN / f"{case}.yaml": as_yaml(objects(case)) for case in cases()}
    return golden | dict(_examples())


def _examples() -> Iterator[tuple[Path, str]]:
    yield EXAMPLES / "claim.yaml", as_yaml([claim("mtft", "200Gi", None, None)])
    for case in SHOWN:
        manifests = objects(case)
        if case == "multi_node":
            manifests.append(network_policy(manifests[-1]))
        head = f"# `mtft-launch render` of tests/configs/{case}.yaml; written by `make generate`.\n"
        yield EXAMPLES / f"{case}.yaml", head + as_yaml(manifests)


def main() -> int:
    """Write the files, or with ``--check`` report those that are stale or belong to nothing."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print("usage: python -m tests.goldens [--check]", file=sys.stderr)
        return exit_codes.BAD_INPUT
    wanted = documents()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    left = [path for folder in (GOLDEN, EXAMPLES) for path in folder.glob("*.yaml") if path not in wanted]
    for path in stale + left:
        if not check and path in wanted:
            write_text(path, wanted[path])
        elif not check:
            path.unlink()
        what = "stale, run `make generate`" if check else "written" if path in wanted else "removed"
        print(f"{path.parent.name}/{path.name}: {what}")
    return exit_codes.FAILED if check and stale + left else exit_codes.DONE


if __name__ == "__main__":
    sys.exit(main())
