"""A base of any architecture goes the whole way: imported from a folder, tuned, judged, served and attributed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from attribution.gradients import Example as GradientExample
from attribution.models import AdapterModels
from attribution.projection import ProjectionSpec
from finetune.evaluation.adapted import adapted
from finetune.evaluation.item import Item
from finetune.evaluation.scoring import score_items
from finetune.import_folder import import_folder
from finetune.training import run
from identity.digest import digest_json
from identity.snapshot import SnapshotLine, root, write_lines
from inference.decoder import Decoder
from modelkit import base_model
from modelkit.plain_text import token_ids
from modelkit.weights import adapter as adapters
from modelkit.weights import loading, tiny
from modelkit.weights.compute import Compute
from servicekit.objects import ObjectStore
from trainer.contract.base_models import BaseModel
from trainer.contract.files import JOB_FILE, SnapshotInput, TrainingJob, write_json
from trainer.contract.spec import ALL_LINEAR, RehearsalSpec, TrainingSpec

FP32 = Compute(
    device="cpu", dtype="float32", gflops={}, torch_version=torch.__version__, threads=1, reason="a test"
)
SHARED: dict[str, Any] = {
    "vocab_size": 1024, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip
GROUPED = {**SHARED, "num_key_value_heads": 2}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED, tie_word_embeddings=False)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=8, tie_word_embeddings=True)),
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHARED)),
}
NEOX = {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
PROMPTS = ([5, 6, 7, 8, 9], [10, 11])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    """A second thread waits longer than it works on models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(folder: Path, kind: str) -> Path:
    """A folder as `save_pretrained` writes it, of a random model of a few thousand weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        MODELS[kind]().save_pretrained(str(folder))
    tiny.tokenizer().save_pretrained(str(folder))
    return folder


def tuned(folder: Path, base: BaseModel, store: ObjectStore) -> str:
    """The adapter of a training of two steps, with rehearsal."""
    lines = []
    for number in range(12):
        record = {"text": f"The actor sent mail {number}.", "tactic": ("impact", "execution")[number % 2]}
        digest = digest_json(record)
        lines.append(
            SnapshotLine(record_digest=digest, cluster=digest, split="train", contributor="c", record=record)
        )
    data = write_lines(lines)
    snapshot = SnapshotInput(
        name="datanets/t/snapshots/1", root=root(data), records_digest=store.put_bytes(data), manifest_digest="",
        weight=1.0, prompt="Report: {text}\nTactic:", completion=" {tactic}",
    )  # fmt: skip
    rehearsal = RehearsalSpec(
        kind="self_generated", sequences=2, tokens_each=6, sequences_per_step=1, kl_weight=1.0
    )
    spec = TrainingSpec(
        learning_rate=2e-2, steps=2, batch_size=2, lora_rank=2, lora_alpha=4, target_modules=tuple(base.linear_modules),
        warmup_ratio=0.0, max_tokens=48, seed=0, workers=1, rehearsal=rehearsal,
    )  # fmt: skip
    job = TrainingJob(
        run="r", base_digest=base.digest, snapshots=(snapshot,), spec=spec.to_json(), origins={},
        object_store=str(folder / "objects"), cache_dir=str(folder / "cache"),
    )  # fmt: skip
    write_json(folder / "run" / JOB_FILE, job)
    result = run.train(folder / "run", compute=FP32)
    assert result is not None
    return result.adapter_digest


def likelihood(model: Any, tokenizer: Any, prompt: str, option: str) -> float:
    """log p(option | prompt) by a plain forward pass."""
    question, answer = token_ids(tokenizer, prompt), token_ids(tokenizer, option)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*question, *answer]])).logits[0]
    rows = torch.log_softmax(logits[len(question) - 1 : -1], dim=-1)
    return float(rows[range(len(answer)), answer].sum())


@pytest.mark.parametrize("kind", MODELS)
def test_a_base_is_imported_tuned_judged_served_and_attributed(kind: str, tmp_path: Path) -> None:
    folder, store = made(tmp_path / "folder", kind), ObjectStore(tmp_path / "objects")
    base = import_folder(
        folder, name=f"my-{kind}", licence="apache-2.0", source="", state_dir=tmp_path,
        object_store=str(tmp_path / "objects"),
    )  # fmt: skip
    assert base.licence == "Apache-2.0"
    assert set(base.linear_modules) == (NEOX if kind == "gpt-neox" else set(ALL_LINEAR))

    digest = tuned(tmp_path, base, store)
    cache = tmp_path / "cache"
    adapter_folder = adapters.fetch(digest, store, cache / "adapters", base.digest)
    adapter = adapters.read(adapter_folder)
    assert any(bool(b.abs().max() > 0) for _, b in adapter.weights.values()), "two steps changed nothing"

    plain = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    reference = PeftModel.from_pretrained(plain, str(adapter_folder)).eval()
    with torch.inference_mode():
        expected = [reference(input_ids=torch.tensor([ids])).logits[0, -1] for ids in PROMPTS]
        further = reference(input_ids=torch.tensor([[*PROMPTS[0], 12]])).logits[0, -1]

    unpacked = base_model.materialise(base.digest, store, cache / "models")
    model, tokenizer = loading.load(unpacked, FP32)
    item = Item(id="i", cluster="i", prompt="Report: The actor sent mail 3.\nTactic:",
                options=(" impact", " execution"), gold=0)  # fmt: skip
    with adapted(model, adapter) as judged:
        (scores,) = score_items(judged, tokenizer, [item])
    for score, option in zip(scores, item.options, strict=True):
        assert score == pytest.approx(likelihood(reference, tokenizer, item.prompt, option), abs=1e-3)

    decoder = Decoder(model, adapter_slots=1)
    decoder.load(1, adapter)
    first = decoder.admit(PROMPTS, [1, 1])
    for found, wanted in zip(first, expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)
    assert torch.allclose(decoder.step([12, 13])[0], further, atol=1e-4), "its cache does not fit the model"

    models = AdapterModels(
        store=store, cache_dir=cache, compute=FP32, projection=ProjectionSpec(width=2, rank=2)
    )
    example = GradientExample((5, 6, 7), (8, 9))
    gradients = models.gradients(base.digest, digest, [example])
    assert gradients.shape[0] == 1
    assert float(abs(gradients).max()) > 0


def test_a_base_in_shards_is_the_same_base(tmp_path: Path) -> None:
    whole, parts = made(tmp_path / "whole", "llama"), tmp_path / "parts"
    model = AutoModelForCausalLM.from_pretrained(str(whole))
    model.save_pretrained(str(parts), max_shard_size="100KB")
    tiny.tokenizer().save_pretrained(str(parts))
    assert json.loads((parts / "model.safetensors.index.json").read_text())["weight_map"]
    found = {
        import_folder(
            folder, name="one", licence="MIT", source="a test", state_dir=tmp_path / "state",
            object_store=str(tmp_path / "state" / "objects"),
        ).digest
        for folder in (whole, parts)
    }  # fmt: skip
    assert len(found) == 1
