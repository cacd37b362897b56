"""Keys and values of a batch whose rows come and go.

Rows are aligned at the right, where new tokens are written: a row that has seen fewer tokens than the longest
begins with unused columns, which the attention mask hides. Columns are allocated ahead, so a decoding step
writes one column in place instead of copying the whole cache as concatenation would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_SPARE_COLUMNS = 64
"""Columns allocated ahead; growing copies the cache once for this many tokens."""


class _Layer(CacheLayerMixin):
    """One layer's keys and values: buffers `[rows, heads, capacity, head size]`, of which `length` columns
    are used.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys: Tensor
        self.values: Tensor
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.arrange(None, 0, end + _SPARE_COLUMNS)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def arrange(self, rows: Tensor | None, shift: int, capacity: int) -> None:
        """New buffers with the chosen rows (None: all), moved `shift` columns to the right (negative: left)."""
        start, length = max(-shift, 0), self.length + shift
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            kept = old if rows is None else old.index_select(0, rows)
            new = old.new_zeros(kept.shape[0], old.shape[1], capacity, old.shape[3])
            new[:, :, max(shift, 0) : length] = kept[:, :, start : self.length]
            setattr(self, name, new)
        self.length = length

    def append_rows(self, other: _Layer) -> None:
        """Adds another cache's rows; both have the same length and capacity."""
        self.keys = torch.cat([self.keys, other.keys])
        self.values = torch.cat([self.values, other.values])

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        return -1


class BatchCache(Cache):
    """What transformers' models take as `past_key_values`. `starts[row]` is the row's first used column."""

    def __init__(self, layers: int, starts: Sequence[int]) -> None:
        self._own = [_Layer() for _ in range(layers)]
        super().__init__(layers=list(self._own))
        self.starts = list(starts)

    @property
    def length(self) -> int:
        """Columns in use."""
        return self._own[0].length

    def join(self, newcomers: BatchCache) -> None:
        """Adds the newcomers' rows below this cache's; `newcomers` must not be used afterwards."""
        length = max(self.length, newcomers.length)
        for cache in (self, newcomers):
            cache._arrange(None, length - cache.length, length + _SPARE_COLUMNS)
        for layer, new in zip(self._own, newcomers._own, strict=True):
            layer.append_rows(new)
        self.starts += newcomers.starts

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all other rows, and the columns that none of the kept ones uses."""
        self.starts = [self.starts[row] for row in rows]
        unused = min(self.starts)
        index = torch.tensor(rows, device=self._own[0].keys.device)
        self._arrange(index, -unused, self.length - unused + _SPARE_COLUMNS)

    def _arrange(self, rows: Tensor | None, shift: int, capacity: int) -> None:
        for layer in self._own:
            layer.arrange(rows, shift, capacity)
        self.starts = [start + shift for start in self.starts]
