"""Self-generated rehearsal: text that the base model writes itself, and what it thought at every token.

Holding a tuned model close to its base on the base's own samples keeps what the base could do (arXiv
2605.26097 and 2605.29498), and needs no data that someone would have to be asked for. Sampling walks the
key-value cache, so the base's final hidden states come for free; they are all that the KL term later needs of
the base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from identity.digest import digest_json
from modelkit.plain_text import token_ids
from servicekit.files import replacing
from trainer.contract.spec import RehearsalSpec

OPENERS = (
    "The",
    "In the early",
    "Scientists have",
    "When the",
    "A common way to",
    "My grandmother",
    "To make a",
    "The city of",
    "Question:",
    "If you want to",
    "According to",
    "One of the most",
    "She walked",
    "Water is",
    "During the",
    "There are several",
)
"""Beginnings of everyday English, so that the samples spread over what the base can do. Without one, a
chat-tuned base would mostly write its own system prompt."""

_TOGETHER = 64
"""Sequences sampled in one batch: past this, a step's time grows as fast as its size."""


@dataclass(frozen=True)
class Rehearsal:
    """Sampled sequences. Right-padded after the end of sequence, which is itself part of its sequence."""

    tokens: Tensor
    """`[sequences, tokens]` int64."""
    mask: Tensor
    """`[sequences, tokens]` int64: 1 where a token belongs to the sequence."""
    base_hidden: Tensor
    """`[sequences, tokens, width]`: the base's final hidden states, in its dtype."""
    digest: str
    """sha256 of the canonical JSON of the token lists: what was rehearsed, without how it is padded."""

    def batch(self, step: int, size: int) -> slice:
        """The rows of a step: consecutive, starting over at the end, so each is seen equally often."""
        whole = self.tokens.shape[0] // size
        start = step % whole * size
        return slice(start, start + size)


def sample(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    spec: RehearsalSpec,
    *,
    seed: int,
    device: str,
    report: Callable[[int, int], None],
) -> Rehearsal:
    """Samples at temperature 1 from the whole distribution. `model` is the bare base model in evaluation
    mode.

    `report(done, total)` is called with numbers of tokens. Deterministic by seed on one device and dtype.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    parts, total = [], spec.sequences * spec.tokens_each
    for start in range(0, spec.sequences, _TOGETHER):
        size = min(_TOGETHER, spec.sequences - start)
        openers = [OPENERS[(start + row) % len(OPENERS)] for row in range(size)]
        prompts = [token_ids(tokenizer, opener)[: spec.tokens_each - 1] for opener in openers]

        def at(position: int, before: int = start * spec.tokens_each, rows: int = size) -> None:
            report(before + rows * position, total)

        end = int(tokenizer.eos_token_id)
        parts.append(
            _sample_batch(
                model,
                prompts,
                length=spec.tokens_each,
                end=end,
                generator=generator,
                device=device,
                report=at,
            )
        )
    tokens, mask, hidden = (torch.cat(part) for part in zip(*parts, strict=True))
    rows = [row[kept.bool()].tolist() for row, kept in zip(tokens, mask, strict=True)]
    return Rehearsal(tokens, mask, hidden, digest_json(rows))


@torch.inference_mode()
def _sample_batch(
    model: Any,
    prompts: list[list[int]],
    *,
    length: int,
    end: int,
    generator: torch.Generator,
    device: str,
    report: Callable[[int], None],
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch, a position at a time. While a row is still in its opener, the opener's token is taken
    instead of the sample: so openers of different lengths need no padding on the left."""
    rows = len(prompts)
    tokens = torch.full((rows, length), end, dtype=torch.long, device=device)
    mask = torch.zeros((rows, length), dtype=torch.long, device=device)
    cache = DynamicCache()
    states = []
    alive = torch.ones(rows, dtype=torch.bool, device=device)
    current = torch.tensor([prompt[0] for prompt in prompts], device=device)
    for position in range(length):
        tokens[:, position] = torch.where(alive, current, end)
        mask[:, position] = alive.long()
        alive &= (current != end) | torch.tensor([position < len(p) for p in prompts], device=device)
        hidden = model.base_model(
            input_ids=tokens[:, position : position + 1], past_key_values=cache, use_cache=True
        ).last_hidden_state
        states.append(hidden)
        probabilities = model.get_output_embeddings()(hidden[:, 0]).float().softmax(-1)
        current = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
        for row, prompt in enumerate(prompts):
            if position + 1 < len(prompt):
                current[row] = prompt[position + 1]
        report(position + 1)
    return tokens, mask, torch.cat(states, dim=1)


def save(rehearsal: Rehearsal, path: Path) -> None:
    """Writes a rehearsal as safetensors; complete or not there."""
    tensors = {
        "tokens": rehearsal.tokens.cpu(),
        "mask": rehearsal.mask.cpu(),
        "base_hidden": rehearsal.base_hidden.cpu(),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"digest": rehearsal.digest})


def load(path: Path) -> Rehearsal:
    """Reads what `save` wrote; the digest is computed again from the tokens."""
    tensors = load_file(path)
    tokens, mask = tensors["tokens"], tensors["mask"]
    rows = [row[kept.bool()].tolist() for row, kept in zip(tokens, mask, strict=True)]
    return Rehearsal(tokens, mask, tensors["base_hidden"], digest_json(rows))
