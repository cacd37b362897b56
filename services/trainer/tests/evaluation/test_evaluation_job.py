"""An evaluation from job.json to report, on the tiny model, through the files a service and a job share."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from openledger.trainer.v1 import trainer_pb2
from safetensors.torch import save_file

from evalstats.comparison import Method
from evalstats.verification import check_items, check_report
from identity.digest import digest_json, sha256_bytes
from identity.snapshot import SnapshotLine, write_lines
from modelkit import adapter as adapters
from modelkit.base_model import load, materialise
from modelkit.compute import measure
from modelkit.tiny import create_tiny
from servicekit.objects import ObjectStore
from trainer.evaluation.domain import EmptyDomainSuite
from trainer.evaluation.job import EvaluationJob, EvaluationResult, UnknownSuite, default_orders, order
from trainer.evaluation.message import blocking_findings, report_message
from trainer.jobs.evaluate import run
from trainer.jobs.files import JOB_FILE, RESULT_FILE, SnapshotInput, write_json
from trainer.progress import read_progress

TACTICS = ("Discovery", "Execution", "Impact", "Persistence")


def _snapshot(store: ObjectStore, held_out: int = 12) -> SnapshotInput:
    lines = []
    for number in range(40):
        record = {"text": f"Procedure {number} of a group.", "tactic": TACTICS[number % 4]}
        digest = digest_json(record)
        split = "held_out" if number < held_out else "train"
        lines.append(SnapshotLine(digest, digest, split, "datanets/d/contributors/c", record))
    records = store.put_bytes(write_lines(lines))
    return SnapshotInput(
        "datanets/d/snapshots/1", "root", records, "manifest", 1.0, "{text}\nTactic:", " {tactic}"
    )


def _adapter(store: ObjectStore, base: str, folder: Path, strength: float) -> str:
    """An adapter that pushes the last layer towards one token: a strong one ruins the model for any text."""
    model, _ = load(materialise(base, store, folder / "models"), measure("fp32"))
    path = f"model.layers.{model.config.num_hidden_layers - 1}.mlp.down_proj"
    obsession = model.get_input_embeddings().weight[100]
    random = torch.Generator().manual_seed(1)
    name = f"base_model.model.{path}.lora"
    weights = {
        f"{name}_A.weight": torch.randn(4, model.config.intermediate_size, generator=random),
        f"{name}_B.weight": strength * obsession.unsqueeze(1).repeat(1, 4),
    }
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["down_proj"], "bias": "none"}
    folder.mkdir(exist_ok=True)
    (folder / adapters.CONFIG_FILE).write_text(json.dumps(config))
    save_file(weights, folder / adapters.WEIGHTS_FILE)
    return adapters.publish(folder, base, store)


def evaluate(folder: Path) -> EvaluationResult:
    run(folder)
    result = EvaluationResult.read(folder)
    assert result is not None
    return result


class World:
    """A store with a tiny base, a snapshot and a ruinous adapter; makes job folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ObjectStore(folder / "objects")
        self.base = create_tiny(self.store)
        self.adapter = _adapter(self.store, self.base, folder / "ruinous", 30.0)
        self.job = EvaluationJob(
            base_digest=self.base,
            adapter_digest=self.adapter,
            snapshots=(_snapshot(self.store),),
            suites=tuple(order(o.name, items=12) for o in default_orders()),
            object_store=str(folder / "objects"),
            cache_dir=str(folder / "cache"),
            method=Method(resamples=1_000),
            threads=1,
        )

    def folder_of(self, job: EvaluationJob, name: str) -> Path:
        write_json(self.folder / name / JOB_FILE, job)
        return self.folder / name

    def read(self, digest: str) -> Any:
        return json.loads(self.store.get_bytes(digest))


@pytest.fixture(scope="module", autouse=True)
def _compute_in_fp32() -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("OPENLEDGER_COMPUTE", "fp32")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def result(world: World) -> EvaluationResult:
    return evaluate(world.folder_of(world.job, "first"))


def _scored(folder: Path) -> list[str]:
    lines, _ = read_progress(folder)
    return list(dict.fromkeys(line.stage for line in lines if line.stage.startswith("scoring")))


def test_job_leaves_a_report_that_recomputes_from_its_objects(world: World, result: EvaluationResult) -> None:
    report, outcomes = world.read(result.report_digest), world.read(result.outcomes_digest)
    assert [suite["name"] for suite in report["suites"]] == [
        "domain",
        "hellaswag",
        "arc_easy",
        "bits_per_byte",
    ]
    assert check_report(report, outcomes) == []
    items = {suite["items"]: world.read(suite["items"]) for suite in report["suites"]}
    assert check_items(report, outcomes, items) == []


def test_domain_suite_asks_held_out_records_alone_and_offers_every_class(
    world: World, result: EvaluationResult
) -> None:
    items = world.read(world.read(result.report_digest)["suites"][0]["items"])["items"]
    assert len(items) == 12
    assert all(item["options"] == [f" {tactic}" for tactic in TACTICS] for item in items)
    assert all(int(item["prompt"].split()[1]) < 12 for item in items)


def test_ruined_model_fails_and_the_finding_says_what_was_lost(
    world: World, result: EvaluationResult
) -> None:
    assert result.verdict == "failed"
    findings = blocking_findings(world.store.get_bytes(result.report_digest))
    assert findings[0].startswith("bits_per_byte: lost beyond the margin (bits_per_byte")


def test_progress_counts_items_of_each_suite_and_model(world: World, result: EvaluationResult) -> None:
    lines, _ = read_progress(world.folder / "first")
    stages = _scored(world.folder / "first")
    names = [suite.name for suite in world.job.suites]
    assert stages == [f"scoring {name}, {which} model" for which in ("base", "tuned") for name in names]
    for stage in stages:
        last = [line for line in lines if line.stage == stage][-1]
        assert (last.done, last.total, last.unit) == (12, 12, "item")
        assert last.metrics["items_per_s"] > 0


def test_finished_job_does_nothing_when_run_again(world: World, result: EvaluationResult) -> None:
    folder = world.folder / "first"
    before = (folder / "progress.jsonl").stat().st_size
    assert evaluate(folder) == result
    assert (folder / "progress.jsonl").stat().st_size == before


def test_job_that_died_before_its_result_scores_nothing_twice_and_reports_the_same(
    world: World, result: EvaluationResult
) -> None:
    folder = world.folder_of(world.job, "died")
    again = evaluate(folder)
    assert _scored(folder) == []
    assert again.report_digest == result.report_digest


@pytest.mark.slow
def test_job_that_died_between_suites_goes_on_with_the_first_missing_one(
    world: World, tmp_path: Path
) -> None:
    """Died for real: the process is killed in its second suite, then run again."""
    job = replace(world.job, cache_dir=str(tmp_path / "cache"))
    folder = world.folder_of(job, "killed")
    command = [sys.executable, "-m", "trainer.jobs.evaluate", "--run", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while len(_scored(folder)) < 3:
            with pytest.raises(subprocess.TimeoutExpired):  # else the job ended before it could be killed
                process.wait(timeout=0.05)
    finally:
        process.kill()
        process.wait()
    finished = _scored(folder)[:2]
    at_kill = (folder / "progress.jsonl").stat().st_size
    assert not (folder / RESULT_FILE).exists()
    evaluate(folder)
    lines, _ = read_progress(folder, at_kill)
    repeated = {line.stage for line in lines if line.stage.startswith("scoring")}
    assert repeated.isdisjoint(finished)
    assert "scoring bits_per_byte, tuned model" in repeated


def test_another_adapter_of_the_same_base_does_not_score_the_base_again(
    world: World, result: EvaluationResult
) -> None:
    light = _adapter(world.store, world.base, world.folder / "light", 0.0001)
    folder = world.folder_of(replace(world.job, adapter_digest=light), "light-job")
    second = evaluate(folder)
    assert all(stage.endswith("tuned model") for stage in _scored(folder))
    assert second.verdict in ("inconclusive", "pass")
    assert second.report_digest != result.report_digest


def test_outcomes_whose_object_is_lost_are_scored_again(world: World, tmp_path: Path) -> None:
    one_suite = replace(world.job, suites=(order("arc_easy", 4),), cache_dir=str(tmp_path / "cache"))
    first = evaluate(world.folder_of(one_suite, "lost-1"))
    for note in (tmp_path / "cache" / "outcomes").iterdir():
        note.write_text(sha256_bytes(b"gone"))
    folder = world.folder_of(one_suite, "lost-2")
    assert evaluate(folder).report_digest == first.report_digest
    assert len(_scored(folder)) == 2


def test_message_shows_what_the_report_says(world: World, result: EvaluationResult) -> None:
    data = world.store.get_bytes(result.report_digest)
    message = report_message(data)
    assert message.digest == result.report_digest
    assert bytes(message.canonical_json) == data
    assert message.verdict == trainer_pb2.VERDICT_FAILED
    domain, *kept = message.suites
    assert (domain.suite, domain.gated) == ("domain", False)
    assert all(suite.gated for suite in kept)
    texts = kept[-1]
    assert texts.difference.value < 0 < texts.tuned.value - texts.base.value
    assert texts.difference.lower <= texts.difference_lower_bound <= texts.difference_upper_bound
    assert (texts.base.unit, texts.base.confidence) == ("bits/byte", 0.95)
    assert "bootstrap-t" in texts.difference.method or "student-t" in texts.difference.method
    assert texts.scoring_rule == "bits-per-byte/1"


def test_snapshot_without_held_out_records_is_refused(world: World) -> None:
    job = replace(world.job, snapshots=(_snapshot(world.store, held_out=0),))
    with pytest.raises(EmptyDomainSuite, match="held-out"):
        evaluate(world.folder_of(job, "empty"))


def test_unknown_suite_is_refused_by_name() -> None:
    with pytest.raises(UnknownSuite, match=r"'chess'.*domain, hellaswag, arc_easy, bits_per_byte"):
        order("chess")


def test_job_and_result_survive_their_files(world: World, result: EvaluationResult) -> None:
    folder = world.folder / "first"
    assert EvaluationJob.read(folder) == world.job
    assert EvaluationResult.read(folder) == result
