"""A verb of mtft-launch that runs beside, as a person starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_FIRST_WORD_S = 120.0


class Verb:
    """One started verb.

    Attributes:
        words: its command line, as a person would type it.
    """

    def __init__(self, *arguments: str, kubeconfig: Path, namespace: str) -> None:
        self.words = " ".join(arguments[:2])
        # Files, because nobody reads pipes while a verb waits for minutes; they go with this object.
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [sys.executable, "-m", "launcher", *arguments, "-n", namespace]
        variables = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        self._process = subprocess.Popen(command, env=variables, stdout=self._out, stderr=self._err)

    def has_spoken(self) -> bool:
        """Wait for its first words, after which the server has answered it once; False when it ends without any."""
        end = time.monotonic() + _FIRST_WORD_S
        while not any(os.fstat(file.fileno()).st_size for file in (self._out, self._err)):
            if self._process.poll() is not None or time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def ends(self, seconds: float) -> int | None:
        """Wait for its exit code; None: it did not end in time and was killed."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None

    @property
    def said(self) -> str:
        """What it wrote to standard output."""
        self._out.seek(0)
        return self._out.read()

    @property
    def complaint(self) -> str:
        """The end of what it wrote to standard error."""
        self._err.seek(0)
        return self._err.read().strip()[-400:]
