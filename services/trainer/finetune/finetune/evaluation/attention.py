"""Attention of token trees that stand one behind the other in one row.

All other layers treat tokens one by one, so trees of any length share a batch without padding: at 16 items of ARC-Easy
padding was as much work as the items. Each tree is attended by itself; where it is one branch, causally.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from finetune.evaluation.tree import TokenTree

_NAME = "openledger_token_trees"


class UnsupportedAttention(ValueError):
    """The base attends in a way that this scorer does not compute. The message says which."""


@dataclass(frozen=True)
class TreeView:
    """What the tokens of one tree may look at."""

    length: int
    mask: Tensor | None
    """[length, length], added to the scores: 0 where row i may look at column j, else minus infinity; None: at all before."""

    @classmethod
    def of(cls, tree: TokenTree, dtype: torch.dtype, device: torch.device) -> TreeView:
        """Returns the view of a tree, its mask in the number type of the model."""
        length, prompt = len(tree), tree.prompt_length
        if all(parent == node - 1 for node, parent in enumerate(tree.parents)):
            return cls(length, None)
        visible = torch.ones(length, length, dtype=torch.bool).tril()
        visible[prompt:, prompt:] = False
        for node in range(prompt, length):
            parent = tree.parents[node]
            if parent >= prompt:
                visible[node, prompt:node] = visible[parent, prompt:node]
            visible[node, node] = True
        mask = torch.zeros(length, length, dtype=dtype).masked_fill_(~visible, float("-inf"))
        return cls(length, mask.to(device))


@contextmanager
def attends_within_trees(model: PreTrainedModel) -> Iterator[None]:
    """For the time of a measurement the model's attention is that of the views that a forward pass is given (`tree_views`)."""
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    tree_views: Sequence[TreeView],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query: [1, heads, tokens, width]; key, value: the same, with fewer heads where they are shared. Returns
    [1, tokens, heads, width].

    Raises UnsupportedAttention for a model that attends in another way: its scores would be of another model.
    """
    longest = max(view.length for view in tree_views)
    if softcap is not None or s_aux is not None or (sliding_window is not None and longest > sliding_window):
        raise UnsupportedAttention(
            f"items of {longest} tokens cannot be scored: the base caps its attention ({softcap}), has attention sinks"
            f" ({s_aux is not None}) or looks back by fewer tokens ({sliding_window})"
        )
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (each.repeat_interleave(shared, dim=1) for each in (key, value))
    result, start = torch.empty_like(query), 0
    for view in tree_views:
        part = slice(start, start + view.length)
        result[:, :, part] = nn.functional.scaled_dot_product_attention(
            query[:, :, part],
            key[:, :, part],
            value[:, :, part],
            attn_mask=view.mask,
            is_causal=view.mask is None,
            scale=scaling,
        )
        start += view.length
    return result.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attend)
