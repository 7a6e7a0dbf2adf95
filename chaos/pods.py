"""Two-pod jobs on a real kubelet: pods deleted at random moments, the node drained, the API server killed meanwhile."""

from __future__ import annotations

import math
import random
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chaos import runs
from chaos.gateway import unreliable
from chaos.tally import Order, Tally
from chaos.verbs import Verb
from launcher.pytorchjob import render
from mtft import exit_codes
from mtft.runs import RunPaths, parse_time, read_job
from tests.cluster.cluster import Cluster, KubectlFailed
from tests.cluster.images import mtft_image
from tests.cluster.levels import for_tests, start_full
from tests.cluster.parts import MissingPart

STEPS = 60
_FEWEST_KILLS = 20  # below, a cluster that runs pods costs more than it shows
_PAUSE_S = 25.0  # the longest between a recovery and the next disturbance
_IMPATIENT = 0.3  # share of deletions that do not wait for a recovery
_LONGEST_S = 420.0  # without a new step
_TRAINED = (exit_codes.DONE, exit_codes.NOT_PROMOTED)
# Two of them fit on two cores.
_POD = {"cpus": 0.9, "memory_gib": 3, "shared_memory_gib": 0.25, "nodes": 2, "processes_per_node": 1}


def scenario(order: Order) -> Iterator[Tally]:
    """Disturb jobs until the plan is done; each has to make what the first one makes, whose pods nobody touches."""
    deletions, drains, restarts = order.share(20), order.share(3), order.share(6)
    names = ("API server killed, cuts: logs", "pods deleted", "node drained")
    tallies = [Tally(name, order.seed) for name in names]
    if order.kills < _FEWEST_KILLS:
        print(f"-- pods: left out below CHAOS_KILLS={_FEWEST_KILLS}", flush=True)
        return
    try:
        with for_tests(start_full) as cluster:
            place = _Place(cluster, order.plan("pods"))
            yield place.follow(tallies[0], restarts, order.folder)
            yield place.disturb(tallies[1], deletions, place.delete)
            yield place.disturb(tallies[2], drains, place.drain)
    except MissingPart as missing:
        for each in tallies:
            each.missing = str(missing)
            yield each


class _Place:
    """A namespace with data and base on its claim."""

    def __init__(self, cluster: Cluster, plan: random.Random) -> None:
        if cluster.volumes is None or cluster.importer is None:
            raise MissingPart("the volumes of a cluster that was given cannot be looked into")
        image = mtft_image()
        for part in image.parts:
            cluster.import_image(part.archive, part.name)
        self.cluster, self.plan = cluster, plan
        self.namespace = cluster.namespace("chaos", restricted=True)
        self.volume = cluster.volumes / self.namespace
        shutil.copytree(runs.base(), self.volume / "data" / "base")
        runs.write_data(self.volume / "data")
        self.document = runs.document("/mnt/mtft/data", "/mnt/mtft/data/base", runs.Kind("2 pods", 1), steps=STEPS)
        self.document["cluster"] |= {**_POD, "image": image.name}
        self.expected: runs.Result | None = None

    def follow(self, tally: Tally, restarts: int, folder: Path) -> Tally:
        """Follow a job that nobody touches, over a bad way to a server that is killed: each line once, and its end."""
        job = _Job(self)
        with unreliable(self.cluster, self.plan, folder) as (kubeconfig, gateway):
            given = ("logs", job.name, "--follow", "--rank", "0")
            follower = Verb(*given, kubeconfig=kubeconfig, namespace=self.namespace)
            waiter = Verb("wait", job.name, kubeconfig=self.cluster.kubeconfig, namespace=self.namespace)
            for verb in (follower, waiter):
                tally.expect(verb.has_spoken(), f"{verb.words} said nothing: {verb.complaint}")
            for _ in range(restarts):
                time.sleep(self.plan.uniform(2, 12))
                if self.cluster.api_server is None or job.state() is not None:
                    break
                begun = time.monotonic()
                self.cluster.api_server(self.plan.uniform(0, 4))
                tally.tries += 1
                self._await_server()
                tally.recovered(begun)
            if job.ends() != "Succeeded":
                tally.lose(f"{job.name}: {job.state()}")
            if (code := follower.ends(120)) != exit_codes.DONE:
                tally.lose(f"{follower.words} ended with {code}: {follower.complaint}")
        tally.tries += sum(gateway.met.values())
        tally.notes.append(", ".join(f"{count} {fault}" for fault, count in gateway.met.items()))
        shown = [line["step"] for line in runs.train_lines(follower.said)]
        if missing := sorted(set(range(1, STEPS + 1)) - set(shown)):
            tally.lose(f"logs --follow did not show the steps {missing}")
        tally.expect(len(shown) == len(set(shown)), f"logs --follow showed steps twice: {shown}")
        if (code := waiter.ends(60)) not in _TRAINED:
            tally.lose(f"{waiter.words} ended with {code}: {waiter.complaint}")
        self.expected = runs.Result.of(job.paths())
        tally.expect(self.expected.steps == list(range(1, STEPS + 1)), "steps of a quiet job")
        return tally

    def disturb(self, tally: Tally, times: int, how: Callable[[_Job, Tally], bool]) -> Tally:
        """Disturb one job after the other, so many times in all."""
        jobs = 0
        while tally.tries < times:
            job, jobs = _Job(self), jobs + 1
            while tally.tries < times and job.state() is None:
                time.sleep(self.plan.uniform(0, _PAUSE_S))
                if job.state() is not None:
                    break  # it ended in the pause: its pods are done, and to lose them is no trial
                begun = time.time()
                if not how(job, tally):
                    continue  # no pod was there
                tally.tries += 1
                # Now and then the next deletion strikes before the pods are back.
                if how == self.delete and self.plan.random() < _IMPATIENT:
                    continue
                if (seconds := job.recovers(begun)) is None:
                    break
                tally.recoveries.append(seconds)
            self._judge(job, tally)
            print(f"   {tally.scenario}: {tally.tries} of {times}", flush=True)
        tally.notes.append(f"{jobs} jobs of two pods, {STEPS} steps, a checkpoint every {runs.EVERY}")
        return tally

    def delete(self, job: _Job, _tally: Tally) -> bool:
        """Delete master, worker or both, half of the time without any grace; return whether one was there."""
        victims = self.plan.choice([["master-0"], ["worker-0"], ["master-0", "worker-0"]])
        grace = ["--grace-period=0", "--force"] if self.plan.random() < 0.5 else []
        pods = [f"{job.name}-{victim}" for victim in victims]
        where = ["--namespace", self.namespace, "--wait=false", "--ignore-not-found", *grace]
        return "deleted" in self.cluster.kubectl("delete", "pod", *pods, *where)

    def drain(self, job: _Job, tally: Tally) -> bool:
        """Drain the node of the job's pods, wait, and let it take pods again; return whether there were any."""
        (node,) = (each["metadata"]["name"] for each in self.cluster.get("nodes"))
        mine = f"--pod-selector=training.kubeflow.org/job-name={job.name}"
        options = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=110s"]
        try:
            said = self.cluster.kubectl("drain", node, mine, *options)
            time.sleep(self.plan.uniform(0, 10))
            return "evicted" in said
        except KubectlFailed as failed:
            tally.lose(f"{job.name}: the node cannot be drained: {failed}")
            return True
        finally:
            self.cluster.kubectl("uncordon", node)

    def _judge(self, job: _Job, tally: Tally) -> None:
        if (state := job.ends()) != "Succeeded":
            tally.lose(f"{job.name}: {state}")
            return
        made = runs.Result.of(job.paths())
        assert self.expected is not None
        tally.expect(made.steps == self.expected.steps, f"{job.name}: steps {made.steps}")
        tally.expect(made.losses == self.expected.losses, f"{job.name}: other losses than the undisturbed job's")
        tally.expect(made.digests == self.expected.digests, f"{job.name}: other weights than the undisturbed job's")
        for what in runs.half_made(self.volume, job.name):
            tally.go_wrong(f"{job.name}: {what}")

    def _await_server(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                self.cluster.kubectl("get", "--raw", "/readyz")
                return
            except KubectlFailed:
                time.sleep(0.1)


class _Job:
    """One job and what it has written."""

    def __init__(self, place: _Place) -> None:
        self.place = place
        objects = render(place.document, runs.MODEL, nonce=secrets.token_hex(4), namespace=place.namespace)
        self.name: str = objects[-1]["metadata"]["name"]
        place.cluster.apply(*objects)
        self.submitted = time.time()

    def state(self) -> str | None:
        """Return Succeeded or Failed once it has ended; None also while nobody can be asked."""
        try:
            job = self.place.cluster.get("pytorchjob", self.name, "--namespace", self.place.namespace)
        except KubectlFailed:
            return None
        holding = [one["type"] for one in (job.get("status") or {}).get("conditions", []) if one["status"] == "True"]
        return next((kind for kind in ("Succeeded", "Failed") if kind in holding), None)

    def paths(self) -> RunPaths:
        """Return its run."""
        found = runs.paths_of(self.place.volume, self.name)
        assert found is not None, f"{self.name} has claimed no run"
        return found

    def lines(self) -> list[dict[str, Any]]:
        """Return the steps it has logged."""
        paths = runs.paths_of(self.place.volume, self.name)
        return runs.train_lines(paths.metrics.read_text()) if paths and paths.metrics.exists() else []

    def last_step(self) -> int:
        """Return the last step it has logged, -1 before the first."""
        return max((line["step"] for line in self.lines()), default=-1)

    def progresses(self, since: int) -> bool:
        """Wait for a step after this one, or the end; False when neither comes."""
        end = time.monotonic() + _LONGEST_S
        while self.last_step() <= since and self.state() is None:
            if time.monotonic() > end:
                return False
            time.sleep(0.3)
        return True

    def recovers(self, since: float) -> float | None:
        """Wait for the first step of an attempt that began after a moment, or for the job's end.

        Return the seconds from that moment, None: no attempt began after it, or none did a step in time.
        """
        end = time.monotonic() + _LONGEST_S
        while time.monotonic() < end:
            job = read_job(self.place.volume, runs.MODEL, self.name)
            starts = [parse_time(each.started).timestamp() for each in job.attempts] if job else []
            again = next((at for at in starts if at > since - 1), math.inf)
            if news := [line["time"] for line in self.lines() if line["time"] > again]:
                return float(min(news) - since)
            if self.state() is not None:
                return time.time() - since if again < math.inf else None
            time.sleep(0.3)
        return None

    def ends(self) -> str:
        """Wait for its end."""
        step = self.last_step()
        while (state := self.state()) is None:
            if not self.progresses(step):
                return f"no step after {step} for {_LONGEST_S:.0f} s"
            step = self.last_step()
            time.sleep(0.3)
        return state
