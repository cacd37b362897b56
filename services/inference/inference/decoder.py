"""The model as the scheduler sees it: rows are admitted with a prompt, all rows make one step, rows are
dropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from inference.kv_cache import BatchCache
from modelkit.weights.adapter import Adapter
from modelkit.weights.lora import SlotBank


class Decoder:
    """A base model with adapter slots, and the batch it is working on.

    Rows keep the order in which they came; `admit` appends, `keep` selects. Not thread-safe.
    """

    def __init__(self, model: PreTrainedModel, adapter_slots: int) -> None:
        self._model = model
        self._bank = SlotBank(model, adapter_slots)
        self._device = model.device
        self._layers = int(model.config.num_hidden_layers)
        self._cache: BatchCache | None = None
        self._slots: list[int] = []

    def load(self, slot: int, adapter: Adapter) -> None:
        """Puts an adapter in a slot that no row uses. Raises InvalidAdapter."""
        assert slot not in self._slots, "an adapter is never replaced under a running answer"
        self._bank.load(slot, adapter)

    def unload(self, slot: int) -> None:
        """Empties a slot that no row uses."""
        assert slot not in self._slots, "an adapter is never taken from a running answer"
        self._bank.unload(slot)

    @torch.inference_mode()
    def admit(self, prompts: Sequence[Sequence[int]], slots: Sequence[int]) -> Tensor:
        """Reads prompts (token ids, at least one each) as new rows; logits `[new rows, vocabulary]` of what
        follows.
        """
        longest = max(map(len, prompts))
        starts = [longest - len(prompt) for prompt in prompts]
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, starts[row] :] = torch.tensor(prompt)
        newcomers = BatchCache(self._layers, starts)
        logits = self._forward(tokens, newcomers, slots)
        if self._cache is None:
            self._cache = newcomers
        else:
            self._cache.join(newcomers)
        self._slots += slots
        return logits

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Reads one more token for each row; logits `[rows, vocabulary]` of what follows."""
        assert self._cache is not None
        assert len(tokens) == len(self._slots)
        return self._forward(torch.tensor(tokens).unsqueeze(1), self._cache, self._slots)

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Drops all rows but these (indices, ascending)."""
        if len(rows) == len(self._slots):
            return
        self._slots = [self._slots[row] for row in rows]
        if not rows:
            self._cache = None
        elif self._cache is not None:
            self._cache.keep(rows)

    def _forward(self, tokens: Tensor, cache: BatchCache, slots: Sequence[int]) -> Tensor:
        """Logits of the last column for tokens `[rows, columns]`, which are appended to the cache."""
        self._bank.route(slots)
        end = cache.length + tokens.shape[1]
        starts = torch.tensor(cache.starts).unsqueeze(1)
        columns = torch.arange(end).unsqueeze(0)
        positions = (columns[:, cache.length :] - starts).clamp(min=0)
        output = self._model(
            input_ids=tokens.to(self._device),
            attention_mask=(columns >= starts).to(self._device),
            position_ids=positions.to(self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits
