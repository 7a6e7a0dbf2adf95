"""`batch --wait` and `wait` while the way to the API server is bad, or the server is killed and comes back.

The control plane is real, its pods are played: what became of them is written into their status.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos.gateway import Gateway, unreliable
from chaos.tally import Order, Tally
from mtft import exit_codes
from tests.cluster.cluster import Cluster, KubectlFailed
from tests.cluster.levels import for_tests, start_control_plane
from tests.cluster.parts import MissingPart
from tests.cluster.playing import DOCUMENT, FINISHED, Played

_MODELS = ("m2m100_418m", "opus_mt_en_fr")
_PATIENCE_S = 240.0  # for a verb that should have ended


def scenario(order: Order) -> Iterator[Tally]:
    """Send and await batches, first over a bad way, then to a server that is killed."""
    bad, killed = Tally("429, 5xx, cuts: batch, wait", order.seed), Tally("API server killed: batch, wait", order.seed)
    plan = order.plan("transport")
    try:
        with for_tests(start_control_plane) as cluster:
            for _ in range(max(1, order.share(6))):
                with unreliable(cluster, plan, order.folder) as (kubeconfig, gateway):
                    _Batch(cluster, kubeconfig, order.folder, bad, plan).over(gateway)
                bad.tries += sum(gateway.met.values())
                bad.notes.append(", ".join(f"{count} {fault}" for fault, count in gateway.met.items()))
            yield bad
            for _ in range(max(1, order.share(6))):
                _Batch(cluster, cluster.kubeconfig, order.folder, killed, plan).through_restarts()
            yield killed
    except MissingPart as missing:
        for each in (bad, killed):
            each.missing = str(missing)
            yield each


class _Batch:
    """One batch of two jobs, from its sending to what `batch --wait` and `wait` say of its end."""

    def __init__(self, cluster: Cluster, kubeconfig: Path, folder: Path, tally: Tally, plan: random.Random) -> None:
        self.cluster, self.kubeconfig, self.folder, self.tally, self.plan = cluster, kubeconfig, folder, tally, plan
        self.namespace = cluster.namespace("chaos")
        self.better = plan.random() < 0.5  # the second job's model; else it is trained in vain

    def over(self, gateway: Gateway) -> None:
        """Go through it while the gateway fails."""
        gateway.asleep = False
        try:
            self._go(lambda: time.sleep(self.plan.uniform(0, 2)))
        finally:
            gateway.asleep = True

    def through_restarts(self) -> None:
        """Go through it while the server is killed before each step."""

        def kill() -> None:
            time.sleep(self.plan.uniform(0, 2))
            if self.cluster.api_server is None:
                raise MissingPart("the API server of a cluster that was given is not killed by tests")
            self.cluster.api_server(self.plan.uniform(0, 3))
            self.tally.tries += 1

        self._go(kill)

    def _go(self, disturb: Callable[[], object]) -> None:
        document = {**DOCUMENT, "models": {model: {} for model in _MODELS}}
        (self.folder / "batch.json").write_text(json.dumps(document))
        verbs = [self._verb("batch", "--config", str(self.folder / "batch.json"), "--name", "night", "--wait")]
        jobs = self._eventually(lambda: (found := self._jobs()) and len(found) == len(_MODELS) and found)
        verbs.append(self._verb("wait", "night"))
        disturb()
        for job in jobs:
            self._eventually(lambda job=job: job.await_pod())
            self._eventually(lambda job=job: job.runs() or True)
        disturb()
        for job, verdict in zip(jobs, ("better", "better" if self.better else "not better"), strict=True):
            message = {"exit_code": 0, "finished": {**FINISHED, "gate": {"verdict": verdict}}}
            self._eventually(lambda job=job, message=message: job.ends(0, message) or True)
        ended = time.monotonic()
        for verb in verbs:
            self._judge(verb)
        self.tally.recovered(ended)
        names = sorted(job.name for job in self._eventually(self._jobs))
        self.tally.expect(names == sorted(job.name for job in jobs), f"two jobs were sent, these are there: {names}")

    def _judge(self, verb: subprocess.Popen[str]) -> None:
        expected = exit_codes.DONE if self.better else exit_codes.NOT_PROMOTED
        words = " ".join(map(str, verb.args[3:5]))  # type: ignore[index]
        try:
            said, complaints = verb.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            verb.kill()
            self.tally.lose(f"{words} did not end within {_PATIENCE_S:.0f} s")
            return
        if verb.returncode != expected:
            told = (said + complaints).strip()[-400:]
            self.tally.lose(f"{words} ended with {verb.returncode}, not {expected}: {told}")

    def _jobs(self) -> list[Played]:
        found = self.cluster.get("pytorchjobs", "--namespace", self.namespace)
        return [Played(self.cluster, self.namespace, each["metadata"]["name"]) for each in found]

    def _verb(self, *arguments: str) -> subprocess.Popen[str]:
        variables = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        command = [sys.executable, "-m", "launcher", *arguments, "-n", self.namespace]
        return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _eventually(self, look: Callable[[], Any]) -> Any:
        """Return what a look gives as soon as it gives something; the server may be away meanwhile."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except KubectlFailed:
                pass
            time.sleep(0.2)
        raise AssertionError(f"waited {_PATIENCE_S:.0f} s in vain for the cluster's own parts")
