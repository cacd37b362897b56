"""A tiny Llama with random weights: the real code path of a base model in milliseconds.

It knows nothing, but it can learn: its weights have the scale at which a LoRA adapter moves its answers.
Its tokenizer (data/tiny_tokenizer.json) is a byte-level BPE of 1,024 entries, trained once on 6,000
procedure texts of MITRE ATT&CK and this repository's own documents; any UTF-8 text survives it.
"""

from __future__ import annotations

import importlib.resources
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from modelkit.base_model import publish
from servicekit.objects import ObjectStore

NAME = "tiny"

_INITIALISER_RANGE = 0.125
"""1/sqrt(hidden size): activations keep their scale, and tied logits span enough to be confident. With the
usual 0.02 no adapter could ever reach a probability above a few percent."""

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def create_tiny(store: ObjectStore, seed: int = 0) -> str:
    """Publishes the tiny model of one seed; returns its base digest, the same for the same seed and torch."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer().save_pretrained(name)
        _model(seed).save_pretrained(name)
        return publish(
            folder,
            NAME if seed == 0 else f"{NAME}-{seed}",
            "Apache-2.0",
            f"random weights, seed {seed}",
            store,
        )


def tokenizer() -> PreTrainedTokenizerFast:
    """The tiny model's tokenizer, with a chat template in ChatML."""
    data = importlib.resources.files("modelkit") / "data" / "tiny_tokenizer.json"
    with importlib.resources.as_file(data) as path:
        made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_file=str(path),
            bos_token="<|im_start|>",
            eos_token="<|im_end|>",
            pad_token="<|im_end|>",
            unk_token="<|endoftext|>",
        )
    made.chat_template = _CHAT_TEMPLATE
    return made


def _model(seed: int) -> LlamaForCausalLM:
    """64 wide, 2 layers, 4 heads, 1,024 tokens of context: 175 thousand weights."""
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=_INITIALISER_RANGE,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
