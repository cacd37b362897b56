"""Small models that tests build in milliseconds, and a world in which it is known whose records made the answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from openledger.inference.v1 import inference_pb2
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from identity.digest import canonical_json, digest_json
from identity.snapshot import SnapshotLine, root, write_lines
from modelkit import base_model
from modelkit.adapter import ALL_LINEAR
from modelkit.plain_text import token_ids
from modelkit.prompt import PromptTemplate, encode
from modelkit.training_manifest import ManifestRehearsal, ManifestSnapshot, TrainingManifest
from modelkit.weights import adapter, loading
from modelkit.weights.compute import Compute, measure
from modelkit.weights.tiny import create_tiny
from servicekit.database import ulid
from servicekit.objects import ObjectStore

DATANET = "datanets/colours"
SNAPSHOT = f"{DATANET}/snapshots/1"
VERSION = "models/colours/versions/1"
TREASURY = "0x" + "9" * 40
TEMPLATE = PromptTemplate("Thing: {text}\nColour:", " {colour}")
WORDS = {
    "alice": ("fire", "ember", "flame", "ash", "coal", "spark"),
    "bob": ("wave", "reef", "tide", "foam", "kelp", "gulf"),
    "carol": ("moss", "fern", "vine", "leaf", "root", "bark"),
}
COLOURS = {"alice": "red", "bob": "blue", "carol": "green"}


def contributor(name: str) -> str:
    return f"{DATANET}/contributors/{name}"


def address(name: str) -> str:
    return "0x" + f"{sum(name.encode()):040x}"


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small models are slower on two threads, and sums in another order are other bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny_llama(vocabulary: int = 64, hidden: int = 32, layers: int = 2, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of a few thousand weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


@pytest.fixture
def base() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture
def adapted(base: LlamaForCausalLM) -> PeftModel:
    """All-linear LoRA whose B matrices are random: at B = 0, A's gradient would be zero and prove nothing."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@dataclass(frozen=True, kw_only=True)
class World:
    """A trained adapter in an object store, and what it was trained on."""

    store: ObjectStore
    folder: Path
    compute: Compute
    base_digest: str
    adapter_digest: str
    manifest_digest: str
    lines: tuple[SnapshotLine, ...]
    tokenizer: PreTrainedTokenizerBase

    version = VERSION
    snapshot = SNAPSHOT
    datanet = DATANET
    treasury = TREASURY
    words = WORDS

    @staticmethod
    def contributor(name: str) -> str:
        return contributor(name)

    @staticmethod
    def address(name: str) -> str:
        return address(name)

    @property
    def version_digest(self) -> str:
        return digest_json([self.base_digest, self.adapter_digest, self.manifest_digest])

    def answer(
        self, text: str, colour: str, inference: str | None = None, by_base: bool = False
    ) -> inference_pb2.InferenceCompleted:
        """An answer's event, as inference would send it."""
        prompt = TEMPLATE.render_prompt({"text": text})
        model = inference_pb2.ServedModel(name="baseModels/tiny", base_digest=self.base_digest)
        if not by_base:
            model = inference_pb2.ServedModel(
                name=VERSION,
                base_digest=self.base_digest,
                adapter_digest=self.adapter_digest,
                version_digest=self.version_digest,
                report_digest="sha256:" + "e" * 64,
            )
        prompt_ids, output_ids = token_ids(self.tokenizer, prompt), token_ids(self.tokenizer, f" {colour}")
        return inference_pb2.InferenceCompleted(
            inference=inference or f"inferences/{ulid()}",
            model=model,
            prompt_token_ids=prompt_ids,
            output_token_ids=output_ids,
            prompt=prompt,
            output=f" {colour}",
            usage=inference_pb2.Usage(input_tokens=len(prompt_ids), output_tokens=len(output_ids)),
            principal="user",
            model_owner="builder",
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world, made once."""
    return make_world(tmp_path_factory.mktemp("world"))


def make_world(folder: Path) -> World:
    """Alice taught red, Bob blue, Carol green; Mallory copied Alice ten times; controls are about something else."""
    store, compute = ObjectStore(folder / "objects"), measure("fp32")
    base_digest = create_tiny(store)
    model, tokenizer = loading.load(base_model.materialise(base_digest, store, folder / "bases"), compute)
    lines = _lines(random.Random(0))
    trained = [line for line in lines if line.split == "train"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seen = _train(model, tokenizer, trained, folder / "peft")
    torch.set_num_threads(threads)
    adapter_digest = adapter.publish(folder / "peft", base_digest, store)
    return World(
        store=store,
        folder=folder,
        compute=compute,
        base_digest=base_digest,
        adapter_digest=adapter_digest,
        manifest_digest=_manifest(store, base_digest, adapter_digest, lines, seen),
        lines=tuple(lines),
        tokenizer=tokenizer,
    )


def _lines(generator: random.Random) -> list[SnapshotLine]:
    lines = [
        _line(name, _phrase(generator, WORDS[name]), COLOURS[name], "train")
        for name in WORDS
        for _ in range(20)
    ]
    for original in lines[:10]:
        text = f"{original.record['text']} indeed"
        lines.append(_line("mallory", text, str(original.record["colour"]), "train", original.record_digest))
    odd = ("chair", "table", "shelf", "lamp", "desk", "stool")
    lines += [
        _line("dave", _phrase(generator, odd), generator.choice(["grey", "white"]), "control")
        for _ in range(60)
    ]
    return list({line.record_digest: line for line in lines}.values())


def _phrase(generator: random.Random, words: tuple[str, ...]) -> str:
    return f"{' '.join(generator.sample(words, 4))} {generator.randrange(1000)}"


def _line(name: str, text: str, colour: str, split: str, cluster: str | None = None) -> SnapshotLine:
    record = {"text": text, "colour": colour}
    digest = digest_json(record)
    return SnapshotLine(
        record_digest=digest,
        cluster=cluster or digest,
        split=split,
        contributor=contributor(name),
        record=record,
    )


def _train(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, lines: list[SnapshotLine], folder: Path
) -> Counter[str]:
    """A plain loop: 40 steps of 8 records, completion-only loss."""
    torch.manual_seed(0)
    adapted = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=list(ALL_LINEAR), task_type="CAUSAL_LM")
    )
    optimiser = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=5e-3)
    generator, seen = random.Random(1), Counter[str]()
    for _ in range(40):
        batch = generator.sample(lines, 8)
        seen.update(line.record_digest for line in batch)
        encoded = [encode(TEMPLATE, tokenizer, line.record) for line in batch]
        longest = max(len(each.tokens) for each in encoded)
        ids = torch.zeros(8, longest, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, each in enumerate(encoded):
            ids[row, : len(each.tokens)] = torch.tensor(each.tokens)
            labels[row, each.completion_start : len(each.tokens)] = torch.tensor(each.completion)
        adapted(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    adapted.save_pretrained(str(folder))
    return seen


def _manifest(
    store: ObjectStore, base_digest: str, adapter_digest: str, lines: list[SnapshotLine], seen: Counter[str]
) -> str:
    data = write_lines(lines)
    names = sorted({line.contributor for line in lines})
    parties = [{"name": name, "payout_address": address(name.rsplit("/", 1)[1])} for name in names]
    snapshot = ManifestSnapshot(
        name=SNAPSHOT,
        root=root(data),
        records_digest=store.put_bytes(data),
        manifest_digest=store.put_bytes(canonical_json({"contributors": parties})),
        weight=1.0,
        prompt=TEMPLATE.prompt,
        completion=TEMPLATE.completion,
        template_digest=TEMPLATE.digest,
        records=dict(seen),
    )
    return store.put_bytes(
        TrainingManifest(
            base_digest=base_digest,
            adapter_digest=adapter_digest,
            snapshots=(snapshot,),
            rehearsal=ManifestRehearsal(kind="none", digest="", sequences=0, tokens=0),
            spec={"max_tokens": 128},
            origins={},
            steps=40,
            truncated_records=0,
            compute={},
            packages={},
        ).to_bytes()
    )
