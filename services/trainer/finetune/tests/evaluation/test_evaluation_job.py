"""An evaluation from job.json to report, on the tiny model, through the files a service and a job share."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from openledger.trainer.v1 import trainer_pb2
from safetensors.torch import save_file

from evalstats.claims import Ordered, contradictions
from evalstats.policy import GatePolicy, Role, SuitePolicy
from evalstats.verification import check_items, check_report
from finetune.evaluate import run
from finetune.evaluation.domain import EmptyDomainSuite
from finetune.evaluation.known import KnownOutcomes, OutcomesKey
from finetune.evaluation.measuring import LEAST_ITEMS, Measured, Measuring
from finetune.evaluation.models import Models
from finetune.evaluation.run import OtherSuite
from finetune.evaluation.suites import RETAINED
from identity.digest import digest_json, sha256_bytes
from identity.snapshot import SnapshotLine, write_lines
from modelkit.adapter import CONFIG_FILE, WEIGHTS_FILE
from modelkit.base_model import materialise
from modelkit.weights import adapter as adapters
from modelkit.weights.compute import measure
from modelkit.weights.loading import load
from modelkit.weights.tiny import create_tiny
from servicekit.objects import ObjectStore
from trainer import convert
from trainer.contract.evaluation import (
    SUITES,
    EvaluationJob,
    EvaluationResult,
    UnknownSuite,
    default_orders,
    order,
)
from trainer.contract.files import JOB_FILE, RESULT_FILE, SnapshotInput, write_json
from trainer.contract.progress import ProgressWriter, read_progress
from trainer.gate_policy import shipped_default
from trainer.reports import blocking_findings

SOURCE = "sha256:" + "1" * 64
TACTICS = ("Discovery", "Execution", "Impact", "Persistence")


def _snapshot(store: ObjectStore, held_out: int = 12) -> SnapshotInput:
    lines = []
    for number in range(40):
        record = {"text": f"Procedure {number} of a group.", "tactic": TACTICS[number % 4]}
        digest = digest_json(record)
        split = "held_out" if number < held_out else "train"
        lines.append(
            SnapshotLine(
                record_digest=digest,
                cluster=digest,
                split=split,
                contributor="datanets/d/contributors/c",
                record=record,
            )
        )
    records = store.put_bytes(write_lines(lines))
    return SnapshotInput(
        name="datanets/d/snapshots/1",
        root="root",
        records_digest=records,
        manifest_digest="manifest",
        weight=1.0,
        prompt="{text}\nTactic:",
        completion=" {tactic}",
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
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    save_file(weights, folder / WEIGHTS_FILE)
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
            method={"resamples": 1_000},
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


def _scored(folder: Path, offset: int = 0) -> list[str]:
    """Names of the suites that were scored, in order."""
    lines, _ = read_progress(folder, offset)
    stages = (line.stage for line in lines if line.stage.startswith("scoring"))
    return list(dict.fromkeys(stage.removeprefix("scoring ").partition(",")[0] for stage in stages))


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


def test_progress_says_how_many_items_a_suite_takes_at_most(world: World, result: EvaluationResult) -> None:
    lines, _ = read_progress(world.folder / "first")
    assert _scored(world.folder / "first") == [suite.name for suite in world.job.suites]
    for suite in world.job.suites:
        mine = [line for line in lines if line.stage.startswith(f"scoring {suite.name},")]
        assert "at most 12 items" in mine[0].stage
        assert (mine[0].done, mine[0].total, mine[-1].done, mine[-1].total) == (0, 12, 12, 12)
        assert [line.done for line in mine] == sorted(line.done for line in mine)
        assert mine[-1].metrics["items_per_s"] > 0


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


KILLED_IN_ITS_SECOND_SUITE = """
import os, signal
from finetune import evaluate
from trainer.contract.progress import ProgressWriter

report, suites = ProgressWriter.report, set()

def report_and_die(self, stage, *rest, **named):
    line = report(self, stage, *rest, **named)
    if stage.startswith("scoring "):
        suites.add(stage.partition(",")[0])
    if len(suites) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return line

ProgressWriter.report = report_and_die
evaluate.main()
"""


@pytest.mark.slow
def test_job_that_died_within_a_suite_resumes_with_the_part_that_it_lost(
    world: World, tmp_path: Path
) -> None:
    """Died for real: the process is killed in its second suite, then run again."""
    job = replace(world.job, cache_dir=str(tmp_path / "cache"))
    folder = world.folder_of(job, "killed")
    command = [sys.executable, "-c", KILLED_IN_ITS_SECOND_SUITE, "--run", str(folder)]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    assert ended.returncode == -signal.SIGKILL
    finished = _scored(folder)[0]
    at_kill = (folder / "progress.jsonl").stat().st_size
    assert not (folder / RESULT_FILE).exists()
    evaluate(folder)
    repeated = _scored(folder, at_kill)
    assert finished not in repeated
    assert repeated[-1] == "bits_per_byte"


def test_another_adapter_of_the_same_base_does_not_score_the_base_again(
    world: World, result: EvaluationResult
) -> None:
    light = _adapter(world.store, world.base, world.folder / "light", 0.0001)
    second = evaluate(world.folder_of(replace(world.job, adapter_digest=light), "light-job"))
    assert {name.partition(".")[0] for name in second.measurements} == {"tuned"}
    assert second.verdict in ("inconclusive", "pass")
    assert second.report_digest != result.report_digest


def test_a_report_is_judged_by_the_policy_of_its_job(world: World, result: EvaluationResult) -> None:
    policy = shipped_default()
    folder = world.folder_of(
        replace(
            world.job,
            suites=tuple(one for one in world.job.suites if one.name != "hellaswag"),
            policy=policy.to_json(),
            policy_source=SOURCE,
        ),
        "by-policy",
    )
    judged = evaluate(folder)
    report = world.read(judged.report_digest)
    assert (report["policy_digest"], report["policy_source"]) == (policy.digest, SOURCE)
    outcomes_digest = report["outcomes"]
    ordered = Ordered(
        base_digest=world.base,
        adapter_digest=world.adapter,
        outcomes_digest=outcomes_digest,
        policy=policy,
    )
    assert contradictions(report, world.read(outcomes_digest), ordered, world.read) == []
    assert report["gate"]["missing"] == ["hellaswag"]
    assert judged.verdict in ("failed", "incomplete")


def test_a_larger_evaluation_scores_the_new_items_alone(world: World, result: EvaluationResult) -> None:
    suites = (order("arc_easy", 40),)
    larger = evaluate(world.folder_of(replace(world.job, suites=suites), "larger"))
    seconds = larger.measurements["base.arc_easy.seconds"]
    assert (
        round(seconds * larger.measurements["base.arc_easy.items_per_s"]) == 32
    )  # the first block of 16 was known
    smaller = replace(world.job, suites=(order("arc_easy", 5),))
    again = world.folder_of(smaller, "smaller")
    assert len(world.read(evaluate(again).outcomes_digest)["suites"][0]["base"]["items"]) == 5
    assert _scored(again) == []
    alone = replace(world.job, suites=suites, cache_dir=str(world.folder / "cache-of-its-own"))
    assert evaluate(world.folder_of(alone, "alone")).report_digest == larger.report_digest


@pytest.mark.parametrize("field", ["rule", "version"])
def test_a_policy_that_names_another_suite_than_there_is_fails_the_job(world: World, field: str) -> None:
    other = {"rule": "acc", "version": "sha256:" + "0" * 64}[field]
    asked = SuitePolicy(name="arc_easy", role=Role.RETAINED, margin=0.05, items=60)
    policy = GatePolicy(suites=(replace(asked, **{field: other}),))
    job = replace(world.job, suites=(order("arc_easy", 5),), policy=policy.to_json())
    with pytest.raises(OtherSuite, match=f"arc_easy: .*{other}"):
        evaluate(world.folder_of(job, f"other-{field}"))


class Stopped(Exception):
    """The job ends here, as if it were killed."""


def _measure(world: World, folder: Path, sizes: Iterator[int], stop_after: int | None = None) -> Measured:
    """All parts have the sizes given; after `stop_after` parts the job ends."""
    suite = RETAINED["bits_per_byte"].whole(0)
    policy = GatePolicy(
        suites=(SuitePolicy(name=suite.name, role=Role.RETAINED, margin=0.05, items=60),), seed=0
    )
    done = 0

    def parts(reached: int) -> int:
        nonlocal done
        done += 1
        if stop_after is not None and done > stop_after:
            raise Stopped
        return reached + next(sizes)

    base = OutcomesKey(family="", base=world.base, adapter=None, compute="cpu/float32")
    job = replace(world.job, cache_dir=str(world.folder / "cache"))
    with ProgressWriter(folder) as progress, Models(job, world.store, progress, measure("fp32")) as models:
        return Measuring(
            base=base,
            tuned=replace(base, adapter=world.adapter),
            models=models,
            known=KnownOutcomes(folder / "outcomes", world.store, {}),
            policy=policy,
            progress=progress,
            parts=parts,
        ).measure(suite, 60)


def test_neither_the_sizes_of_the_parts_nor_interruptions_change_what_is_reported(
    world: World, tmp_path: Path
) -> None:
    whole = _measure(world, tmp_path / "whole", itertools.repeat(60))
    assert LEAST_ITEMS <= len(whole.suite.items) < 60  # the ruined model fails before its items are used up
    assert _measure(world, tmp_path / "by-seven", itertools.repeat(7)) == whole
    for size in (5, 13):  # each leaves one block of 16
        sizes = itertools.repeat(size)
        with pytest.raises(Stopped):
            _measure(world, tmp_path / "interrupted", sizes, stop_after=1)
    assert _measure(world, tmp_path / "interrupted", itertools.repeat(11)) == whole


def test_outcomes_whose_object_is_lost_are_scored_again(world: World, tmp_path: Path) -> None:
    one_suite = replace(world.job, suites=(order("arc_easy", 4),), cache_dir=str(tmp_path / "cache"))
    first = evaluate(world.folder_of(one_suite, "lost-1"))
    for note in (tmp_path / "cache" / "outcomes").iterdir():
        note.write_text(sha256_bytes(b"gone"))
    second = evaluate(world.folder_of(one_suite, "lost-2"))
    assert second.report_digest == first.report_digest
    assert second.measurements.keys() == first.measurements.keys() != set()


def test_message_shows_what_the_report_says(world: World, result: EvaluationResult) -> None:
    data = world.store.get_bytes(result.report_digest)
    message = convert.report(data)
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
    assert texts.scoring_rule == f"bits-per-byte/{SUITES['bits_per_byte'].version}"
    assert texts.anytime_lower_bound <= texts.anytime_upper_bound


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
