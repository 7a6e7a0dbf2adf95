"""This pod or machine among those of a job, and the torchrun command it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtft.cluster_config import ClusterConfig
from mtft.errors import InputError
from mtft.stopping import STOP_SECONDS
from trainer.reasons import FOLDER_VARIABLE

# Set by the operator for its own idea of a process group; torchrun and its ranks get theirs from the command line.
_OPERATOR_VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
# Set for the ranks of a pod that was given GPUs: without CUDA they fail instead of training slowly for days.
GPU_VARIABLE = "MTFT_GPU_REQUIRED"
# Nodes that lost another may take COLLECTIVE_TIMEOUT (trainer/distributed.py) to notice, and a new pod its time.
MEETING_SECONDS = 1800
_CGROUP_CPU = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Node:
    """One pod of a job.

    Attributes:
        rank: number of this node; node 0 claims the run and writes its record.
        nodes: number of nodes.
        processes: ranks on each node.
        master: host and port of node 0; None on a single node.
    """

    rank: int
    nodes: int
    processes: int
    master: tuple[str, str] | None

    @classmethod
    def of(cls, cluster: ClusterConfig, environment: Mapping[str, str]) -> Node:
        """Read the node's place as the training operator sets it: RANK counts nodes.

        Raises:
            InputError: several nodes are configured and the operator's variables are missing or do not fit.
        """
        processes = cluster.processes_per_node or max(1, cluster.gpus_per_node)
        if cluster.nodes == 1:
            return cls(rank=0, nodes=1, processes=processes, master=None)
        rank, host, port = (environment.get(name, "") for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
        if not (rank.isdigit() and int(rank) < cluster.nodes and host and port):
            raise InputError(
                f"cluster.nodes is {cluster.nodes}, so RANK (0 to {cluster.nodes - 1}), MASTER_ADDR and MASTER_PORT "
                f"must be set, as the training operator does; got RANK={rank!r}, MASTER_ADDR={host!r}, "
                f"MASTER_PORT={port!r}"
            )
        return cls(rank=int(rank), nodes=cluster.nodes, processes=processes, master=(host, port))

    @property
    def world_size(self) -> int:
        """Number of ranks on all nodes."""
        return self.nodes * self.processes

    @property
    def ranks(self) -> range:
        """The ranks on this node."""
        return range(self.rank * self.processes, (self.rank + 1) * self.processes)

    def torchrun(self, status_file: Path, worker: str, run_folder: Path) -> list[str]:
        """Return the command that runs this node's ranks."""
        if self.master is None:
            meeting = ["--standalone", "--local-addr", "127.0.0.1"]
        else:
            host, port = self.master
            meeting = ["--rdzv-backend", "static", "--node-rank", str(self.rank)]
            meeting += ["--master-addr", host, "--master-port", port, "--rdzv-conf", f"timeout={MEETING_SECONDS}"]
        return [
            *(sys.executable, "-m", "trainer.ranks", str(status_file)),
            *("--nnodes", str(self.nodes), "--nproc-per-node", str(self.processes), *meeting),
            *("--max-restarts", "0", "--shutdown-timeout", str(STOP_SECONDS), "--log-dir", os.devnull),
            *("-m", worker, "--run-dir", str(run_folder)),
        ]


def child_environment(environment: Mapping[str, str], reasons: Path, processes: int) -> dict[str, str]:
    """Return the environment of a child: the operator's process group left out, threads shared out."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _OPERATOR_VARIABLES | {GPU_VARIABLE} and not name.startswith("PET_")
    }
    kept.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // processes)))
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", FOLDER_VARIABLE: str(reasons)}


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity and the container's limit, at least 1."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CGROUP_CPU.read_text().split()
        return max(1, min(usable, int(quota) // int(period)))
    except (OSError, ValueError):
        return usable
