"""Every file that is generated from the schema: the reference, its JSON Schema and most of the Helm chart.

Run ``python -m mtft.generated`` to write them, with ``--check`` to learn whether they are up to date.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mtft import chart, exit_codes, reference
from mtft.files import write_text

CHECKOUT = Path(__file__).parents[1]


def documents() -> dict[Path, str]:
    """Return every generated file and its text."""
    schema = json.dumps(reference.document_schema(), ensure_ascii=False, indent=2) + "\n"
    docs = {"docs/reference.md": reference.reference(), "docs/config.schema.json": schema}
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    charted = {f"helm/mtft/{name}": text for name, text in chart.files(project).items()}
    return {CHECKOUT / name: text for name, text in (docs | charted).items()}


def main() -> int:
    """Write the generated files, or with ``--check`` report the stale ones."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print("usage: python -m mtft.generated [--check]", file=sys.stderr)
        return exit_codes.BAD_INPUT
    wanted = documents()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if not check:
            write_text(path, wanted[path])
        print(f"{path.relative_to(CHECKOUT)}: {'stale, run `python -m mtft.generated`' if check else 'written'}")
    return exit_codes.FAILED if check and stale else exit_codes.DONE


if __name__ == "__main__":
    sys.exit(main())
