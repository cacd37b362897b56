"""The job that Ray runs: a tiny training with replay and a checkpoint after every step, then the evaluation of what it made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from evidence import check_objects

from evalstats.comparison import Method
from identity.digest import digest_json
from identity.snapshot import SnapshotLine, root, write_lines
from modelkit import tiny
from modelkit.compute import Compute
from servicekit.objects import ObjectStore
from trainer.evaluation.job import EvaluationJob, EvaluationResult, order
from trainer.jobs import evaluate
from trainer.jobs.files import JOB_FILE, SnapshotInput, TrainingJob, TrainingResult, write_json
from trainer.spec import ALL_LINEAR, ReplaySpec, TrainingSpec
from trainer.training import run

FP32 = Compute("cpu", "float32", {}, torch.__version__, 1, "the same in every life")
REPLAY = ReplaySpec("self_generated", sequences=4, tokens_each=8, sequences_per_step=2, kl_weight=2.0)
SPEC = TrainingSpec(5e-3, 3, 4, 4, 8, ALL_LINEAR, 0.1, 64, 0, 1, REPLAY)


def prepare(folder: Path) -> None:
    store = ObjectStore(folder / "objects")
    lines = []
    for number in range(32):
        record = {"text": f"The actor wiped host {number}.", "tactic": ("impact", "discovery")[number % 2]}
        digest = digest_json(record)
        split = "train" if number < 20 else "held_out"
        lines.append(SnapshotLine(digest, digest, split, "datanets/t/contributors/c", record))
    data = write_lines(lines)
    inputs = {"base": tiny.create_tiny(store), "root": root(data), "records": store.put_bytes(data)}
    (folder / "inputs.json").write_text(json.dumps(inputs))


def live(folder: Path) -> None:
    os.environ["OPENLEDGER_COMPUTE"] = "fp32"
    inputs = json.loads((folder / "inputs.json").read_text())
    snapshot = SnapshotInput(
        "datanets/t/snapshots/1",
        inputs["root"],
        inputs["records"],
        "",
        1.0,
        "Report: {text}\nTactic:",
        " {tactic}",
    )
    places = {"object_store": str(folder / "objects"), "cache_dir": str(folder / "cache")}
    training = TrainingJob("run", inputs["base"], (snapshot,), SPEC.to_json(), {}, **places)
    write_json(folder / "training" / JOB_FILE, training)
    result = run.train(folder / "training", compute=FP32, checkpoint_every_s=0)
    assert result is not None
    evaluation = EvaluationJob(
        base_digest=inputs["base"], adapter_digest=result.adapter_digest, snapshots=(snapshot,),
        suites=(order("domain", items=6), order("bits_per_byte", items=4)), method=Method(resamples=1_000), threads=1, **places,
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
    # A run goes on where it was cut off, so what it makes is what a run that nobody cut off makes.
    noted = folder.parent / "made.json"
    if not noted.exists():
        noted.write_text(json.dumps(made))
    assert json.loads(noted.read_text()) == made
