"""A worker that is killed inside a file operation: ``MTFT_TEST_KILL=<function>:<nth call>:<before|after>``.

The function is one of those every publication goes through: ``os.replace``, ``pathlib.Path.rename`` and
``mtft.files.sync_folder``. It counts the calls that touch ``MTFT_TEST_KILL_AT``, part of a path, on rank 0.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.worker import main


def die_in(function: Callable[..., Any], nth: int, when: str, at: str) -> Callable[..., Any]:
    """Wrap a function that takes paths, so that it never returns from its nth call on a matching path."""
    calls = 0

    def wrapped(*paths: Any) -> Any:
        nonlocal calls
        calls += any(at in str(path) for path in paths)
        fatal = calls == nth and os.environ["RANK"] == "0"
        if fatal and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*paths)
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


if __name__ == "__main__":
    name, nth, when = os.environ["MTFT_TEST_KILL"].split(":")
    module, _, attribute = name.rpartition(".")
    owner: Any = Path if module == "pathlib.Path" else importlib.import_module(module)
    setattr(owner, attribute, die_in(getattr(owner, attribute), int(nth), when, os.environ["MTFT_TEST_KILL_AT"]))
    main()
