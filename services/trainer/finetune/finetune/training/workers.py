"""Data-parallel workers: who takes which records of a step, and how their gradients become one.

Only LoRA's weights are trained, a few million numbers, so a step needs one all-reduce of one flat vector;
sums over workers equal what a single worker would have summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """One of `count` workers. With more than one, torch.distributed is initialised (Ray Train does it)."""

    rank: int = 0
    count: int = 1
    beside: int = 1
    """Workers on this one's machine, itself included: they share its cores."""

    @property
    def leads(self) -> bool:
        """Whether this worker writes files and progress."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's part; every item belongs to exactly one worker."""
        return items[self.rank :: self.count]

    def wait(self) -> None:
        """Returns when all workers are here."""
        if self.count > 1:
            distributed.barrier()

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Adds up the gradients of all workers, in place. A worker without records of its own has zeros."""
        if self.count == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        start = 0
        for parameter in parameters:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).clone()
            start += parameter.numel()

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Element-wise sums over workers."""
        if self.count == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64)
        distributed.all_reduce(total)
        return [float(number) for number in total]
