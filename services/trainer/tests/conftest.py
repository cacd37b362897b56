"""A trainer with a runner of jobs whose every answer the test decides; everything else is real."""

from __future__ import annotations

import json
import threading
import time
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
from servicekit.client import sync_channel
from servicekit.database import reading
from servicekit.events import new_event, to_record
from servicekit.server import Service
from servicekit.testing import running, token
from servicekit.topics import DATANET_SNAPSHOT_V1
from trainer.__main__ import build
from trainer.base_models import BaseModel, registry_folder
from trainer.jobs.files import RESULT_FILE, TrainingResult, write_json
from trainer.jobs.runner import JobStatus, RunnerUnavailable
from trainer.progress import ProgressWriter
from trainer.settings import TrainerSettings
from trainer.store import snapshots

PROMPT, COMPLETION = "Report: {text}\nTactic:", " {tactic}"
SNAPSHOT = "datanets/threat-intel/snapshots/1"


class ScriptedRunner:
    """A JobRunner that runs nothing: a job goes on until the test ends it."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobStatus] = {}
        self.commands: dict[str, list[str]] = {}
        self.submissions: list[str] = []
        self.away = False

    def submit(self, id_: str, command: Sequence[str]) -> None:
        self._answer()
        if id_ not in self.jobs:
            self.jobs[id_] = JobStatus.RUNNING
            self.submissions.append(id_)
            self.commands[id_] = list(command)

    def status(self, id_: str) -> JobStatus:
        self._answer()
        return self.jobs.get(id_, JobStatus.UNKNOWN)

    def stop(self, id_: str) -> None:
        self._answer()
        if self.jobs.get(id_) is JobStatus.RUNNING:
            self.jobs[id_] = JobStatus.STOPPED

    def _answer(self) -> None:
        if self.away:
            raise RunnerUnavailable("away")


@dataclass
class Trainer:
    """A running trainer and the hands that a test needs."""

    settings: TrainerSettings
    runner: ScriptedRunner | None
    service: Service
    channels: list[grpc.Channel] = field(default_factory=list)

    def stub(self, principal: str = "alice", *roles: str) -> Any:
        bearer = token(self.service, roles or ("builder",), principal)
        channel = sync_channel(f"127.0.0.1:{self.service.grpc_port}", bearer)
        self.channels.append(channel)
        return TrainerServiceStub(channel)

    def folder(self, name: str) -> Path:
        return self.settings.jobs / name.rsplit("/", 1)[1]

    def seal(self, name: str = SNAPSHOT, records: int = 300, held_out: int = 120) -> datanet_pb2.Snapshot:
        """Puts a snapshot into the object store and tells it, as datanet does; returns when the trainer knows."""
        lines = []
        for number in range(records + held_out):
            record = {"text": f"The actor used tool {number} for phishing.", "tactic": "initial access"}
            digest = digest_json(record)
            split = "train" if number < records else "held_out"
            lines.append(
                SnapshotLine(digest, digest, split, "datanets/threat-intel/contributors/eset", record)
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

        eventually(known)
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
        eventually(lambda: self.runner.jobs.get(id_) is JobStatus.RUNNING)
        return id_

    def trained(self, **fields: Any) -> pb.ModelVersion:
        """A version, as if a job had made it."""
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
        adapter = self.service.objects.put_bytes(f"adapter of {id_}".encode())
        manifest = self.service.objects.put_bytes(f"manifest of {id_}".encode())
        write_json(
            self.folder(run.name) / RESULT_FILE,
            TrainingResult(
                adapter, manifest, "cpu/float32", {"torch": "2"}, {"tokens": 4000.0, "train_s": 10.0}
            ),
        )
        self.runner.jobs[id_] = JobStatus.SUCCEEDED
        updates = list(self.stub().WatchTrainingRun(pb.WatchTrainingRunRequest(name=run.name)))
        assert updates[-1].run.state == pb.RUN_STATE_SUCCEEDED, updates[-1].run.error
        return self.stub().GetModelVersion(pb.GetModelVersionRequest(name=updates[-1].run.model_version))

    def evaluated(self, version: pb.ModelVersion, **suites: float) -> pb.ModelVersion:
        """The version with a report in which accuracy on each suite changed by this much."""
        items = [pb.EvaluateModelVersionRequest.SuiteRequest(suite=suite, items=400) for suite in suites]
        evaluation = self.stub().EvaluateModelVersion(
            pb.EvaluateModelVersionRequest(name=version.name, suites=items)
        )
        id_ = self.at_ray(evaluation.name)
        report, outcomes = make_report(version, suites)
        result = {
            "report_digest": self.service.objects.put_bytes(canonical_json(report)),
            "outcomes_digest": self.service.objects.put_bytes(outcomes),
            "verdict": report["gate"]["verdict"], "findings": report["gate"]["findings"],
            "compute": "cpu/float32", "measurements": {},
        }  # fmt: skip
        (self.folder(evaluation.name) / RESULT_FILE).write_text(json.dumps(result))
        self.runner.jobs[id_] = JobStatus.SUCCEEDED
        updates = list(self.stub().WatchEvaluation(pb.WatchEvaluationRequest(name=evaluation.name)))
        assert updates[-1].evaluation.state == pb.RUN_STATE_SUCCEEDED, updates[-1].evaluation.error
        return self.stub().GetModelVersion(pb.GetModelVersionRequest(name=version.name))


def make_report(version: pb.ModelVersion, suites: dict[str, float]) -> tuple[dict[str, Any], bytes]:
    """A real report over 400 made-up items a suite: half of them right with the base."""
    from evalstats.comparison import Method
    from evalstats.gate import Role
    from evalstats.outcomes import ItemOutcome, Outcomes
    from evalstats.report import Inputs, SuiteRecord, build, outcome_set
    from evalstats.rules import Rule

    def outcomes(suite: str, adapter: str | None, right: int) -> Outcomes:
        items = tuple(ItemOutcome(f"i{n}", f"i{n}", float(n < right), (0.0, -1.0)) for n in range(400))
        return Outcomes(sha256_bytes(suite.encode()), version.base_digest, adapter, "cpu/float32", items)

    pairs, records = [], []
    for suite, change in suites.items():
        pairs.append(
            (outcomes(suite, None, 200), outcomes(suite, version.adapter_digest, 200 + round(400 * change)))
        )
        digest = sha256_bytes(suite.encode())
        role = Role.DOMAIN if suite == "domain" else Role.RETAINED
        margin = 0.0 if suite == "domain" else 0.05
        records.append(SuiteRecord(suite, role, Rule.CHOICE_PER_BYTE, "1", digest, digest, digest, margin))
    stored = canonical_json(outcome_set(pairs))
    inputs = Inputs(
        version.base_digest,
        version.adapter_digest,
        sha256_bytes(stored),
        tuple(records),
        Method(),
        {"device": "cpu", "dtype": "float32"},
        {},
    )
    return build(inputs, pairs), stored


def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Returns when the condition holds; fails the test when it does not in time."""
    end, pause = time.monotonic() + timeout_s, threading.Event()
    while not condition():
        assert time.monotonic() < end, "what was waited for did not happen"
        pause.wait(0.01)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> TrainerSettings:
    """On either kind of database. A base model is registered already: importing it is another test's business."""
    folder = registry_folder(tmp_path)
    folder.mkdir(parents=True)
    model = BaseModel("tiny", sha256_bytes(b"base"), "Tiny", "Apache-2.0", 164_160, "random weights")
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
        house = Trainer(settings, runner, service)
        yield house
        for channel in house.channels:
            channel.close()


@pytest.fixture
def wait() -> Callable[[Callable[[], bool]], None]:
    """Waits for a condition, with a bound."""
    return eventually


@pytest.fixture(scope="session")
def house() -> type[Trainer]:
    """For tests that bring their own service."""
    return Trainer


@pytest.fixture(scope="session")
def scripted() -> type[ScriptedRunner]:
    """For tests that bring their own service."""
    return ScriptedRunner
