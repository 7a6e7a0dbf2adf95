"""Measure sending jobs to a real API server, and looking at many: seconds and API calls.

Run: python -m benchmarks.submit [--jobs 500]

Starts a control plane of its own (etcd, API server, controllers, operator; no pod runs), or takes the cluster that
MTFT_TEST_KUBECONFIG names. Beside the launcher's seconds stand those `kubectl get pytorchjobs` takes for the same jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

from launcher import labels
from launcher.cluster import Cluster, connect
from launcher.pytorchjob import render
from launcher.resources import JOBS, PODS
from launcher.submit import submit
from launcher.watching import jobs_now
from mtft.models import MODELS
from tests.cluster.cluster import Cluster as TestCluster
from tests.cluster.levels import for_tests, start_control_plane
from tests.cluster.parts import MissingPart

DOCUMENT: dict[str, Any] = {
    "data": {"train": "/mnt/mtft/data/train.jsonl"},
    "cluster": {"image": "localhost/none:1", "gpus_per_node": 0, "cpus": 1, "memory_gib": 1},
}


def measured(name: str, cluster: Cluster, action: Callable[[], object]) -> None:
    """Print the seconds and API calls of an action."""
    calls, begin = cluster.calls, time.perf_counter()
    action()
    print(f"{name:<44}{time.perf_counter() - begin:>8.2f} s{cluster.calls - calls:>8} calls", flush=True)


def wall(name: str, command: list[str]) -> None:
    """Print the seconds of a program, its start-up included."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(f"{name:<44}{time.perf_counter() - begin:>8.2f} s", flush=True)


def send(cluster: Cluster, nonces: Sequence[str]) -> None:
    """Send one job for each nonce, models in turn."""
    for nonce, model in zip(nonces, cycle(MODELS)):
        submit(cluster, render(DOCUMENT, model, nonce=nonce, namespace=cluster.namespace))


def pods_there(cluster: Cluster, count: int, seconds: float = 600) -> None:
    """Wait until the operator has made the pods."""
    deadline = time.monotonic() + seconds
    while len(cluster.list(PODS, selector=labels.SELECTOR).items) < count and time.monotonic() < deadline:
        time.sleep(0.5)


def measure(running: TestCluster, namespace: str, many: int) -> None:
    """Send five jobs, then many; look at all of them in every way."""
    config = running.kubeconfig.with_name("bench.json")
    config.write_text(json.dumps(DOCUMENT))
    cluster, here = connect(None, namespace), ["-n", namespace]
    launcher = [sys.executable, "-m", "launcher"]
    kubectl = [str(running.client), "--kubeconfig", str(running.kubeconfig)]
    wall("batch --all: five submits, whole program", [*launcher, "batch", "--all", "--config", str(config), *here])
    measured("five submits, in a running program", cluster, lambda: send(cluster, [f"few{i}" for i in range(5)]))
    measured(f"{many} submits, one after another", cluster, lambda: send(cluster, [f"many{i}" for i in range(many)]))
    measured("until the operator has made all pods", cluster, lambda: pods_there(cluster, many + 10))
    measured("list of jobs and pods: what status needs", cluster, lambda: jobs_now(cluster))
    for verb in ("status", "list"):
        wall(f"mtft-launch {verb}, whole program", [*launcher, verb, *here])
    wall("kubectl get pytorchjobs", [*kubectl, *here, "get", "pytorchjobs"])
    print(f"jobs at the end: {len(cluster.list(JOBS, selector=labels.SELECTOR).items)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=500)
    many = parser.parse_args().jobs
    try:
        with for_tests(start_control_plane) as running:
            os.environ["KUBECONFIG"] = str(running.kubeconfig)
            measure(running, running.namespace("bench"), many)
    except MissingPart as error:
        print(f"no cluster, so nothing is measured: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
