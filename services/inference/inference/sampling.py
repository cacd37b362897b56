"""How the next token is chosen: greedily, or by temperature and nucleus with a seed per answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

DEFAULT_OUTPUT_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What a client asked for, with defaults filled in."""

    max_output_tokens: int = DEFAULT_OUTPUT_TOKENS
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """The smallest set of tokens that holds this much probability is drawn from (Holtzman et al. 2020)."""
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """A token and its log-probability (nats) under the model itself, before temperature and nucleus."""

    token: int
    log_probability: float


class Sampler:
    """The random stream of one answer: draws depend on the seed and the logits, never on the rest of the
    batch.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._generator = torch.Generator().manual_seed(sampling.seed)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always chosen."""
        return self._sampling.temperature == 0

    def draw(self, logits: Tensor) -> int:
        """A token for logits `[vocabulary]`, fp32 on the CPU. One uniform number is used for each token."""
        probabilities = torch.softmax(logits.double() / self._sampling.temperature, dim=-1)
        uniform = torch.rand((), generator=self._generator, dtype=torch.float64)
        if self._sampling.top_p >= 1:
            return _inverse(probabilities, uniform)
        ordered, tokens = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        nucleus = int((before < self._sampling.top_p).sum())  # the first token is always inside
        return int(tokens[_inverse(ordered[: max(nucleus, 1)], uniform)])


def choose(logits: Tensor, samplers: Sequence[Sampler]) -> list[Choice]:
    """One token for each row of logits `[rows, vocabulary]`."""
    logits = logits.float()
    tokens = logits.argmax(dim=-1).tolist()
    for row, sampler in enumerate(samplers):
        if not sampler.greedy:
            tokens[row] = sampler.draw(logits[row].cpu())
    index = torch.tensor(tokens, device=logits.device).unsqueeze(1)
    chosen = torch.log_softmax(logits, dim=-1).gather(1, index).squeeze(1).tolist()
    return [Choice(token, value) for token, value in zip(tokens, chosen, strict=True)]


def _inverse(weights: Tensor, uniform: Tensor) -> int:
    """The index at which the cumulated weights pass `uniform` of their total."""
    cumulated = weights.cumsum(0)
    index = torch.searchsorted(cumulated, uniform * cumulated[-1], right=True)
    return min(int(index), weights.shape[0] - 1)
