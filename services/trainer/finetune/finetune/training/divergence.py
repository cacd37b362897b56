"""How far tuning moved the model on its own task: KL(tuned || base), which predicts forgetting (arXiv
2509.04259)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from finetune.training.examples import Example
from finetune.training.losses import CausalModel, pad


@torch.no_grad()
def task_divergence(tuned: Any, batch: Sequence[Example], pad_token: int, device: str) -> float:
    """Mean KL(tuned || base) in nats over the batch's completion tokens. `tuned` is a PEFT model."""
    tuned.train(False)
    tokens, mask = pad([example.tokens for example in batch], pad_token, device)
    learned = torch.zeros_like(tokens, dtype=torch.bool)
    for row, example in enumerate(batch):
        learned[row, example.completion_start : len(example.tokens)] = True
    parts = CausalModel(tuned)

    def distributions() -> torch.Tensor:
        return parts.log_probabilities(parts.hidden(tokens[:, :-1], mask[:, :-1])[learned[:, 1:]])

    after = distributions()
    with tuned.disable_adapter():
        before = distributions()
    # F.kl_div(input, target) is KL(target || input).
    return float(functional.kl_div(before, after, reduction="sum", log_target=True) / after.shape[0])
