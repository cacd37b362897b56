"""One optimiser step, and the many that make a run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from finetune.training.examples import Example, learning_rate
from finetune.training.losses import CausalModel, completion_loss, rehearsal_divergence
from finetune.training.rehearsal import Rehearsal
from finetune.training.workers import Worker
from modelkit.weights.compute import Compute
from trainer.contract.spec import TrainingSpec

_TOKENS_AT_ONCE = 768
"""Padded tokens in one forward pass; larger steps are summed up in parts. Activations of a small model take about 2 MB a
token, so a step of long records would need several GB at once, and be no faster."""


_SEEDS = (1 << 63) - 1
_MOST_NAMED = 20
"""Records that an error names: more would not fit into one line."""


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """What one step measured, over all workers. Losses in nats a token, before the step's update."""

    step: int
    """From 1."""
    loss: float
    kl: float
    """0 without rehearsal."""
    learning_rate: float
    gradient_norm: float
    """Before clipping."""
    tokens: int
    """Without padding, rehearsal included."""
    seconds: float


class NotFinite(ValueError):
    """A step came to a number that is not finite, and changed no weight. The message names step, number and records."""

    def __init__(self, step: int, numbers: Mapping[str, float], batch: Sequence[Example]) -> None:
        found = ", ".join(f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value))
        records = sorted({example.record_digest for example in batch})
        named = ", ".join(records[:_MOST_NAMED])
        more = f" and {len(records) - _MOST_NAMED} more" if len(records) > _MOST_NAMED else ""
        super().__init__(f"step {step}: {found}; its records are {named}{more}")
        self.step = step
        """From 1."""


class Stepper:
    """Holds a PEFT model, its optimiser and the data; `run` walks the schedule."""

    def __init__(
        self,
        model: Any,
        spec: TrainingSpec,
        *,
        examples: Sequence[Example],
        rehearsal: Rehearsal | None,
        pad_token: int,
        compute: Compute,
        worker: Worker,
    ) -> None:
        self._model = model
        self._parts = CausalModel(model)
        self._spec = spec
        self._examples = examples
        self._rehearsal = rehearsal
        self._pad_token = pad_token
        self._compute = compute
        self._worker = worker
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, foreach=True
        )

    def run(self, batches: Sequence[Sequence[int]], start: int, done: Callable[[StepMetrics], None]) -> None:
        """Steps from `start` to the end of the schedule, calling `done` after each step."""
        self._model.train()
        for step in range(start, len(batches)):
            done(self.step(step, [self._examples[index] for index in batches[step]]))

    def step(self, step: int, batch: Sequence[Example]) -> StepMetrics:
        """One update from the step's records and, with rehearsal, its sequences. `step` counts from 0.

        Raises NotFinite, on every worker, before it changes a weight.
        """
        begun = time.perf_counter()
        rate = learning_rate(step, self._spec)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        if self._spec.lora_dropout:  # a resumed run drops what an uninterrupted one would have
            torch.manual_seed(hash((self._spec.seed, step, self._worker.rank)) & _SEEDS)
        loss, learned = self._completions(batch)
        kl, seen = self._hold_to_base(step)
        self._worker.sum_gradients(self.parameters)
        limit = self._spec.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True))
        loss, kl, rehearsed = self._worker.sum_numbers([loss, kl, seen])
        if not math.isfinite(loss + kl + norm):
            raise NotFinite(step + 1, {"loss": loss, "KL to the base": kl, "gradient norm": norm}, batch)
        self.optimiser.step()
        return StepMetrics(
            step=step + 1,
            loss=loss / learned,
            kl=kl / max(1, rehearsed),
            learning_rate=rate,
            gradient_norm=norm,
            tokens=sum(len(example.tokens) for example in batch) + int(rehearsed),
            seconds=time.perf_counter() - begun,
        )

    def _completions(self, batch: Sequence[Example]) -> tuple[float, int]:
        """Accumulates the gradient of the mean loss over the whole step; returns this worker's summed loss
        and the step's number of completion tokens."""
        learned = sum(len(example.tokens) - example.completion_start for example in batch)
        total = 0.0
        for part in _parts(self._worker.share(batch), self._spec.batch_size):
            with self._autocast():
                loss, _ = completion_loss(self._parts, part, self._pad_token, self._compute.device)
            (loss / learned).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total, learned

    def _hold_to_base(self, step: int) -> tuple[float, int]:
        """Accumulates the gradient of the weighted mean KL; returns this worker's summed KL and positions."""
        if self._rehearsal is None:
            return 0.0, 0
        rows = self._rehearsal.batch(step, self._spec.rehearsal.sequences_per_step)
        mask = self._rehearsal.mask[rows]
        positions = int(mask.sum())  # of the whole step, all workers
        longest = int(mask.sum(dim=1).max())
        share = self._worker.share(range(rows.start, rows.stop))
        if not share:
            return 0.0, 0
        index = torch.tensor(list(share))
        with self._autocast():
            divergence, seen = rehearsal_divergence(
                self._parts,
                *(
                    tensor[index, :longest].to(self._compute.device)
                    for tensor in (self._rehearsal.tokens, self._rehearsal.mask, self._rehearsal.base_hidden)
                ),
            )
        (divergence * (self._spec.rehearsal.kl_weight / positions)).backward()  # type: ignore[no-untyped-call]
        return float(divergence.detach()), seen

    def _autocast(self) -> AbstractContextManager[Any]:
        """bf16 activations over bf16 base weights and fp32 LoRA weights; nothing to cast in fp32."""
        compute = self._compute
        return torch.autocast(compute.device, compute.torch_dtype, enabled=compute.dtype == "bfloat16")


def _parts(batch: Sequence[Example], most: int) -> Iterator[Sequence[Example]]:
    """The batch in pieces of at most `most` records whose padded size is bounded."""
    if not batch:
        return
    size = max(1, min(most, _TOKENS_AT_ONCE // max(len(example.tokens) for example in batch)))
    for start in range(0, len(batch), size):
        yield batch[start : start + size]
