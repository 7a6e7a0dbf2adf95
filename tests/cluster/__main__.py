"""Start and end the test cluster by hand: ``python -m tests.cluster up``."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.levels import FAILED_LOGS, LEVELS, end
from tests.cluster.parts import CACHE, CONTROL_PLANE, IMAGES, NODE, MissingPart, ensure_packages
from tests.cluster.processes import ClusterFailed, Processes
from tests.cluster.toolchain import tools

STATE = CACHE / "cluster"
_HOW_TO = """\
A Kubernetes with the training operator is up. In this shell:
  export KUBECONFIG={kubeconfig}
  export PATH={programs}:$PATH          # kubectl of its version, helm3, helm4
  kubectl apply -k manifests/online     # namespace mtft, where the claim finds a volume
Logs: {state}/logs. End it with `make cluster-down`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("tools", help="build the cluster's programs (15 minutes once) and install Debian packages")
    up = verbs.add_parser("up", help="start a cluster that lasts until `down`")
    up.add_argument("--level", choices=sorted(LEVELS), default="full", help="control-plane: pods do not run")
    verbs.add_parser("down", help="end it and remove its data")
    verbs.add_parser("reap", help="wait for the end of standard input, then end the cluster of a folder").add_argument(
        "state", type=Path
    )
    options = parser.parse_args(arguments)
    try:
        if options.verb == "tools":
            _tools()
        elif options.verb == "up":
            _up(options.level)
        elif options.verb == "down":
            end(STATE)
            with suppress(MissingPart), _starting():  # takes away what a killed start left
                pass
        else:
            sys.stdin.buffer.read()
            end(options.state)
    except (MissingPart, ClusterFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        if isinstance(error, ClusterFailed):
            print(f"all logs: {FAILED_LOGS}", file=sys.stderr)
        return 1
    return 0


def _tools() -> None:
    ensure_packages({**CONTROL_PLANE, **NODE, **IMAGES})
    print(tools(report=lambda line: print(line, flush=True)).folder / "bin")


def _up(level: str) -> None:
    with _starting():
        if not STATE.exists():
            tools(report=lambda line: print(line, flush=True))
            _furnish(LEVELS[level](STATE))
        elif Processes(STATE).running("kube-apiserver"):
            print("there is one already: `make cluster-down` ends it\n")
        else:
            raise MissingPart(f"{STATE} holds what is left of one that runs no more: `make cluster-down` removes it")
    kubeconfig = STATE / "kubeconfigs" / "admin"
    print(_HOW_TO.format(kubeconfig=kubeconfig, programs=tools().folder / "bin", state=STATE))


@contextmanager
def _starting() -> Iterator[None]:
    """Keep a second start from taking a cluster for one that is up while the first still starts it.

    Raises:
        MissingPart: another one starts it.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / "cluster.starting"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MissingPart("another `make cluster-up` is starting it; that one tells when it is up") from None
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(lock.fileno())):
            raise MissingPart("another `make cluster-up` ended in this moment; give the command again")
        try:
            yield
        finally:
            path.unlink()


def _furnish(cluster: Cluster) -> None:
    """Give a person what the README starts from: a volume for namespace mtft, and the image on the node."""
    cluster.offer_volume("mtft")
    if cluster.importer is None:
        return
    from tests.cluster.images import mtft_image

    image = mtft_image()
    for part in image.parts:
        cluster.import_image(part.archive, part.name)
    print(f"image of this checkout, on the node: {image.name}")


if __name__ == "__main__":
    sys.exit(main())
