"""The process group: which rank this is, on which device and how precisely, and small agreements between ranks.

Reads what torchrun sets (RANK, LOCAL_RANK, WORLD_SIZE); without them this is a single process.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from mtft.config import Config
from mtft.errors import InputError
from trainer.node import GPU_VARIABLE

# A lost peer under NCCL shows only when this runs out; gloo sees the broken connection at once.
COLLECTIVE_TIMEOUT = datetime.timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """This process's place among the others.

    Attributes:
        rank: number of this process, 0 to size - 1, over all nodes.
        local_rank: number of this process on its node.
        size: number of processes over all nodes.
        device: where this process computes.
    """

    rank: int
    local_rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to the person."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add float64 values over all ranks."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        result: list[float] = tensor.tolist()
        return result

    def add(self, tensor: torch.Tensor) -> None:
        """Add a tensor over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def copy_from_main(self, tensor: torch.Tensor) -> None:
        """Fill a tensor with rank 0's, in place."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)

    def gather(self, value: Any) -> list[Any]:
        """Return one object per rank, on every rank. Objects stay inside this process group."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's object on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined_world(config: Config) -> Iterator[World]:
    """Join the process group and leave it in both paths.

    Raises:
        InputError: the device asked for is not there.
    """
    rank, local_rank, size = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    device = choose_device(config, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if size > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=COLLECTIVE_TIMEOUT)
    try:
        yield World(rank=rank, local_rank=local_rank, size=size, device=device)
    finally:
        if size > 1:
            dist.destroy_process_group()


_VARIABLES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))


def choose_device(config: Config, local_rank: int) -> torch.device:
    """Return this rank's device: its own GPU where there is one, else the CPU.

    Raises:
        InputError: a GPU is asked for and this process sees none, or fewer than processes.
    """
    wanted = config.train.device
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if visible == 0 and wanted == "auto" and os.environ.get(GPU_VARIABLE):
        raise InputError(
            f"cluster.gpus_per_node is {config.cluster.gpus_per_node}, but this pod shows no CUDA device. Check the "
            "node pool and the driver with `python -m trainer --self-test`, or set cluster.gpus_per_node to 0."
        )
    if wanted == "cpu" or (wanted == "auto" and visible == 0):
        return torch.device("cpu")
    if visible == 0:
        raise InputError(
            "train.device is 'cuda', but this machine shows no CUDA device. "
            "Check `nvidia-smi`, or set train.device to 'auto' or 'cpu'."
        )
    if local_rank >= visible:
        raise InputError(
            f"process {local_rank} of this node has no GPU of its own: {visible} visible. "
            f"Set cluster.processes_per_node to at most {visible}."
        )
    return torch.device("cuda", local_rank)


_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_precision(config: Config, device: torch.device) -> torch.dtype:
    """Return the autocast type: bf16 where the device has it, else fp32; an explicit choice is honoured or refused.

    Raises:
        InputError: the device cannot compute in the precision asked for.
    """
    wanted = config.train.precision
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "auto":
        return torch.bfloat16 if has_bf16 else torch.float32
    if wanted == "fp16" and device.type == "cpu":
        raise InputError("train.precision is 'fp16', but this process computes on a CPU. Allowed: auto, fp32, bf16.")
    if wanted == "bf16" and device.type == "cuda" and not has_bf16:
        name = torch.cuda.get_device_name(device)
        raise InputError(f"train.precision is 'bf16', but {name} has no bf16. Allowed here: auto, fp32, fp16.")
    return _PRECISIONS[wanted]


def precision_name(dtype: torch.dtype) -> str:
    """Return what ``train.precision`` calls an autocast type."""
    return next(name for name, known in _PRECISIONS.items() if known == dtype)
