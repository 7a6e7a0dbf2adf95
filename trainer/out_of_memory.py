"""Going on after memory ran out: what was held is let go of, and the work is repeated in smaller parts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from trainer.reasons import is_out_of_memory

T = TypeVar("T")

CAUGHT = (MemoryError, RuntimeError)
"""Types to catch around work that may be repeated; ``is_out_of_memory`` tells which of them to repeat."""


def release(device: torch.device) -> None:
    """Give back what nothing refers to any more, and the memory that torch keeps for later."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Parts:
    """Does work on a batch at once, or in as many parts as fit; the next batch begins with as many."""

    def __init__(self, device: torch.device, count: int = 1) -> None:
        self.device = device
        self.count = count

    def each(self, work: Callable[[Any], T], batch: Any) -> list[T]:
        """Return what ``work`` gives for the parts of a batch, a list or array, in their order.

        Raises:
            MemoryError, RuntimeError: a single item does not fit.
        """
        while True:
            size = -(-len(batch) // self.count)
            try:
                return [work(batch[start : start + size]) for start in range(0, len(batch), size)]
            except CAUGHT as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            release(self.device)  # after the except: the error's traceback holds the tensors
            self.count *= 2
            print(f"out of memory: batches of the evaluation are cut into {self.count} from now on", flush=True)
