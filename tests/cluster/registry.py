"""A real OCI registry on the loopback, for charts that are pushed and installed from there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from tests.cluster.parts import program
from tests.cluster.processes import Processes, answers, free_ports


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Give ``host:port`` of a registry without TLS or accounts, whose images lie below a folder.

    Raises:
        MissingPart: docker-registry is not installed.
    """
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    folder.mkdir(parents=True)
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
        "http": {"addr": address},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    processes = Processes(folder)
    processes.start("registry", [program("docker-registry"), "serve", folder / "config.yml"])
    try:
        processes.wait("registry", lambda: answers(f"http://{address}/v2/"))
        yield address
    finally:
        processes.stop()
