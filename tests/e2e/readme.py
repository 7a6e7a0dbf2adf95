"""The README's Python blocks, run where nothing of the project can be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import CHECKOUT

MARK = "<!-- executed by tests/e2e -->"


def blocks() -> list[str]:
    """Return the marked blocks: loading a one-way adapter, and what a two-way one needs besides."""
    parts = (CHECKOUT / "README.md").read_text(encoding="utf-8").split(MARK)[1:]
    found = [part.split("```python\n", 1)[1].split("```", 1)[0] for part in parts]
    assert len(found) == 2
    return found


def run_without_mtft(base: Path, lora: Path, folder: Path, *, two_way: bool, more: str = "") -> list[str]:
    """Run the README's lines for an adapter and ``more`` after them; return the lines printed."""
    one, two = blocks()
    code = [f"base, lora = {str(base)!r}, {str(lora)!r}", one, *([two] if two_way else []), more]
    guard = (
        "import sys, importlib.util\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in getattr(f, '__module__', '')]\n"
        f"sys.path = [p for p in sys.path if p != {str(CHECKOUT)!r}]\n"
        "assert not importlib.util.find_spec('trainer') and not importlib.util.find_spec('mtft')\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", guard + "\n".join(code)],
        env={"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()
