"""The commands of docs/recipes/monitoring.md, run with bash, and whether they print what the page shows.

Compared is every line; numbers, times and hashes may be others, and ``...`` stands for anything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.cluster import Cluster, write_kubeconfig
from tests.conftest import CHECKOUT

PAGE = CHECKOUT / "docs" / "recipes" / "monitoring.md"
NAMESPACE, IMAGE = "team-mt", "example.org/mtft:1.0"  # what the page calls them
_BLOCK = re.compile(r"(?:^<!-- test: (\w+) -->\n)?^```\n(\$ .*?)^```$", re.DOTALL | re.MULTILINE)
_CHANGING = {
    r"\.\.\.": ".*",
    r"\d{8}T\d{6}Z-[0-9a-f]{8}": r"\d{8}T\d{6}Z-[0-9a-f]{8}",
    r"\b(?=[a-f]*\d)[0-9a-f]{10,}\b": "[0-9a-f]{10,}",
    r"\b(?:\d+(?:s|m|h|d))+\b": r"(?:\d+(?:s|m|h|d))+",
    r"(?<![\w-])[+-]?\d+(?:\.\d+)?|\d+(?:\.\d+)?": r"[+-]?\d+(?:\.\d+)?",
}
_SECONDS = 300


@dataclass(frozen=True)
class Shown:
    """A command of the page.

    Attributes:
        test: name of the test that runs it; empty: none does.
        command: what is typed.
        output: what the page says it prints, standard error included.
    """

    test: str
    command: str
    output: str


def shown() -> Iterator[Shown]:
    """Give every command of the page in order."""
    for test, block in _BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield Shown(test, command, output.strip())


def is_shown(page: str, printed: str) -> bool:
    """Whether a command printed what the page says; a line ``...`` stands for any number of lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else f"{_pattern(line)}[ ]*\n" for line in page.splitlines())
    return re.fullmatch(pattern, f"{printed.strip()}\n") is not None


def _pattern(line: str) -> str:
    changing = re.compile("|".join(f"({each})" for each in _CHANGING))
    kinds, pattern, at = list(_CHANGING.values()), "", 0
    for match in changing.finditer(line):
        pattern += _literal(line[at : match.start()]) + kinds[(match.lastindex or 1) - 1]
        at = match.end()
    return pattern + _literal(line[at:])


def _literal(text: str) -> str:
    return "[ \t]+".join(re.escape(part) for part in re.split(r"\s+", text))


@dataclass(frozen=True)
class Console:
    """A person's shell, whose kubeconfig names the namespace that the page calls ``team-mt``.

    Attributes:
        cluster: where its commands go.
        folder: where it is.
        namespace: the one that is meant.
        image: what the page calls ``example.org/mtft:1.0``.
    """

    cluster: Cluster
    folder: Path
    namespace: str
    image: str

    def faults(self, test: str) -> list[str]:
        """Run the commands of one test and return what was printed otherwise than the page shows."""
        environment = self._environment()
        commands = [each for each in shown() if each.test == test]
        assert commands, f"{PAGE} has no block for {test}"
        printed = [(each, self._run(each.command, environment)) for each in commands]
        return [
            f"$ {each.command}\n{each.output}\n-- printed:\n{said}"
            for each, said in printed
            if not is_shown(each.output, said)
        ]

    def _run(self, command: str, environment: dict[str, str]) -> str:
        for job in self.cluster.get("pytorchjobs", "-n", self.namespace):
            name = job["metadata"]["name"]
            command = re.sub(rf"\b{name.rpartition('-')[0]}-[0-9a-f]{{10}}\b", name, command)
        done = subprocess.run(
            ["bash", "-c", f"{command.replace(NAMESPACE, self.namespace)} 2>&1"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return done.stdout.replace(self.namespace, NAMESPACE).replace(self.image, IMAGE)

    def _environment(self) -> dict[str, str]:
        programs = self.folder / "console"
        programs.mkdir(exist_ok=True)
        config = programs / "config"
        view = self.cluster.kubeconfig_content()
        view["contexts"][0]["context"]["namespace"] = self.namespace
        write_kubeconfig(config, view)
        launcher = programs / "mtft-launch"
        launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m launcher "$@"\n')
        launcher.chmod(0o755)
        (programs / "kubectl").unlink(missing_ok=True)
        (programs / "kubectl").symlink_to(self.cluster.client)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "KUBECONFIG": str(config), "PYTHONPATH": str(CHECKOUT)}
