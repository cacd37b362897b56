"""A trainer with a runner of jobs whose every answer the test decides; everything else is real."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from openledger.datanet.v1 import datanet_pb2, events_pb2
from openledger.trainer.v1 import trainer_pb2 as pb
from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

from identity.digest import canonical_json, digest_json, sha256_bytes
from identity.snapshot import SnapshotLine, root, write_lines
from openledger_client.channels import sync_channel
from servicekit.database import reading
from servicekit.eventlog.events import new_event, to_record
from servicekit.eventlog.topics import DATANET_SNAPSHOT_V1
from servicekit.server import Service
from servicekit.testing.services import running, token
from servicekit.testing.waiting import eventually
from trainer.contract.base_models import BaseModel, registry_folder
from trainer.contract.evaluation import EvaluationJob
from trainer.contract.files import RESULT_FILE, TrainingResult, write_json
from trainer.contract.progress import ProgressWriter
from trainer.jobs.runner import JobStatus, RunnerUnavailable
from trainer.service import build
from trainer.settings import TrainerSettings
from trainer.store import snapshots

PROMPT, COMPLETION = "Report: {text}\nTactic:", " {tactic}"
SNAPSHOT = "datanets/threat-intel/snapshots/1"


UNHARMED = {"domain": 0.3, "hellaswag": 0.0, "arc_easy": 0.0, "bits_per_byte": 0.0}
"""Changes of accuracy on the suites of the default gate policy that pass it."""


class ScriptedRunner:
    """A JobRunner that runs nothing: a job runs until the test ends it."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobStatus] = {}
        self.commands: dict[str, list[str]] = {}
        self.submissions: list[str] = []
        self.unreachable = False
        self.known_cores = 2

    def submit(self, id_: str, command: Sequence[str]) -> None:
        self._answer()
        if id_ not in self.jobs:
            self.commands[id_] = list(command)
            self.submissions.append(id_)
            self.jobs[id_] = JobStatus.RUNNING  # last: tests wait for it

    def status(self, id_: str) -> JobStatus:
        self._answer()
        return self.jobs.get(id_, JobStatus.UNKNOWN)

    def stop(self, id_: str) -> None:
        self._answer()
        if self.jobs.get(id_) is JobStatus.RUNNING:
            self.jobs[id_] = JobStatus.STOPPED

    def cores(self) -> int:
        self._answer()
        return self.known_cores

    def _answer(self) -> None:
        if self.unreachable:
            raise RunnerUnavailable("unreachable")


@dataclass
class Trainer:
    """A running trainer and the hands that a test needs."""

    settings: TrainerSettings
    runner: ScriptedRunner | None
    service: Service
    channels: list[grpc.Channel] = field(default_factory=list)
    evaluations: int = 0

    def stub(self, principal: str = "alice", *roles: str) -> Any:
        bearer = token(self.service, roles or ("builder",), principal)
        channel = sync_channel(f"127.0.0.1:{self.service.grpc_port}", bearer)
        self.channels.append(channel)
        return TrainerServiceStub(channel)

    def folder(self, name: str) -> Path:
        return self.settings.jobs / name.rsplit("/", 1)[1]

    def seal(self, name: str = SNAPSHOT, records: int = 300, held_out: int = 120) -> datanet_pb2.Snapshot:
        """Puts a snapshot into the object store and publishes its event, as datanet does; returns when the trainer knows."""
        lines = []
        for number in range(records + held_out):
            record = {"text": f"The actor used tool {number} for phishing.", "tactic": "initial access"}
            digest = digest_json(record)
            split = "train" if number < records else "held_out"
            lines.append(
                SnapshotLine(
                    record_digest=digest,
                    cluster=digest,
                    split=split,
                    contributor="datanets/threat-intel/contributors/eset",
                    record=record,
                )
            )
        data = write_lines(lines)
        snapshot = datanet_pb2.Snapshot(
            name=name, root=root(data), manifest_digest=self.service.objects.put_bytes(b"{}"),
            records_digest=self.service.objects.put_bytes(data), record_count=len(lines),
        )  # fmt: skip
        schema = datanet_pb2.RecordSchema(prompt_template=PROMPT, completion_template=COMPLETION)
        datanet = datanet_pb2.Datanet(name="datanets/threat-intel", schema=schema)
        message = events_pb2.SnapshotSealed(snapshot=snapshot, datanet=datanet)
        self.service.event_log.ensure_topics([DATANET_SNAPSHOT_V1])
        producer = self.service.event_log.producer()
        producer.send([to_record(new_event(DATANET_SNAPSHOT_V1, datanet.name, message, "test"))])
        producer.close()

        def known() -> bool:
            with reading(self.service.engine) as session:
                return snapshots.get(session, name) is not None

        eventually(known, f"the trainer to know {name}")
        return snapshot

    def create(self, **fields: Any) -> pb.TrainingRun:
        """A run of model `threat-intel`, accepted."""
        request = {
            "model": "models/threat-intel",
            "base_model": "baseModels/tiny",
            "snapshots": [pb.WeightedSnapshot(snapshot=SNAPSHOT)],
            "spec": pb.TrainingSpec(steps=40),
            **fields,
        }
        return self.stub().CreateTrainingRun(pb.CreateTrainingRunRequest(**request))

    def at_ray(self, name: str) -> str:
        """The id of a run or evaluation, once the runner has its job."""
        id_ = name.rsplit("/", 1)[1]
        eventually(lambda: self.runner.jobs.get(id_) is JobStatus.RUNNING, f"the job of {name}")
        return id_

    def trained(self, *, adapter: bytes = b"", **fields: Any) -> pb.ModelVersion:
        """A version, as if a job had made it, with this manifest of its adapter."""
        run = self.create(**fields)
        id_ = self.at_ray(run.name)
        with ProgressWriter(self.folder(run.name)) as progress:
            progress.report(
                "training",
                1,
                40,
                "step",
                {
                    "step": 1,
                    "loss": 2.5,
                    "kl": 0.01,
                    "learning_rate": 5e-4,
                    "gradient_norm": 1.0,
                    "tokens_per_s": 400.0,
                },
            )
        adapter_digest = self.service.objects.put_bytes(adapter or f"adapter of {id_}".encode())
        manifest = self.service.objects.put_bytes(f"manifest of {id_}".encode())
        write_json(
            self.folder(run.name) / RESULT_FILE,
            TrainingResult(
                adapter_digest=adapter_digest,
                training_manifest_digest=manifest,
                compute="cpu/float32",
                packages={"torch": "2"},
                measurements={"tokens": 4000.0, "train_s": 10.0},
            ),
        )
        self.runner.jobs[id_] = JobStatus.SUCCEEDED
        updates = list(self.stub().WatchTrainingRun(pb.WatchTrainingRunRequest(name=run.name)))
        assert updates[-1].run.state == pb.RUN_STATE_SUCCEEDED, updates[-1].run.error
        return self.stub().GetModelVersion(pb.GetModelVersionRequest(name=updates[-1].run.model_version))

    def evaluated(self, version: pb.ModelVersion, **suites: float) -> pb.ModelVersion:
        """The version with a complete report in which accuracy on each suite changed by this much: on those that are not named,
        the domain gained and the others are as they were."""
        return self.measured(version, **{**UNHARMED, **suites})

    def measured(self, version: pb.ModelVersion, **suites: float) -> pb.ModelVersion:
        """The version with a report of these suites alone."""
        self.evaluations += 1  # each is another request, or it would answer the one before
        items = [
            pb.EvaluateModelVersionRequest.SuiteRequest(suite=suite, items=400 + self.evaluations)
            for suite in suites
        ]
        evaluation = self.stub().EvaluateModelVersion(
            pb.EvaluateModelVersionRequest(name=version.name, suites=items)
        )
        self.at_ray(evaluation.name)
        job = EvaluationJob.read(self.folder(evaluation.name))
        report, outcomes = make_report(version, suites, job, self.service.objects.put_bytes)
        ended = self.reported(evaluation, report, outcomes)
        assert ended.state == pb.RUN_STATE_SUCCEEDED, ended.error
        return self.stub().GetModelVersion(pb.GetModelVersionRequest(name=version.name))

    def reported(self, evaluation: pb.Evaluation, report: dict[str, Any], outcomes: bytes) -> pb.Evaluation:
        """The evaluation when it is over, as if its job had made this report."""
        id_ = self.at_ray(evaluation.name)
        result = {
            "report_digest": self.service.objects.put_bytes(canonical_json(report)),
            "outcomes_digest": self.service.objects.put_bytes(outcomes),
            "verdict": report["gate"]["verdict"], "findings": report["gate"]["findings"],
            "compute": "cpu/float32", "measurements": {},
        }  # fmt: skip
        (self.folder(evaluation.name) / RESULT_FILE).write_text(json.dumps(result))
        self.runner.jobs[id_] = JobStatus.SUCCEEDED
        watched = self.stub().WatchEvaluation(pb.WatchEvaluationRequest(name=evaluation.name))
        return list(watched)[-1].evaluation


def make_report(
    version: pb.ModelVersion, suites: dict[str, float], job: EvaluationJob, put: Callable[[bytes], str]
) -> tuple[dict[str, Any], bytes]:
    """A real report over 400 made-up items a suite, judged by the job's gate policy; and its outcomes.

    The base is right on half of the items, and needs one bit per byte of a text; the tuned model gains what `suites` says.
    `put` stores the items.
    """
    from evalstats.comparison import Method
    from evalstats.order import item_order
    from evalstats.outcomes import ItemOutcome, Outcomes
    from evalstats.policy import GatePolicy, Role
    from evalstats.records import suite_digest
    from evalstats.report import Inputs, SuiteRecord, build, outcome_set
    from evalstats.rules import Rule, value
    from evalstats.verification import ITEMS_SCHEMA
    from trainer.contract.evaluation import SUITES

    names = [f"i{n}" for n in range(400)]
    order = item_order([(name, name) for name in names], seed=0)

    def outcomes(record: SuiteRecord, adapter: str | None, gain: float) -> Outcomes:
        texts, right = record.rule is Rule.BITS_PER_BYTE, 200 + round(400 * gain)
        items = []
        for n in order:
            chosen = (0.0, -1.0) if n < right else (-1.0, 0.0)
            scores = (-math.log(2) * 10 * (1 - gain),) if texts else chosen
            result = value(record.rule, scores, _OPTIONS[texts], 0)
            items.append(ItemOutcome(names[n], names[n], result, scores))
        return Outcomes(
            suite_digest=record.digest,
            base_digest=version.base_digest,
            adapter_digest=adapter,
            compute="cpu/float32",
            items=tuple(items),
        )

    def record(suite: str) -> SuiteRecord:
        rule = Rule(SUITES[suite].rule or Rule.ACC)
        options = _OPTIONS[rule is Rule.BITS_PER_BYTE]
        entries = [{"id": names[n], "cluster": names[n], "options": options, "gold": 0} for n in order]
        parts = {
            "version": SUITES[suite].version or "1",
            "items_digest": put(canonical_json({"schema": ITEMS_SCHEMA, "items": entries})),
            "template_digest": sha256_bytes(suite.encode()),
        }
        asked = policy.suite(suite)
        return SuiteRecord(
            name=suite,
            role=Role.DOMAIN if suite == "domain" else Role.RETAINED,
            rule=rule,
            digest=suite_digest(name=suite, rule=rule, **parts),
            margin=asked.margin if asked else SUITES[suite].margin,
            available=400,
            **parts,
        )

    policy = GatePolicy.from_json(job.policy)
    records = tuple(map(record, suites))
    pairs = [
        (outcomes(one, None, 0.0), outcomes(one, version.adapter_digest, suites[one.name])) for one in records
    ]
    stored = canonical_json(outcome_set(pairs))
    inputs = Inputs(
        base_digest=version.base_digest,
        adapter_digest=version.adapter_digest,
        outcomes_digest=sha256_bytes(stored),
        suites=records,
        policy=policy,
        policy_source=job.policy_source,
        method=Method(),
        compute={"device": "cpu", "dtype": "float32"},
        packages={},
    )
    return build(inputs, pairs), stored


_OPTIONS = {False: [" a", " b"], True: ["ten bytes."]}
"""Of a made-up item, by whether it is a text."""


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> TrainerSettings:
    """On either kind of database. A base model is registered already: importing it is another test's business."""
    folder = registry_folder(tmp_path)
    folder.mkdir(parents=True)
    model = BaseModel(
        id="tiny",
        digest=sha256_bytes(b"base"),
        display_name="Tiny",
        licence="Apache-2.0",
        parameter_count=164_160,
        source="random weights",
    )
    (folder / "tiny.json").write_text(json.dumps(asdict(model)))
    return TrainerSettings(
        state_dir=tmp_path,
        database_url=database_url,
        auth_mode="development",
        base_models="tiny",
        poll_interval_s=0.02,
        log_level="WARNING",
    )


@pytest.fixture
def trainer(settings: TrainerSettings) -> Iterator[Trainer]:
    runner = ScriptedRunner()
    with running(build(settings, runner)) as service:
        started = Trainer(settings, runner, service)
        yield started
        for channel in started.channels:
            channel.close()


@pytest.fixture(scope="session")
def report_of() -> Callable[..., tuple[dict[str, Any], bytes]]:
    """For tests that change a report before it is seen."""
    return make_report


@pytest.fixture(scope="session")
def trainer_type() -> type[Trainer]:
    """For tests that bring their own service."""
    return Trainer


@pytest.fixture(scope="session")
def scripted() -> type[ScriptedRunner]:
    """For tests that bring their own service."""
    return ScriptedRunner
