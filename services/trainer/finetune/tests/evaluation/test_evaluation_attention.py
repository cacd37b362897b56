"""A base that attends in another way than this scorer computes is refused, not scored as another model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finetune.evaluation.attention import TreeView, UnsupportedAttention, _attend

LENGTH = 6


def attend(**other: Any) -> torch.Tensor:
    tokens = torch.ones(1, 1, LENGTH, 4)
    module = torch.nn.Module()
    return _attend(module, tokens, tokens, tokens, None, tree_views=[TreeView(LENGTH, None)], **other)[0]


@pytest.mark.parametrize(
    "other",
    [{"softcap": 50.0}, {"s_aux": torch.zeros(1)}, {"sliding_window": LENGTH - 1}],
    ids=["capped logits", "attention sinks", "a window shorter than the item"],
)
def test_other_attention_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedAttention, match=f"items of {LENGTH} tokens"):
        attend(**other)


def test_a_window_that_holds_the_item_changes_nothing() -> None:
    assert torch.equal(attend(sliding_window=LENGTH), attend())
