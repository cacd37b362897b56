"""The training itself, on the tiny model: numbers, repeatability, resumption."""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.evaluation.domain import DomainSource, domain_suite
from finetune.training import rehearsal, run
from finetune.training.examples import NothingToTrainOn, learning_rate, load_examples, schedule
from finetune.training.losses import CausalModel, completion_loss, rehearsal_divergence
from finetune.training.steps import NotFinite
from identity.digest import digest_json
from identity.snapshot import SnapshotLine, read_lines, root, write_lines
from modelkit import base_model
from modelkit.prompt import PromptTemplate
from modelkit.training_manifest import TrainingManifest
from modelkit.weights import adapter, loading, tiny
from modelkit.weights.compute import Compute
from servicekit.objects import ObjectStore
from trainer.contract.files import (
    CHECKPOINT_FILE,
    JOB_FILE,
    LAST_FINITE_FILE,
    SnapshotInput,
    TrainingJob,
    TrainingResult,
    write_json,
)
from trainer.contract.progress import read_progress
from trainer.contract.spec import ALL_LINEAR, NO_REHEARSAL, RehearsalSpec, TrainingSpec

FP32 = Compute(
    device="cpu",
    dtype="float32",
    gflops={},
    torch_version=torch.__version__,
    threads=1,
    reason="pinned numbers",
)
PROMPT, COMPLETION = "Report: {text}\nTactic:", " {tactic}"
REHEARSAL = RehearsalSpec(
    kind="self_generated", sequences=8, tokens_each=16, sequences_per_step=2, kl_weight=2.0
)
SPEC = TrainingSpec(
    learning_rate=5e-3,
    steps=8,
    batch_size=4,
    lora_rank=4,
    lora_alpha=8,
    target_modules=ALL_LINEAR,
    warmup_ratio=0.1,
    max_tokens=64,
    seed=0,
    workers=1,
    rehearsal=NO_REHEARSAL,
)


class Bench:
    """A store with a tiny base and a snapshot, and folders to run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ObjectStore(folder / "objects")
        self.base = tiny.create_tiny(self.store)
        tactics = ("initial access", "impact")
        lines = []
        for number in range(48):
            verb = ("sent a mail to", "wiped the disk of")[number % 2]
            record = {"text": f"The actor {verb} host {number}.", "tactic": tactics[number % 2]}
            digest = digest_json(record)
            split = "train" if number < 40 else "control"
            lines.append(
                SnapshotLine(
                    record_digest=digest,
                    cluster=digest,
                    split=split,
                    contributor="datanets/t/contributors/c",
                    record=record,
                )
            )
        data = write_lines(lines)
        self.train_digests = {line.record_digest for line in lines if line.split == "train"}
        self.snapshot = SnapshotInput(
            name="datanets/t/snapshots/1",
            root=root(data),
            records_digest=self.store.put_bytes(data),
            manifest_digest="",
            weight=1.0,
            prompt=PROMPT,
            completion=COMPLETION,
        )

    def prepare(
        self, name: str, spec: TrainingSpec, snapshots: tuple[SnapshotInput, ...] | None = None
    ) -> Path:
        folder = self.folder / name
        cache = str(self.folder / "cache")
        write_json(
            folder / JOB_FILE,
            TrainingJob(
                run=name,
                base_digest=self.base,
                snapshots=snapshots or (self.snapshot,),
                spec=spec.to_json(),
                origins={},
                object_store=str(self.folder / "objects"),
                cache_dir=cache,
            ),
        )
        return folder

    def train(self, name: str, spec: TrainingSpec) -> TrainingResult:
        result = run.train(self.prepare(name, spec), compute=FP32)
        assert result is not None
        return result

    def weights(self, name: str, spec: TrainingSpec) -> adapter.Adapter:
        digest = self.train(name, spec).adapter_digest
        return adapter.read(adapter.fetch(digest, self.store, self.folder / "adapters", self.base))

    def manifest(self, name: str, spec: TrainingSpec) -> TrainingManifest:
        digest = self.train(name, spec).training_manifest_digest
        return TrainingManifest.from_bytes(self.store.get_bytes(digest))

    def losses(self, name: str) -> dict[int, float]:
        lines, _ = read_progress(self.folder / name)
        return {int(line.metrics["step"]): line.metrics["loss"] for line in lines if line.metrics}

    def load(self) -> tuple[Any, Any]:
        return loading.load(
            base_model.materialise(self.base, self.store, self.folder / "cache" / "models"), FP32
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("training"))


def test_loss_falls_along_pinned_values(bench: Bench) -> None:
    bench.train("pinned", SPEC)
    losses = bench.losses("pinned")
    assert list(losses) == list(range(1, 9))
    assert losses[1] == pytest.approx(8.4656, abs=1e-3)
    assert losses[8] == pytest.approx(5.5791, abs=0.05)
    assert losses[8] < losses[1] - 1


def test_the_same_spec_and_data_make_the_same_adapter(bench: Bench) -> None:
    assert bench.train("once", SPEC).adapter_digest == bench.train("twice", SPEC).adapter_digest
    other = dataclasses.replace(SPEC, seed=1)
    assert bench.train("other", other).adapter_digest != bench.train("once", SPEC).adapter_digest


def test_the_manifest_names_every_record_seen_and_how_often(bench: Bench) -> None:
    spec = dataclasses.replace(SPEC, steps=15, rehearsal=REHEARSAL)
    result = bench.train("manifest", spec)
    manifest = TrainingManifest.from_bytes(bench.store.get_bytes(result.training_manifest_digest))
    (snapshot,) = manifest.snapshots
    assert (
        set(snapshot.records) == bench.train_digests
    )  # 60 draws of 40: every record once or twice, no control
    assert Counter(snapshot.records.values()) == {1: 20, 2: 20}
    assert (manifest.rehearsal.kind, manifest.rehearsal.sequences) == ("self_generated", 8)
    assert snapshot.template_digest == PromptTemplate(PROMPT, COMPLETION).digest
    assert manifest.adapter_digest == result.adapter_digest
    assert manifest.spec["steps"] == 15


def test_the_adapter_that_is_published_is_one_that_can_be_fetched(bench: Bench) -> None:
    result = bench.train("fetched", SPEC)
    folder = adapter.fetch(result.adapter_digest, bench.store, bench.folder / "adapters", bench.base)
    read = adapter.read(folder)
    assert (read.config.rank, read.config.alpha, read.config.target_modules) == (4, 8, ALL_LINEAR)
    assert any(b.abs().max() > 0 for _, b in read.weights.values())


def test_divergence_from_the_base_is_zero_before_the_first_step(bench: Bench) -> None:
    model, tokenizer = bench.load()
    rehearsed = rehearsal.sample(
        model, tokenizer, REHEARSAL, seed=0, device="cpu", report=lambda done, total: None
    )
    divergence, positions = rehearsal_divergence(
        CausalModel(model), rehearsed.tokens, rehearsed.mask, rehearsed.base_hidden
    )
    assert positions == int(rehearsed.mask.sum())
    assert abs(float(divergence) / positions) < 1e-6


def test_rehearsal_holds_the_model_near_its_base(bench: Bench) -> None:
    spec = dataclasses.replace(SPEC, steps=16, learning_rate=1e-2)
    held = bench.train(
        "held", dataclasses.replace(spec, rehearsal=dataclasses.replace(REHEARSAL, kl_weight=8.0))
    )
    free = bench.train(
        "free", dataclasses.replace(spec, rehearsal=dataclasses.replace(REHEARSAL, kl_weight=1e-9))
    )
    assert held.measurements["final_kl"] < free.measurements["final_kl"] / 2


def test_padding_changes_no_loss(bench: Bench) -> None:
    model, tokenizer = bench.load()
    source = run.SnapshotSource(
        name="s",
        root="",
        records_digest=bench.snapshot.records_digest,
        manifest_digest="",
        weight=1.0,
        template=PromptTemplate(PROMPT, COMPLETION),
    )
    short, long = sorted(load_examples([source], tokenizer, bench.store, 64), key=lambda e: len(e.tokens))[
        ::39
    ]
    parts = CausalModel(model)
    together, count = completion_loss(parts, [short, long], 2, "cpu")
    apart = [completion_loss(parts, [one], 2, "cpu")[0] for one in (short, long)]
    assert count == sum(len(e.tokens) - e.completion_start for e in (short, long))
    assert float(together) == pytest.approx(float(sum(apart)), rel=1e-5)


def test_a_snapshot_without_train_records_is_named(bench: Bench) -> None:
    empty = bench.store.put_bytes(b"")
    source = run.SnapshotSource(
        name="datanets/t/snapshots/9",
        root="",
        records_digest=empty,
        manifest_digest="",
        weight=1.0,
        template=PromptTemplate(PROMPT, COMPLETION),
    )
    with pytest.raises(NothingToTrainOn, match="datanets/t/snapshots/9"):
        load_examples([source], bench.load()[1], bench.store, 64)


def test_what_one_snapshot_withholds_is_not_learned_from_another(bench: Bench) -> None:
    """Two snapshots of one Datanet, divided by two salts: the manifest names no record that either of them asks."""
    lines = list(read_lines(bench.store.get_bytes(bench.snapshot.records_digest)))
    snapshots, sources = [], []
    for salt in ("one", "two"):
        chance = random.Random(salt)
        divided = [
            dataclasses.replace(line, split=chance.choice(("train", "train", "held_out", "control")))
            for line in lines
        ]
        data = write_lines(divided)
        sources.append(DomainSource(tuple(divided), PromptTemplate(PROMPT, COMPLETION)))
        snapshots.append(
            dataclasses.replace(
                bench.snapshot,
                name=f"datanets/t/snapshots/{salt}",
                root=root(data),
                records_digest=bench.store.put_bytes(data),
            )
        )
    folder = bench.prepare("two-snapshots", dataclasses.replace(SPEC, steps=30), tuple(snapshots))
    result = run.train(folder, compute=FP32)
    assert result is not None
    manifest = TrainingManifest.from_bytes(bench.store.get_bytes(result.training_manifest_digest))
    trained = {digest for snapshot in manifest.snapshots for digest in snapshot.records}
    splits = [{line.record_digest: line.split for line in source.lines} for source in sources]
    assert trained == {digest for digest in splits[0] if {each[digest] for each in splits} == {"train"}}
    asked = {item.id for item in domain_suite(sources, 0).items}
    assert len(asked) > 5
    assert not any(each[digest] == "control" for each in splits for digest in asked)
    assert trained.isdisjoint(asked)


def test_weights_set_how_often_a_snapshot_is_seen() -> None:
    weights = [1.0] * 100 + [0.25] * 100
    batches = schedule([1] * 200, weights, steps=500, batch_size=10, seed=0)
    seen = Counter(index < 100 for batch in batches for index in batch)
    assert seen[True] / seen[False] == pytest.approx(4, rel=0.1)


def test_batches_hold_records_of_like_length() -> None:
    lengths = [n % 50 + 1 for n in range(400)]
    batches = schedule(lengths, [1.0] * 400, steps=40, batch_size=10, seed=0)
    padded = sum(10 * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.25 * sum(lengths[i] for batch in batches for i in batch)


def test_the_rate_rises_to_its_peak_and_falls_to_a_tenth() -> None:
    rates = _rates("cosine")
    assert max(rates) == rates[10] == 1e-3
    assert rates[:10] == sorted(rates[:10])
    assert rates[99] == pytest.approx(1e-4, rel=0.01)


def test_a_linear_schedule_falls_evenly_and_a_constant_one_stays() -> None:
    linear, constant = _rates("linear"), _rates("constant")
    falls = [a - b for a, b in itertools.pairwise(linear[10:])]
    assert falls == pytest.approx([falls[0]] * len(falls))
    assert linear[99] == pytest.approx(1e-4, rel=0.11)
    assert set(constant[10:]) == {1e-3}


def _rates(kind: Any) -> list[float]:
    spec = dataclasses.replace(SPEC, learning_rate=1e-3, steps=100, schedule=kind)
    return [learning_rate(step, spec) for step in range(100)]


SHORT = dataclasses.replace(SPEC, steps=4)


@pytest.mark.parametrize(
    "changed",
    [{"lora_dropout": 0.5}, {"schedule": "constant"}, {"max_grad_norm": 0.01}, {"warmup_ratio": 0.0}],
    ids=str,
)
def test_each_value_changes_the_adapter_and_stands_in_the_manifest(
    bench: Bench, changed: dict[str, Any]
) -> None:
    spec, name = dataclasses.replace(SHORT, **changed), "-".join(changed)
    plain, tried = bench.train("short", SHORT), bench.train(name, spec)
    assert tried.adapter_digest != plain.adapter_digest
    assert changed.items() <= bench.manifest(name, spec).spec.items()


def test_dropout_is_drawn_from_the_seed(bench: Bench) -> None:
    spec = dataclasses.replace(SHORT, lora_dropout=0.5)
    assert bench.train("drops", spec).adapter_digest == bench.train("drops-again", spec).adapter_digest


def test_weight_decay_keeps_weights_small(bench: Bench) -> None:
    decayed = bench.weights("decayed", dataclasses.replace(SHORT, weight_decay=1.0, learning_rate=0.05))
    free = bench.weights("free-of-decay", dataclasses.replace(SHORT, learning_rate=0.05))
    size = [sum(float(a.norm()) for a, _ in made.weights.values()) for made in (decayed, free)]
    assert size[0] < 0.95 * size[1]


def test_rslora_is_stored_as_plain_lora_of_the_same_scale(bench: Bench) -> None:
    stabilised = bench.weights("rslora", dataclasses.replace(SHORT, method="rslora"))
    plain = bench.weights("plain-16", dataclasses.replace(SHORT, lora_alpha=16))
    assert stabilised.config.scale == plain.config.scale == 8 / 4**0.5
    for module, (a, b) in plain.weights.items():
        assert torch.equal(a, stabilised.weights[module][0])
        assert torch.equal(b, stabilised.weights[module][1])


def test_accumulated_batches_are_one_step(bench: Bench) -> None:
    halves = dataclasses.replace(SHORT, batch_size=2, gradient_accumulation=2)
    assert bench.manifest("halves", halves).snapshots == bench.manifest("wholes", SHORT).snapshots
    halved, whole = bench.losses("halves"), bench.losses("wholes")
    assert halved == pytest.approx(whole, rel=1e-3)


def test_a_spec_chooses_its_number_type(bench: Bench) -> None:
    result = run.train(bench.prepare("bf16", dataclasses.replace(SHORT, steps=1, precision="bf16")))
    assert result is not None
    assert result.compute == "cpu/bfloat16" or not result.compute.startswith("cpu")


def test_a_number_that_is_not_finite_ends_the_run_and_keeps_the_state_before(bench: Bench) -> None:
    """A rate of 1e30 makes weights whose product overflows: the first step is finite, the second is not."""
    folder = bench.prepare("diverges", dataclasses.replace(SPEC, learning_rate=1e30))
    with pytest.raises(NotFinite) as caught:
        run.train(folder, compute=FP32)
    assert caught.value.step == 2
    named = set(re.findall(r"sha256:[0-9a-f]{64}", str(caught.value)))
    assert len(named) == 4
    assert named <= bench.train_digests
    assert list(bench.losses("diverges")) == [1]
    kept = torch.load(folder / LAST_FINITE_FILE, weights_only=True)
    assert kept["step"] == 1
    assert all(torch.isfinite(weight).all() for weight in kept["adapter"].values())
    assert not (folder / CHECKPOINT_FILE).exists()
