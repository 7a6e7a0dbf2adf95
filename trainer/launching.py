"""The children of one attempt: the preparation, then torchrun; what each left behind becomes an exit code."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mtft import exit_codes, files
from mtft.runs import RunPaths, now
from trainer import host_memory
from trainer.node import Node
from trainer.processes import Stop, run
from trainer.reasons import Reason, from_status, is_alone, read_reason, verdict

_LOST = "lost-"


@dataclass(frozen=True, kw_only=True)
class Children:
    """Starts the children of an attempt on this node.

    Attributes:
        node: this node.
        preparation_module, worker_module: what is started.
        environment: gives a child's environment from the folder of its reason file and the number of processes.
        stop: what may end them early.
        output: takes what they print.
    """

    node: Node
    preparation_module: str
    worker_module: str
    environment: Callable[[Path, int], Mapping[str, str]]
    stop: Stop
    output: Callable[[bytes], None]

    def prepare(self, paths: RunPaths, number: int) -> tuple[int, str] | None:
        """Prepare the data and leave the mark for the other nodes; None: done, else exit code and reason."""
        command = [sys.executable, "-m", self.preparation_module, "--run-dir", str(paths.folder)]
        with _reasons_kept_in(paths.attempt(number) / "preparation") as reasons:
            status = run(command, self.environment(reasons, 1), self.stop, self.output)
            reason = read_reason(reasons, 0) or from_status(0, status)
        if status != 0 or self.stop.signals or self.stop.deadline_passed:
            code, text = verdict([reason], status, 1, 1)
            return code, text.replace("rank 0:", "preparing the data:", 1)
        files.write_text(prepared_mark(paths, number), f"{now()}\n")
        return None

    def run_ranks(self, paths: RunPaths, number: int, over: Callable[[], str | None]) -> tuple[int, str]:
        """Run this node's ranks and return exit code and reason.

        Args:
            paths: of the run.
            number: of the attempt.
            over: says why they are to end, which a connection that is broken without a word does not tell for minutes.
        """
        node = self.node
        killed_before = host_memory.kernel_kills()
        with _reasons_kept_in(paths.attempt(number)) as folder:
            status_file = folder / f"torchrun-{node.rank}.json"
            command = node.torchrun(status_file, self.worker_module, paths.folder)
            environment = self.environment(folder, node.processes)
            in_vain = (lambda: not is_alone(folder) and over()) if node.nodes > 1 else None
            status = run(command, environment, self.stop, self.output, in_vain)
            why = in_vain and in_vain()
            reasons = _reasons(folder, node, _read_statuses(status_file))
        short = host_memory.kernel_kills() > killed_before
        alone = short and status == -signal.SIGKILL  # torchrun itself, whose ranks end with it
        if alone or (short and any(map(_killed, reasons))):
            host_memory.mark(paths.attempt(number), node.rank)
            reasons = [replace(each, message=_OUT_OF_MEMORY) if _killed(each) else each for each in reasons]
        code, text = verdict(reasons, status, node.processes, node.world_size)
        if code != exit_codes.RETRY:
            return code, text
        return code, why or (f"torchrun was {_OUT_OF_MEMORY}" if alone else text)


_OUT_OF_MEMORY = (
    "killed by the kernel, out of host memory: the next start halves the batches of training and evaluation; if it "
    "comes again, raise cluster.memory_gib or lower train.micro_batch_tokens and eval.batch_tokens"
)


def joined_mark(paths: RunPaths, number: int, node: int) -> Path:
    """Return the mark of another node that is in an attempt."""
    return paths.attempt(number) / f"joined-{node}"


def tell_lost(paths: RunPaths, number: int, node: int) -> None:
    """Tell node 0 that this node was in its attempt, and lost."""
    mark = paths.attempt(number) / f"{_LOST}{node}"
    with contextlib.suppress(OSError):  # then node 0 waits as long as torchrun and collectives do
        if not mark.exists():
            files.write_text(mark, f"{now()}\n")


def lost_node(paths: RunPaths, number: int) -> str | None:
    """Say which node was in an attempt and lost; None: none was."""
    with contextlib.suppress(OSError):
        for mark in sorted(paths.attempt(number).glob(f"{_LOST}*")):
            return f"node {mark.name.removeprefix(_LOST)} was lost"
    return None


def prepared_mark(paths: RunPaths, number: int) -> Path:
    """Return the mark that tells the other nodes to start."""
    return paths.attempt(number) / "prepared"


def _killed(reason: Reason) -> bool:
    return reason.kind == "killed" and reason.exit_code == -signal.SIGKILL


def _reasons(folder: Path, node: Node, statuses: Mapping[int, int]) -> list[Reason]:
    reasons = []
    for rank in node.ranks:
        if reason := read_reason(folder, rank):
            reasons.append(reason)
        elif rank in statuses:
            reasons.append(from_status(rank, statuses[rank]))
    return reasons


@contextlib.contextmanager
def _reasons_kept_in(folder: Path) -> Iterator[Path]:
    """Give a folder of this machine for reason files, copied to the volume at the end if that takes them.

    Why a rank ended has to be known even when the volume is full.
    """
    with tempfile.TemporaryDirectory(prefix="mtft-reasons-") as here:
        yield Path(here)
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            for path in Path(here).iterdir():
                shutil.copyfile(path, folder / path.name)  # its content alone: the group has to read it


def _read_statuses(path: Path) -> Mapping[int, int]:
    """Return the exit status of each failed rank; torchrun itself may have been killed before it could write."""
    try:
        return {int(rank): status for rank, status in json.loads(path.read_text())["statuses"].items()}
    except (OSError, ValueError, KeyError):
        return {}
