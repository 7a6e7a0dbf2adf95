"""Measure the time from sending a job to its first training step, on a cluster whose pods run.

Run: python -m benchmarks.first_step

Starts the full test cluster, or takes the one that MTFT_TEST_KUBECONFIG names; the image lies on the node already. The
job is a stand-in of opus_mt_en_fr on generated sentences in one pod of 0.9 CPU, sent twice: with new data, and once
more (`--rerun`) when the tokenised data are there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from demo.corpus import generate, write_jsonl
from launcher.cluster import connect
from launcher.resources import JOBS, PODS
from tests.cluster.cluster import Cluster
from tests.cluster.images import mtft_image
from tests.cluster.levels import for_tests, start_full
from tests.cluster.parts import MissingPart
from tests.standins.build import cached_standin

MODEL = "opus_mt_en_fr"
DOCUMENT: dict[str, Any] = {
    "model": {"key": MODEL, "path": "/mnt/mtft/data/base"},
    "data": {"train": "/mnt/mtft/data/train.jsonl"},
    "train": {"max_steps": 2},
    "eval": {"beams": 1, "every": 1000, "max_dev_rows": 6, "max_test_rows": 8, "bootstrap_samples": 50},
    "tracking": {"log_every_steps": 1, "tensorboard": False},
    "cluster": {"gpus_per_node": 0, "cpus": 0.9, "memory_gib": 3, "shared_memory_gib": 0.25},
}


def launch(namespace: str, *arguments: str) -> None:
    """Run a verb; a job that trained nothing better counts as done."""
    command = [sys.executable, "-m", "launcher", *arguments, "-n", namespace]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 4):
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")


def push(namespace: str, folder: Path) -> None:
    """Put a base and sentences on the volume."""
    pairs = generate("assessment", 2000, seed=5)
    write_jsonl(folder / "train.jsonl", pairs)
    texts = [text for pair in pairs for text in (pair.source_en, pair.target_fr)]
    shutil.copytree(cached_standin(MODEL, lines=texts), folder / "base")
    for name in ("train.jsonl", "base"):
        launch(namespace, "data", "push", str(folder / name), "--config", str(folder / "mtft.json"))


def timeline(namespace: str, volume: Path) -> dict[str, float]:
    """Return seconds since the newest job was made; Kubernetes tells whole seconds, the first step thousandths."""
    cluster = connect(None, namespace)
    job = max(cluster.list(JOBS).items, key=lambda each: str(each["metadata"]["creationTimestamp"]))
    (pod,) = (each for each in cluster.list(PODS).items if each["metadata"]["name"].startswith(job["metadata"]["name"]))
    run = max((volume / "outputs" / MODEL / "runs").iterdir())
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp()
    scheduled = next(each for each in pod["status"]["conditions"] if each["type"] == "PodScheduled")
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    told = {
        "pod made": pod["metadata"]["creationTimestamp"],
        "pod has a node": scheduled["lastTransitionTime"],
        "trainer started": ended["startedAt"],
    }
    found = {name: datetime.fromisoformat(text).timestamp() - begin for name, text in told.items()}
    return found | {"first training step done": next(one["time"] for one in lines if one["type"] == "train") - begin}


def measure(running: Cluster, image: str) -> None:
    """Send the job twice and print both timelines."""
    namespace = running.namespace("first-step", restricted=True)
    assert running.volumes is not None
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mtft.json"
        config.write_text(json.dumps(DOCUMENT | {"cluster": DOCUMENT["cluster"] | {"image": image}}))
        push(namespace, Path(folder))
        for name, more in (("new data", ()), ("data tokenised before", ("--rerun",))):
            launch(namespace, "run", "--wait", "--config", str(config), *more)
            print(f"{name}:", flush=True)
            for what, seconds in timeline(namespace, running.volumes / namespace).items():
                print(f"  {what:<26}{seconds:>7.1f} s after the job was made", flush=True)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        image = mtft_image()
        with for_tests(start_full) as running:
            if running.volumes is None:
                raise MissingPart("the volumes of a cluster that was given cannot be looked into")
            os.environ["KUBECONFIG"] = str(running.kubeconfig)
            for part in image.parts:
                running.import_image(part.archive, part.name)
            measure(running, image.name)
    except MissingPart as error:
        print(f"no cluster, so nothing is measured: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
