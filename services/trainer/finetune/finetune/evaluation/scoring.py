"""Log-likelihoods of options, as fast as the arithmetic allows.

Three things cost time in plain code and are absent here: the prompt is computed once for all options
(tree.py), sequences of similar length share a batch so that there is little padding, and the vocabulary's
logits, a fifth of a small model's work, are computed only where a token is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.evaluation.item import Item
from finetune.evaluation.tree import TokenTree, build_tree
from modelkit.plain_text import token_ids

MAX_SEQUENCE_TOKENS = 1_024
"""Longest sequence. Longer prompts lose their beginning, longer options are refused."""

_BATCH_TOKENS = 1_536
"""Padded tokens of a batch. On a CPU anything from 384 to 3,072 takes as long; memory grows with it."""

_LOGIT_ROWS = 256
"""Rows of logits held at once: 256 x 49,152 in fp32 are 50 MB."""


class UnscorableItem(ValueError):
    """An item that cannot be scored, named by its id."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Token trees padded to one length, with what they predict. `indices` are places in the caller's list."""

    indices: list[int]
    trees: list[TokenTree]
    tokens: Tensor  # [rows, length] int64
    positions: Tensor  # [rows, length] int64
    visible: Tensor  # [rows, 1, length, length] bool: row i may look at column j


def score_items(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    on_progress: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """For each item the log-likelihood, in nats, of each option given the prompt.

    The sum over an option's tokens equals that of a plain forward pass over prompt + option, up to rounding.
    Prompt and options are tokenised apart. `on_progress` is called with the number of finished items. Raises
    UnscorableItem.
    """
    limit = min(MAX_SEQUENCE_TOKENS, int(model.config.max_position_embeddings))
    trees = [_tree(tokenizer, item, limit) for item in items]
    scores: list[list[float]] = [[] for _ in items]
    done = 0
    with torch.inference_mode():
        for batch in _batches(trees, model.device):
            for index, tree_scores in zip(batch.indices, _score_batch(model, batch), strict=True):
                scores[index] = tree_scores
            done += len(batch.indices)
            if on_progress:
                on_progress(done)
    return scores


def document_start(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token before a text that has no prompt: what stood between documents in pre-training.

    Instruction-tuned tokenizers rename their first special token to a turn's mark, so the separator is looked
    up by the name it has in the GPT-2 family, then taken from the tokenizer's own settings.
    """
    vocabulary = tokenizer.get_vocab()
    for candidate in (vocabulary.get("<|endoftext|>"), tokenizer.bos_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    raise ValueError("the tokenizer has no token to begin a text with")


def _tree(tokenizer: PreTrainedTokenizerBase, item: Item, limit: int) -> TokenTree:
    prompt = token_ids(tokenizer, item.prompt) or [document_start(tokenizer)]
    options = [token_ids(tokenizer, option) for option in item.options]
    longest = max(len(option) for option in options)
    if longest >= limit:
        raise UnscorableItem(f"item {item.id}: an option of {longest} tokens; at most {limit - 1} fit")
    # The end of a prompt carries the question, so its beginning goes.
    return build_tree(prompt[-(limit - longest) :], options)


def _batches(trees: Sequence[TokenTree], device: torch.device) -> Iterator[_Batch]:
    """Longest first: a batch that does not fit the memory shows at once, and the last ones even out the
    ETA."""
    order = sorted(range(len(trees)), key=lambda index: -len(trees[index]))
    start = 0
    while start < len(order):
        length = len(trees[order[start]])
        rows = max(1, _BATCH_TOKENS // length)
        indices = order[start : start + rows]
        yield _pack(indices, [trees[index] for index in indices], length, device)
        start += rows


def _pack(indices: list[int], trees: list[TokenTree], length: int, device: torch.device) -> _Batch:
    tokens = torch.zeros(len(trees), length, dtype=torch.long)
    positions = torch.zeros(len(trees), length, dtype=torch.long)
    # Everyone sees itself, padding too: a row without a visible column would be NaN.
    visible = torch.eye(length, dtype=torch.bool).repeat(len(trees), 1, 1, 1)
    for row, tree in enumerate(trees):
        tokens[row, : len(tree)] = torch.tensor(tree.tokens)
        positions[row, : len(tree)] = torch.tensor(tree.depths)
        prompt = tree.prompt_length
        visible[row, 0, :prompt, :prompt] = torch.ones(prompt, prompt, dtype=torch.bool).tril()
        for node in range(prompt, len(tree)):
            parent = tree.parents[node]
            visible[row, 0, node, :node] = visible[row, 0, parent, :node]
    return _Batch(
        indices=indices,
        trees=trees,
        tokens=tokens.to(device),
        positions=positions.to(device),
        visible=visible.to(device),
    )


def _score_batch(model: PreTrainedModel, batch: _Batch) -> list[list[float]]:
    decoder, head = model.base_model, model.get_submodule("lm_head")
    hidden: Tensor = decoder(
        input_ids=batch.tokens, position_ids=batch.positions, attention_mask=batch.visible, use_cache=False
    ).last_hidden_state
    rows, columns, targets = [], [], []
    for row, tree in enumerate(batch.trees):
        for position, token in tree.predictions:
            rows.append(row)
            columns.append(position)
            targets.append(token)
    device = hidden.device
    places = torch.tensor(rows, device=device) * hidden.shape[1] + torch.tensor(columns, device=device)
    # Several options branch at one place: its logits are computed once.
    unique, which = torch.unique(places, return_inverse=True)
    log_likelihoods = _predict(
        hidden.flatten(0, 1)[unique], head, which, torch.tensor(targets, device=device)
    )
    return _sums(batch.trees, log_likelihoods)


def _predict(hidden: Tensor, head: torch.nn.Module, which: Tensor, targets: Tensor) -> list[float]:
    """log p(target) for each prediction: hidden [places, width], which and targets [predictions]."""
    result = torch.empty(len(targets), dtype=torch.float64)
    for start in range(0, len(hidden), _LOGIT_ROWS):
        logits = head(hidden[start : start + _LOGIT_ROWS]).float()
        normaliser = logits.logsumexp(dim=-1)
        mine = ((which >= start) & (which < start + _LOGIT_ROWS)).nonzero().squeeze(-1)
        local = which[mine] - start
        result[mine.cpu()] = (logits[local, targets[mine]] - normaliser[local]).double().cpu()
    return result.tolist()


def _sums(trees: Sequence[TokenTree], log_likelihoods: Sequence[float]) -> list[list[float]]:
    scores, start = [], 0
    for tree in trees:
        mine = log_likelihoods[start : start + len(tree.predictions)]
        scores.append([sum(mine[index] for index in path) for path in tree.options])
        start += len(tree.predictions)
    return scores
