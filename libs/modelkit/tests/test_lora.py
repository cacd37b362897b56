"""Claims about stacked-slot LoRA: it equals PEFT, and rows never see each other's adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from modelkit.lora import IncompatibleAdapter, SlotBank, read_adapter
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def write_adapter(folder: Path, seed: int, rank: int, targets: list[str], rslora: bool = False) -> Path:
    torch.manual_seed(seed)
    model = get_peft_model(tiny_model(), LoraConfig(r=rank, lora_alpha=3 * rank, target_modules=targets,
                                                    use_rslora=rslora))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("adapters")
    return [write_adapter(root / "a", 1, 4, ALL_LINEAR), write_adapter(root / "b", 2, 8, ["q_proj", "v_proj"]),
            write_adapter(root / "c", 3, 2, ALL_LINEAR, rslora=True)]


@pytest.fixture
def served(adapters: list[Path]) -> tuple[LlamaForCausalLM, SlotBank]:
    model = tiny_model()
    bank = SlotBank(model, slots=4)
    for slot, folder in enumerate(adapters, start=1):
        bank.load(slot, read_adapter(folder))
    return model, bank


TOKENS = torch.randint(0, 97, (8, 11), generator=torch.Generator().manual_seed(5))


def logits(model: LlamaForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(tokens).logits


@pytest.mark.parametrize("slot", [1, 2, 3])
def test_a_slot_equals_peft_on_the_same_adapter(
        served: tuple[LlamaForCausalLM, SlotBank], adapters: list[Path], slot: int) -> None:
    model, bank = served
    bank.route([slot] * 8)
    peft = PeftModel.from_pretrained(tiny_model(), str(adapters[slot - 1])).eval()
    torch.testing.assert_close(logits(model, TOKENS), logits(peft, TOKENS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [TOKENS, TOKENS[:, :1]], ids=["prefill", "decode"])
def test_a_mixed_batch_equals_single_runs(served: tuple[LlamaForCausalLM, SlotBank], tokens: torch.Tensor) -> None:
    model, bank = served
    rows = [0, 1, 2, 3, 3, 1, 0, 2]
    bank.route(rows)
    mixed = logits(model, tokens)
    for row, slot in enumerate(rows):
        bank.route([slot])
        alone = logits(model, tokens[row:row + 1])[0]
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
        served: tuple[LlamaForCausalLM, SlotBank], adapters: list[Path]) -> None:
    model, bank = served
    rows = [1, 2, 1, 2, 1, 2, 1, 2]
    bank.route(rows)
    logits(model, TOKENS[:, :1])  # fills what layers remember of the slots in use
    bank.load(1, read_adapter(adapters[1]))
    bank.route([2] * 8)
    expected = logits(model, TOKENS[:, :1])
    bank.route(rows)
    torch.testing.assert_close(logits(model, TOKENS[:, :1]), expected, rtol=1e-4, atol=1e-5)


def test_an_overflowing_adapter_does_not_reach_other_rows(
        served: tuple[LlamaForCausalLM, SlotBank], adapters: list[Path], tmp_path: Path) -> None:
    huge = read_adapter(adapters[0])
    for a, _ in huge.factors.values():
        a.fill_(3e38)
    model, bank = served
    bank.load(4, huge)
    bank.route([2])
    alone = logits(model, TOKENS[:1, :1])
    bank.route([2, 4])
    torch.testing.assert_close(logits(model, TOKENS[:2, :1])[:1], alone, rtol=1e-4, atol=1e-5)


def test_bad_adapters_are_refused_by_name(adapters: list[Path], tmp_path: Path) -> None:
    config = (adapters[0] / "adapter_config.json").read_text()
    tensors = load_file(adapters[0] / "adapter_model.safetensors")
    first = next(iter(tensors))

    def refused(config: str, tensors: dict[str, torch.Tensor]) -> str:
        (tmp_path / "adapter_config.json").write_text(config)
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        with pytest.raises(IncompatibleAdapter) as caught:
            SlotBank(tiny_model(), 1).load(1, read_adapter(tmp_path))
        return str(caught.value)

    assert "use_dora" in refused(config.replace('"use_dora": false', '"use_dora": true'), tensors)
    assert "not finite" in refused(config, {**tensors, first: torch.full_like(tensors[first], float("nan"))})
    assert "only one" in refused(config, {name: value for name, value in tensors.items() if name != first})
    assert "no LoRA factor" in refused(config, {**tensors, "lm_head.weight": torch.zeros(2, 2)})
    renamed = {name.replace("layers.0", "layers.7"): value for name, value in tensors.items()}
    assert "layers.7" in refused(config, renamed)
    assert "rank" in refused(config, {**tensors, first: torch.zeros(5, 32)})
    wide = {name: torch.cat([value, value], 1) if "lora_A" in name else value for name, value in tensors.items()}
    assert "->" in refused(config, wide)


def test_slots_outside_the_bank_are_refused() -> None:
    bank = SlotBank(tiny_model(), slots=2)
    with pytest.raises(IndexError):
        bank.route([3])
    with pytest.raises(IndexError):
        bank.unload(0)
