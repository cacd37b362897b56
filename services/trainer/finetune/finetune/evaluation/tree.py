"""A question with all its options as one sequence: the prompt once, then a tree of the options' tokens.

Options that begin alike share their beginning, and every option sees the prompt and its own branch alone, by
an attention mask and by positions that count the depth. So one forward pass scores all options, and nothing
is computed twice (the tree attention of SpecInfer, Miao et al., arXiv 2305.09781). The last token of an
option is predicted but predicts nothing, so it never enters the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TokenTree:
    """`tokens`, `depths` and `parents` are lists over the sequence; parents[0] is -1."""

    tokens: list[int]
    depths: list[int]
    """Position of each token on its branch: what rotary embeddings count."""
    parents: list[int]
    prompt_length: int
    predictions: list[tuple[int, int]]
    """(sequence position, token to be predicted there), each pair once."""
    options: list[list[int]]
    """For each option the indices of its predictions; its log-likelihood is their sum."""

    def __len__(self) -> int:
        return len(self.tokens)


def build_tree(prompt: Sequence[int], options: Sequence[Sequence[int]]) -> TokenTree:
    """The tree of one question. Raises ValueError for an empty prompt or option: nothing would predict it."""
    if not prompt or not options or not all(options):
        raise ValueError("a question needs at least one prompt token and one token in each option")
    tokens, depths = list(prompt), list(range(len(prompt)))
    parents = list(range(-1, len(prompt) - 1))
    nodes: dict[tuple[int, int], int] = {}
    predictions: dict[tuple[int, int], int] = {}
    paths: list[list[int]] = []
    for option in options:
        position, path = len(prompt) - 1, []
        for index, token in enumerate(option):
            path.append(predictions.setdefault((position, token), len(predictions)))
            if index == len(option) - 1:
                break
            if (position, token) not in nodes:
                nodes[position, token] = len(tokens)
                tokens.append(token)
                depths.append(depths[position] + 1)
                parents.append(position)
            position = nodes[position, token]
        paths.append(path)
    return TokenTree(
        tokens=tokens,
        depths=depths,
        parents=parents,
        prompt_length=len(prompt),
        predictions=list(predictions),
        options=paths,
    )
