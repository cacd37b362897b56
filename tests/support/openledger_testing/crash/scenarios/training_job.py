"""The job that Ray runs: a tiny training with a checkpoint after every step, then the evaluation of what it made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from finetune import evaluate
from finetune.training import run
from identity.digest import digest_json
from identity.snapshot import SnapshotLine, root, write_lines
from modelkit.weights import tiny
from modelkit.weights.compute import Compute
from openledger_testing.crash.stored_state import check_objects
from servicekit.objects import ObjectStore
from trainer.contract.evaluation import EvaluationJob, EvaluationResult, order
from trainer.contract.files import JOB_FILE, SnapshotInput, TrainingJob, TrainingResult, write_json
from trainer.contract.spec import ALL_LINEAR, RehearsalSpec, TrainingSpec

FP32 = Compute(
    device="cpu",
    dtype="float32",
    gflops={},
    torch_version=torch.__version__,
    threads=1,
    reason="the same after every restart",
)
REHEARSAL = RehearsalSpec(
    kind="self_generated", sequences=4, tokens_each=8, sequences_per_step=2, kl_weight=2.0
)
SPEC = TrainingSpec(
    learning_rate=5e-3,
    steps=3,
    batch_size=4,
    lora_rank=4,
    lora_alpha=8,
    target_modules=ALL_LINEAR,
    warmup_ratio=0.1,
    max_tokens=64,
    seed=0,
    workers=1,
    rehearsal=REHEARSAL,
)


def prepare(folder: Path) -> None:
    store = ObjectStore(folder / "objects")
    lines = []
    for number in range(32):
        record = {"text": f"The actor wiped host {number}.", "tactic": ("impact", "discovery")[number % 2]}
        digest = digest_json(record)
        split = "train" if number < 20 else "held_out"
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
    inputs = {"base": tiny.create_tiny(store), "root": root(data), "records": store.put_bytes(data)}
    (folder / "inputs.json").write_text(json.dumps(inputs))


def live(folder: Path) -> None:
    os.environ["OPENLEDGER_COMPUTE"] = "fp32"
    inputs = json.loads((folder / "inputs.json").read_text())
    snapshot = SnapshotInput(
        name="datanets/t/snapshots/1",
        root=inputs["root"],
        records_digest=inputs["records"],
        manifest_digest="",
        weight=1.0,
        prompt="Report: {text}\nTactic:",
        completion=" {tactic}",
    )
    places = {"object_store": str(folder / "objects"), "cache_dir": str(folder / "cache")}
    training = TrainingJob(
        run="run",
        base_digest=inputs["base"],
        snapshots=(snapshot,),
        spec=SPEC.to_json(),
        origins={},
        **places,
    )
    write_json(folder / "training" / JOB_FILE, training)
    result = run.train(folder / "training", compute=FP32, checkpoint_every_s=0)
    assert result is not None
    evaluation = EvaluationJob(
        base_digest=inputs["base"], adapter_digest=result.adapter_digest, snapshots=(snapshot,),
        suites=(order("domain", items=6), order("bits_per_byte", items=4)), method={"resamples": 1_000}, threads=1, **places,
    )  # fmt: skip
    write_json(folder / "evaluation" / JOB_FILE, evaluation)
    evaluate.run(folder / "evaluation")


def check(folder: Path) -> None:
    trained, evaluated = (
        TrainingResult.read(folder / "training"),
        EvaluationResult.read(folder / "evaluation"),
    )
    assert trained is not None
    assert evaluated is not None
    made = [
        trained.adapter_digest,
        trained.training_manifest_digest,
        evaluated.report_digest,
        evaluated.outcomes_digest,
    ]
    assert set(made) <= check_objects(folder)
    assert not (folder / "training" / "checkpoint.pt").exists()
    # A run resumes where it was interrupted, so its results are those of an uninterrupted run.
    noted = folder.parent / "made.json"
    if not noted.exists():
        noted.write_text(json.dumps(made))
    assert json.loads(noted.read_text()) == made
