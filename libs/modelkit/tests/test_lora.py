"""Claims about stacked-slot LoRA: it equals PEFT, and rows never see each other's adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from modelkit import base_model
from modelkit.adapter import InvalidAdapter
from modelkit.weights.adapter import Adapter, fetch, publish, read
from modelkit.weights.lora import SlotBank
from servicekit.objects import ObjectStore

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

Pair = tuple[str, tuple[torch.Tensor, torch.Tensor]]


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def publish_base(folder: Path, store: ObjectStore) -> str:
    """The tiny model without a tokenizer that works: only its weights matter here."""
    tiny_model().save_pretrained(str(folder / "base"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "base" / name).write_text("{}")
    return base_model.publish(folder / "base", "tiny", "none", "random weights", store)


def write_adapter(folder: Path, seed: int, rank: int, targets: list[str]) -> Path:
    torch.manual_seed(seed)
    model = get_peft_model(
        tiny_model(), LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=3 * rank, target_modules=targets)
    )
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(str(folder / "peft"))
    store = ObjectStore(str(folder / "objects"))
    base = publish_base(folder, store)
    return fetch(publish(folder / "peft", base, store), store, folder / "cache", base)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    return [
        write_adapter(root / "a", 1, 4, ALL_LINEAR),
        write_adapter(root / "b", 2, 8, ["q_proj", "v_proj"]),
        write_adapter(root / "c", 3, 2, ALL_LINEAR),
    ]


@pytest.fixture
def served(adapters: list[Path]) -> tuple[LlamaForCausalLM, SlotBank]:
    model = tiny_model()
    bank = SlotBank(model, slots=4)
    for slot, folder in enumerate(adapters, start=1):
        bank.load(slot, read(folder))
    return model, bank


TOKENS = torch.randint(0, 97, (8, 11), generator=torch.Generator().manual_seed(5))


def logits(model: LlamaForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(tokens).logits


@pytest.mark.parametrize("slot", [1, 2, 3])
def test_a_slot_equals_peft_on_the_same_adapter(
    served: tuple[LlamaForCausalLM, SlotBank], adapters: list[Path], slot: int
) -> None:
    model, bank = served
    bank.route([slot] * 8)
    peft = PeftModel.from_pretrained(tiny_model(), str(adapters[slot - 1])).eval()
    torch.testing.assert_close(logits(model, TOKENS), logits(peft, TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [TOKENS, TOKENS[:, :1]], ids=["prefill", "decode"])
def test_a_mixed_batch_equals_single_runs(
    served: tuple[LlamaForCausalLM, SlotBank], tokens: torch.Tensor
) -> None:
    model, bank = served
    rows = [0, 1, 2, 3, 3, 1, 0, 2]
    bank.route(rows)
    mixed = logits(model, tokens)
    for row, slot in enumerate(rows):
        bank.route([slot])
        alone = logits(model, tokens[row : row + 1])[0]
        torch.testing.assert_close(mixed[row], alone, rtol=1e-4, atol=1e-5)
        assert torch.equal(mixed[row].argmax(-1), alone.argmax(-1))


def test_an_unloaded_slot_and_slot_0_are_the_base(served: tuple[LlamaForCausalLM, SlotBank]) -> None:
    model, bank = served
    base = logits(tiny_model(), TOKENS)
    bank.route([0] * 8)
    assert torch.equal(logits(model, TOKENS), base)
    bank.unload(1)
    bank.route([1] * 8)
    assert torch.equal(logits(model, TOKENS), base)


def test_reloading_a_slot_leaves_nothing_of_the_former_adapter(
    served: tuple[LlamaForCausalLM, SlotBank], adapters: list[Path]
) -> None:
    model, bank = served
    rows = [1, 2, 1, 2, 1, 2, 1, 2]
    bank.route(rows)
    logits(model, TOKENS[:, :1])  # fills what layers remember of the slots in use
    bank.load(1, read(adapters[1]))
    bank.route([2] * 8)
    expected = logits(model, TOKENS[:, :1])
    bank.route(rows)
    torch.testing.assert_close(logits(model, TOKENS[:, :1]), expected, rtol=1e-4, atol=1e-5)


def with_weights(adapter: Adapter, change: Callable[[str, torch.Tensor, torch.Tensor], Pair]) -> Adapter:
    return Adapter(adapter.config, dict(change(path, a, b) for path, (a, b) in adapter.weights.items()))


def test_an_overflowing_product_does_not_reach_other_rows(
    served: tuple[LlamaForCausalLM, SlotBank], adapters: list[Path]
) -> None:
    model, bank = served
    bank.load(4, with_weights(read(adapters[0]), lambda path, a, b: (path, (torch.full_like(a, 3e38), b))))
    bank.route([2])
    alone = logits(model, TOKENS[:1, :1])
    bank.route([2, 4])
    torch.testing.assert_close(logits(model, TOKENS[:2, :1])[:1], alone, rtol=1e-4, atol=1e-5)


def test_adapters_that_do_not_fit_are_refused_and_change_nothing(
    served: tuple[LlamaForCausalLM, SlotBank], adapters: list[Path]
) -> None:
    model, bank = served
    bank.route([1] * 8)
    before = logits(model, TOKENS)

    def refused(change: Callable[[str, torch.Tensor, torch.Tensor], Pair]) -> str:
        with pytest.raises(InvalidAdapter) as caught:
            bank.load(1, with_weights(read(adapters[0]), change))
        return str(caught.value)

    assert "layers.7" in refused(lambda path, a, b: (path.replace("layers.0", "layers.7"), (a, b)))
    assert "maps 64 to" in refused(lambda path, a, b: (path, (torch.cat([a, a], 1)[:, :64], b)))
    assert "overflows" in refused(lambda path, a, b: (path, (a, torch.full_like(b, 3e38))))
    assert torch.equal(logits(model, TOKENS), before)


def test_slots_outside_the_bank_are_refused() -> None:
    bank = SlotBank(tiny_model(), slots=2)
    with pytest.raises(IndexError):
        bank.route([3])
    with pytest.raises(IndexError):
        bank.unload(0)
