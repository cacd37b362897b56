"""Fast scoring gives what plain scoring gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from finetune.evaluation.adapted import adapted
from finetune.evaluation.item import Item
from finetune.evaluation.scoring import UnscorableItem, document_start, score_items
from finetune.evaluation.tree import build_tree
from modelkit.adapter import AdapterConfig, InvalidAdapter
from modelkit.base_model import materialise
from modelkit.plain_text import token_ids
from modelkit.weights.adapter import Adapter
from modelkit.weights.compute import measure
from modelkit.weights.loading import load
from modelkit.weights.tiny import create_tiny
from servicekit.objects import ObjectStore

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

ITEMS = [
    Item(
        id="shared",
        cluster="",
        prompt="The adversary sent mail. Tactic:",
        options=(" Initial Access", " Initial Contact", " Impact"),
        gold=0,
    ),
    Item(
        id="prefix",
        cluster="",
        prompt="Question: which?\nAnswer:",
        options=(" the sun", " the sun and the moon", " the"),
        gold=1,
    ),
    Item(id="same", cluster="", prompt="Yes or", options=(" no", " no"), gold=0),
    Item(
        id="text",
        cluster="",
        prompt="",
        options=("A text that stands alone, without any question before it.",),
        gold=0,
    ),
    Item(
        id="long",
        cluster="",
        prompt="Once upon a time there was a very long story. " * 9,
        options=(" The end.", " And so on, and on."),
        gold=0,
    ),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = tmp_path_factory.mktemp("tiny")
    store = ObjectStore(folder / "objects")
    return load(materialise(create_tiny(store), store, folder / "cache"), measure("fp32"))


def _plain(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, item: Item) -> list[float]:
    """One full forward pass for each option, logits everywhere: slow and hard to get wrong."""
    prompt = token_ids(tokenizer, item.prompt) or [document_start(tokenizer)]
    scores = []
    for option in item.options:
        answer = token_ids(tokenizer, option)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].double()
        steps = logits[len(prompt) - 1 : -1].log_softmax(-1)
        scores.append(float(steps[range(len(answer)), answer].sum()))
    return scores


def _adapter(model: PreTrainedModel, seed: int = 0) -> Adapter:
    random = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(model.config.num_hidden_layers):
        for name in ("self_attn.q_proj", "mlp.down_proj"):
            path = f"model.layers.{layer}.{name}"
            linear = model.get_submodule(path)
            weights[path] = (
                torch.randn(4, linear.in_features, generator=random) * 0.1,
                torch.randn(linear.out_features, 4, generator=random) * 0.1,
            )
    return Adapter(AdapterConfig(4, 8, ("q_proj", "down_proj")), weights)


def test_tree_scores_equal_plain_full_sequence_scores(loaded: Loaded) -> None:
    for item, scores in zip(ITEMS, score_items(*loaded, ITEMS), strict=True):
        assert scores == pytest.approx(_plain(*loaded, item), abs=2e-4), item.id


def test_scores_do_not_depend_on_the_company_in_the_batch(loaded: Loaded) -> None:
    together = score_items(*loaded, ITEMS)
    for item, scores in zip(ITEMS, together, strict=True):
        assert score_items(*loaded, [item])[0] == pytest.approx(scores, abs=2e-4)


def test_probabilities_of_all_continuations_sum_to_one(loaded: Loaded) -> None:
    model, tokenizer = loaded
    words = [tokenizer.decode([token]) for token in range(model.config.vocab_size)]
    alone = [word for word in words if token_ids(tokenizer, word) and len(token_ids(tokenizer, word)) == 1]
    scores = score_items(
        model,
        tokenizer,
        [Item(id="all", cluster="", prompt="The", options=tuple(dict.fromkeys(alone)), gold=0)],
    )[0]
    assert 0.5 < float(torch.tensor(scores).exp().sum()) <= 1.0001


def test_options_that_begin_alike_share_their_tokens() -> None:
    tree = build_tree([7, 8], [[1, 2, 3], [1, 2, 4], [5]])
    assert tree.tokens == [7, 8, 1, 2]  # last tokens are predicted, not read
    assert tree.depths == [0, 1, 2, 3]
    assert tree.predictions == [(1, 1), (2, 2), (3, 3), (3, 4), (1, 5)]
    assert tree.options == [[0, 1, 2], [0, 1, 3], [4]]


def test_progress_reaches_every_item(loaded: Loaded) -> None:
    reported: list[int] = []
    score_items(*loaded, ITEMS, reported.append)
    assert reported == sorted(reported)
    assert reported[-1] == len(ITEMS)


def test_a_prompt_beyond_the_context_loses_its_beginning(loaded: Loaded) -> None:
    endless = Item(
        id="endless", cluster="", prompt="word " * 3_000 + "Answer:", options=(" yes", " no"), gold=0
    )
    shorter = Item(
        id="shorter",
        cluster="",
        prompt="other " * 3_000 + "word " * 3_000 + "Answer:",
        options=(" yes", " no"),
        gold=0,
    )
    one, other = score_items(*loaded, [endless, shorter])
    assert one == pytest.approx(other, abs=2e-4)


def test_an_option_beyond_the_context_is_named(loaded: Loaded) -> None:
    with pytest.raises(UnscorableItem, match="item huge"):
        score_items(
            *loaded, [Item(id="huge", cluster="", prompt="Why?", options=(" because" * 3_000,), gold=0)]
        )


def test_an_adapter_changes_scores_as_its_separate_branch_would_and_leaves_no_trace(loaded: Loaded) -> None:
    model, tokenizer = loaded
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    base = score_items(model, tokenizer, ITEMS)
    adapter = _adapter(model)
    with adapted(model, adapter):
        merged = score_items(model, tokenizer, ITEMS)
    assert merged[0] != pytest.approx(base[0], abs=1e-2)
    hooks = [
        model.get_submodule(path).register_forward_hook(
            lambda _module, inputs, output, a=a, b=b: output + adapter.config.scale * (inputs[0] @ a.T) @ b.T
        )
        for path, (a, b) in adapter.weights.items()
    ]
    apart = score_items(model, tokenizer, ITEMS)
    for hook in hooks:
        hook.remove()
    for one, other in zip(merged, apart, strict=True):
        assert one == pytest.approx(other, abs=5e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert score_items(model, tokenizer, ITEMS) == base


def test_in_bf16_the_adapter_is_added_to_outputs_and_removed(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    model, tokenizer = load(materialise(create_tiny(store), store, tmp_path / "cache"), measure("bf16"))
    base = score_items(model, tokenizer, ITEMS)
    with adapted(model, _adapter(model)):
        changed = score_items(model, tokenizer, ITEMS)
    assert changed[0] != pytest.approx(base[0], abs=1e-2)
    assert score_items(model, tokenizer, ITEMS) == base


def test_an_adapter_of_another_model_is_refused_and_nothing_stays_merged(loaded: Loaded) -> None:
    model, tokenizer = loaded
    base = score_items(model, tokenizer, ITEMS[:1])
    fitting = _adapter(model)
    foreign = Adapter(
        fitting.config, {**fitting.weights, "model.layers.99.mlp.down_proj": (torch.ones(4, 1),) * 2}
    )
    with pytest.raises(InvalidAdapter, match="no layer"), adapted(model, foreign):
        pass
    assert score_items(model, tokenizer, ITEMS[:1]) == base
