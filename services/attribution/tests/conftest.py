"""Small models that tests build in milliseconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def tiny_llama(vocabulary: int = 64, hidden: int = 32, layers: int = 2, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of a few thousand weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=0))


def with_adapter(model: LlamaForCausalLM, rank: int = 4, seed: int = 1) -> PeftModel:
    """All-linear LoRA whose B matrices are random: at B = 0, A's gradient would be zero and prove nothing."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapted


@pytest.fixture
def base() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture
def adapted(base: LlamaForCausalLM) -> PeftModel:
    return with_adapter(base).eval()


@pytest.fixture
def make_base() -> Callable[..., LlamaForCausalLM]:
    return tiny_llama
