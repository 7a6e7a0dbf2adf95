"""The gradients of a rank's trainable weights, added up over the ranks once a step.

Nothing is exchanged while a rank computes, so it may repeat its share without a word to the others:
docs/decisions/0011-out-of-memory-and-divergence.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.distributed import World


class Gradients:
    """Holds the gradients; with several ranks in one tensor, which one all-reduce adds up.

    Args:
        parameters: the trainable weights, in the same order on every rank; several ranks begin with rank 0's.
        world: this rank.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], world: World) -> None:
        self.parameters = parameters
        self.world = world
        self._flat: Tensor | None = None
        if world.size > 1:
            with torch.no_grad():
                for parameter in parameters:
                    world.copy_from_main(parameter)
            self._flat = torch.zeros(sum(p.numel() for p in parameters), device=world.device)

    def clear(self) -> None:
        """Begin a new step, or the same one again."""
        if self._flat is None:
            for parameter in self.parameters:
                parameter.grad = None
            return
        self._flat.zero_()
        start = 0
        for parameter in self.parameters:
            part = self._flat[start : start + parameter.numel()]
            parameter.grad = part.view(parameter.shape)  # backward adds to what is there, in place
            start += parameter.numel()

    def add_up(self) -> None:
        """Add the gradients of all ranks; every rank has to call it."""
        if self._flat is not None:
            self.world.add(self._flat)
