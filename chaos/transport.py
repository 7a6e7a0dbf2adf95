"""`batch --wait` and `wait` while the way to the API server is bad, or the server is killed and comes back.

The control plane is real, its pods are played: what became of them is written into their status.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from chaos.gateway import unreliable
from chaos.tally import Order, Tally
from chaos.verbs import Verb
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
                with unreliable(cluster, plan, order.folder) as one, unreliable(cluster, plan, order.folder) as other:
                    _Batch(cluster, (one[0], other[0]), order.folder, bad, plan).over_bad_ways()
                met = {fault: count + other[1].met[fault] for fault, count in one[1].met.items()}
                bad.tries += sum(met.values())
                bad.notes.append(", ".join(f"{count} {fault}" for fault, count in met.items()))
            yield bad
            for _ in range(max(1, order.share(6))):
                ways = cluster.kubeconfig, cluster.kubeconfig
                _Batch(cluster, ways, order.folder, killed, plan).through_restarts()
            yield killed
    except MissingPart as missing:
        for each in (bad, killed):
            each.missing = str(missing)
            yield each


class _Batch:
    """One batch of two jobs, from its sending to what `batch --wait` and `wait` say of its end."""

    def __init__(
        self, cluster: Cluster, ways: tuple[Path, Path], folder: Path, tally: Tally, plan: random.Random
    ) -> None:
        self.cluster, self.ways, self.folder, self.tally, self.plan = cluster, ways, folder, tally, plan
        self.verbs: list[Verb] = []
        # After several restarts the controllers take up to a minute before they look at the server again.
        self.namespace: str = self._eventually(lambda: cluster.namespace("chaos"))
        self.better = plan.random() < 0.5  # the second job's model; else it is trained in vain

    def over_bad_ways(self) -> None:
        """Go through it while the gateways fail."""
        self._go(lambda: time.sleep(self.plan.uniform(0, 2)))

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
        given = ("batch", "--config", str(self.folder / "batch.json"), "--name", "night", "--wait")
        batch = Verb(*given, kubeconfig=self.ways[0], namespace=self.namespace)
        self.verbs = [batch]
        jobs = self._eventually(lambda: (found := self._jobs()) and len(found) == len(_MODELS) and found)
        wait = Verb("wait", "night", kubeconfig=self.ways[1], namespace=self.namespace)
        self.verbs.append(wait)
        for verb in (batch, wait):
            self.tally.expect(verb.has_spoken(), f"{verb.words} said nothing: {verb.complaint}")
        disturb()
        for job in jobs:
            self._eventually(job.await_pod)
            self._eventually(partial(_done, job.runs))
        disturb()
        for job, verdict in zip(jobs, ("better", "better" if self.better else "not better"), strict=True):
            message = {"exit_code": 0, "finished": {**FINISHED, "gate": {"verdict": verdict}}}
            self._eventually(partial(_done, job.ends, 0, message))
        ended = time.monotonic()
        for verb in (batch, wait):
            self._judge(verb)
        self.tally.recovered(ended)
        names = sorted(job.name for job in self._eventually(self._jobs))
        self.tally.expect(names == sorted(job.name for job in jobs), f"two jobs were sent, these are there: {names}")

    def _judge(self, verb: Verb) -> None:
        expected = exit_codes.DONE if self.better else exit_codes.NOT_PROMOTED
        if (code := verb.ends(_PATIENCE_S)) != expected:
            self.tally.lose(f"{verb.words} ended with {code}, not {expected}: {verb.complaint}")

    def _jobs(self) -> list[Played]:
        found = self.cluster.get("pytorchjobs", "--namespace", self.namespace)
        return [Played(self.cluster, self.namespace, each["metadata"]["name"]) for each in found]

    def _eventually(self, look: Callable[[], Any]) -> Any:
        """Return what a look gives as soon as it gives something; the server may be away meanwhile."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except (KubectlFailed, AssertionError):  # the server, or what it has to make, is not back yet
                pass
            time.sleep(0.2)
        told = "\n".join(f"{verb.words}: {verb.said}\n{verb.complaint}" for verb in self.verbs)
        raise AssertionError(
            f"waited {_PATIENCE_S:.0f} s in vain for what the verbs and the cluster's parts do:\n{told}"
        )


def _done(action: Callable[..., object], *given: Any) -> bool:
    action(*given)
    return True
