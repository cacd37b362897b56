"""Log-likelihoods of options, as fast as the arithmetic allows.

Three things cost time in plain code and are absent here: the prompt is computed once for all options (tree.py),
sequences of a batch need no padding (attention.py), and the vocabulary's logits, a fifth of a small model's work, are
computed only where a token is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.evaluation.attention import TreeView, attends_within_trees
from finetune.evaluation.item import Item
from finetune.evaluation.tree import TokenTree, build_tree
from modelkit.plain_text import token_ids

MAX_SEQUENCE_TOKENS = 1_024
"""Longest sequence. Longer prompts lose their beginning, longer options are refused."""

_BATCH_TOKENS = 1_536
"""Tokens of a batch. On a CPU anything from 384 to 3,072 takes as long; memory grows with it."""

_LOGIT_ROWS = 256
"""Rows of logits held at once: 256 x 49,152 in fp32 are 50 MB."""


class UnscorableItem(ValueError):
    """An item that cannot be scored, named by its id."""


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
    with torch.inference_mode(), attends_within_trees(model):
        for indices in _batches(trees):
            batch = [trees[index] for index in indices]
            for index, tree_scores in zip(indices, _score_batch(model, batch), strict=True):
                scores[index] = tree_scores
            done += len(indices)
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


def _batches(trees: Sequence[TokenTree]) -> Iterator[list[int]]:
    """Places in `trees`, longest first: a batch that does not fit the memory shows at once, and the last ones even out the
    ETA."""
    batch, tokens = list[int](), 0
    for index in sorted(range(len(trees)), key=lambda index: -len(trees[index])):
        if batch and tokens + len(trees[index]) > _BATCH_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += len(trees[index])
    if batch:
        yield batch


def _score_batch(model: PreTrainedModel, trees: Sequence[TokenTree]) -> list[list[float]]:
    """The trees stand one behind the other in one row: no token is padding, and each attends to its own tree alone."""
    decoder, head = model.base_model, model.get_output_embeddings()  # type: ignore[no-untyped-call]
    device = model.device
    hidden: Tensor = decoder(
        input_ids=torch.tensor([[token for tree in trees for token in tree.tokens]], device=device),
        position_ids=torch.tensor([[depth for tree in trees for depth in tree.depths]], device=device),
        use_cache=False,
        tree_views=[TreeView.of(tree, model.dtype, device) for tree in trees],
    ).last_hidden_state[0]
    columns, targets, start = [], [], 0
    for tree in trees:
        columns += [start + position for position, _ in tree.predictions]
        targets += [token for _, token in tree.predictions]
        start += len(tree)
    # Several options branch at one place: its logits are computed once.
    unique, which = torch.unique(torch.tensor(columns, device=device), return_inverse=True)
    log_likelihoods = _predict(hidden[unique], head, which, torch.tensor(targets, device=device))
    return _sums(trees, log_likelihoods)


def _predict(hidden: Tensor, head: torch.nn.Module, which: Tensor, targets: Tensor) -> list[float]:
    """log p(target) for each prediction: hidden [places, width], which and targets [predictions]."""
    result = torch.empty(len(targets), dtype=torch.float64)
    for start in range(0, len(hidden), _LOGIT_ROWS):
        # In one kernel, row by row: logsumexp would read the rows three times and write them once more.
        logs = head(hidden[start : start + _LOGIT_ROWS]).float().log_softmax(dim=-1)
        mine = ((which >= start) & (which < start + _LOGIT_ROWS)).nonzero().squeeze(-1)
        local = which[mine] - start
        result[mine.cpu()] = logs[local, targets[mine]].double().cpu()
    return result.tolist()


def _sums(trees: Sequence[TokenTree], log_likelihoods: Sequence[float]) -> list[list[float]]:
    scores, start = [], 0
    for tree in trees:
        mine = log_likelihoods[start : start + len(tree.predictions)]
        scores.append([sum(mine[index] for index in path) for path in tree.options])
        start += len(tree.predictions)
    return scores
