"""The two terms of a step: learning the completions, and staying close to the base on rehearsal.

Logits are computed only where a term needs them: SmolLM2's head is a fifth of its work, and of a prompt with
a three-token completion it would be spent on ten times too many positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from finetune.training.examples import Example


class CausalModel:
    """Body and head of a causal language model, taken apart so that logits can be had at chosen positions.

    `model` is a transformers causal model or PEFT's wrapper of one; adapters that PEFT has put into it take
    part.
    """

    def __init__(self, model: Any) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._body = inner.base_model
        self._head = inner.get_output_embeddings()

    def hidden(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Final hidden states `[batch, tokens, width]`; the head's input."""
        states: Tensor = self._body(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        return states

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """fp32 log-probabilities `[n, vocabulary]` after hidden states `[n, width]`."""
        logits: Tensor = self._head(hidden.to(self._head.weight.dtype))
        return functional.log_softmax(logits.float(), dim=-1)


def completion_loss(
    model: CausalModel, batch: Sequence[Example], pad_token: int, device: str
) -> tuple[Tensor, int]:
    """Summed negative log-likelihood of all completion tokens, in nats, and their number.

    The sum, not the mean: workers and micro-batches add up exactly, and the caller divides by the step's total.
    """
    tokens, mask = pad([example.tokens for example in batch], pad_token, device)
    learned = torch.zeros_like(tokens, dtype=torch.bool)
    for row, example in enumerate(batch):
        learned[row, example.completion_start : len(example.tokens)] = True
    # The state at t predicts the token at t + 1; a completion never starts at 0.
    hidden = model.hidden(tokens[:, :-1], mask[:, :-1])[learned[:, 1:]]
    targets = tokens[:, 1:][learned[:, 1:]]
    loss = functional.nll_loss(model.log_probabilities(hidden), targets, reduction="sum")
    return loss, int(targets.numel())


def rehearsal_divergence(
    model: CausalModel, tokens: Tensor, mask: Tensor, base_hidden: Tensor
) -> tuple[Tensor, int]:
    """Summed KL(base || tuned) in nats over every position of rehearsal sequences, and the number of positions.

    `tokens`, `mask` `[batch, tokens]`; `base_hidden` `[batch, tokens, width]` are the base's final hidden
    states at the same places: the adapter leaves the head alone, so they give the base's exact distribution
    for the price of the head instead of a second pass. The sequences are samples of the base, so this
    direction is what maximum likelihood on them would estimate, without its sampling noise. Padded places
    count nothing.
    """
    kept = mask.bool()
    tuned = model.log_probabilities(model.hidden(tokens, mask)[kept])
    with torch.no_grad():
        base = model.log_probabilities(base_hidden[kept])
    divergence = functional.kl_div(tuned, base, reduction="sum", log_target=True)
    return divergence, int(kept.sum())


def pad(rows: Sequence[Sequence[int]], pad_token: int, device: str) -> tuple[Tensor, Tensor]:
    """Right-padded token ids and mask, both `[rows, longest]` int64."""
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), pad_token, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return tokens.to(device), mask.to(device)
