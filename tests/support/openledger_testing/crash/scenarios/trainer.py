"""trainer: a run is trained, its version evaluated, blocked, promoted by an override, after another was refused; two looser gate
policies are decided about; a second run is cancelled.

Jobs run elsewhere and outlive it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from openledger.datanet.v1 import datanet_pb2
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.trainer.v1 import trainer_pb2 as pb
from openledger.trainer.v1.trainer_pb2_grpc import TrainerServiceStub

from identity.digest import canonical_json, digest_json, sha256_bytes
from identity.snapshot import SnapshotLine, root, write_lines
from openledger_testing.crash.service_run import Using
from openledger_testing.crash.service_run import live as live_service
from openledger_testing.crash.stored_state import appearances, check_at_rest, check_objects, events, one, rows
from openledger_testing.repository import ROOT
from servicekit import crash
from servicekit.eventlog import open_event_log, topics
from servicekit.eventlog.events import new_event, to_record
from servicekit.objects import ObjectStore
from servicekit.testing.waiting import eventually
from trainer.contract.base_models import BaseModel, registered_path
from trainer.contract.evaluation import EvaluationJob
from trainer.contract.files import RESULT_FILE, TrainingResult, write_json
from trainer.jobs.runner import JobStatus
from trainer.service import build
from trainer.settings import TrainerSettings

SNAPSHOT = "datanets/threat-intel/snapshots/1"
MODEL = "models/threat-intel"
IMPORT = "import-tiny-1"
SUITES = {"domain": 0.2, "hellaswag": -0.2}
"""Forgets a fifth: the gate blocks it, two people let it pass."""


class OutlivingJobs:
    """A JobRunner whose jobs are files: like Ray's, they are there whatever becomes of the trainer. A job is a name and a
    status, which the client of this scenario changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "jobs-elsewhere"
        self._folder.mkdir(exist_ok=True)

    def submit(self, id_: str, command: Sequence[str]) -> None:
        """See JobRunner."""
        with crash.step("submit job"):
            if self.status(id_) is JobStatus.UNKNOWN:
                self.set(id_, JobStatus.RUNNING)
                with (self._folder / "submissions").open("a") as file:
                    file.write(f"{id_}\n")

    def status(self, id_: str) -> JobStatus:
        """See JobRunner."""
        path = self._folder / id_
        return JobStatus(path.read_text()) if path.exists() else JobStatus.UNKNOWN

    def stop(self, id_: str) -> None:
        """See JobRunner."""
        with crash.step("stop job"):
            if self.status(id_) is JobStatus.RUNNING:
                self.set(id_, JobStatus.STOPPED)

    def cores(self) -> int:
        """See JobRunner."""
        return 2

    def set(self, id_: str, status: JobStatus) -> None:
        """The job comes to this state, in one step."""
        beside = self._folder / f"{id_}.new"
        beside.write_text(status)
        beside.replace(self._folder / id_)

    def submissions(self) -> list[str]:
        """Ids in the order in which they were started."""
        path = self._folder / "submissions"
        return path.read_text().split() if path.exists() else []


crash.primitive(__name__)


def _trainers_own_tests() -> Any:
    """What trainer's tests make reports with."""
    path = ROOT / "services" / "trainer" / "tests" / "conftest.py"
    spec = spec_from_file_location("trainer_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make_report = _trainers_own_tests().make_report


def settings(folder: Path) -> TrainerSettings:
    return TrainerSettings(
        state_dir=folder,
        auth_mode="development",
        base_models="tiny",
        poll_interval_s=0.02,
        grace_s=5,
        log_level="WARNING",
    )


def prepare(folder: Path) -> None:
    """The event that a snapshot was sealed."""
    store, lines = ObjectStore(folder / "objects"), []
    for number in range(420):
        record = {"text": f"The actor used tool {number} for phishing.", "tactic": "initial access"}
        digest = digest_json(record)
        split = "train" if number < 300 else "held_out"
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
        name=SNAPSHOT, root=root(data), manifest_digest=store.put_bytes(b"{}"), records_digest=store.put_bytes(data),
        record_count=len(lines),
    )  # fmt: skip
    schema = datanet_pb2.RecordSchema(
        prompt_template="Report: {text}\nTactic:", completion_template=" {tactic}"
    )
    sealed = datanet_events.SnapshotSealed(
        snapshot=snapshot, datanet=datanet_pb2.Datanet(name="datanets/threat-intel", schema=schema)
    )
    log = open_event_log(f"embedded:{folder / 'events.db'}")
    log.ensure_topics([topics.DATANET_SNAPSHOT_V1])
    log.producer().send(
        [to_record(new_event(topics.DATANET_SNAPSHOT_V1, "datanets/threat-intel", sealed, "test"))]
    )
    log.close()


def database(folder: Path) -> Path:
    return folder / "trainer" / "trainer.db"


def live(folder: Path) -> None:
    live_service(build(settings(folder), OutlivingJobs(folder)), folder, use)


def use(using: Using) -> None:
    eventually(lambda: one(database(using.folder), "SELECT count(*) FROM snapshots"), "the snapshot is known")
    stub, jobs = using.stub(TrainerServiceStub, "alice", "builder"), OutlivingJobs(using.folder)
    register_base_model(using, jobs)
    run = stub.CreateTrainingRun(run_request("train"))
    version = stub.GetModelVersion(pb.GetModelVersionRequest(name=train(using, stub, jobs, run)))
    evaluate(using, stub, jobs, version)
    promote(using, version.name)
    decide_about_policies(using, stub)
    second = stub.CreateTrainingRun(run_request("cancel"))
    id_ = second.name.rsplit("/", 1)[1]
    if second.state != pb.RUN_STATE_CANCELLED:
        eventually(lambda: jobs.status(id_) is not JobStatus.UNKNOWN, "the second job is at Ray")
        stub.CancelTrainingRun(pb.CancelTrainingRunRequest(name=second.name))
    eventually(lambda: jobs.status(id_) is JobStatus.STOPPED, "the second job is stopped")
    eventually(
        lambda: one(database(using.folder), "SELECT count(*) FROM jobs WHERE at_ray") == 0, "no job is at Ray"
    )
    eventually(lambda: one(database(using.folder), "SELECT count(*) FROM outbox") == 0, "all is published")


def register_base_model(using: Using, jobs: OutlivingJobs) -> None:
    """Does what Ray does: the import runs, leaves its result, ends."""
    path = registered_path(using.folder, "tiny")
    if not path.is_file():
        eventually(lambda: jobs.status(IMPORT) is not JobStatus.UNKNOWN, "the import is at Ray")
        model = BaseModel(
            id="tiny",
            digest=sha256_bytes(b"base"),
            display_name="Tiny",
            licence="Apache-2.0",
            parameter_count=164_160,
            source="random weights",
        )
        write_json(settings(using.folder).jobs / "import-tiny" / RESULT_FILE, model)
        jobs.set(IMPORT, JobStatus.SUCCEEDED)
        eventually(path.is_file, "the base model is registered")


def decide_about_policies(using: Using, stub: Any) -> None:
    """Two policies that leave a suite out: a second person approves one and refuses the other."""
    spec = stub.GetGatePolicy(pb.GetGatePolicyRequest(name="gatePolicies/default")).spec
    del spec.suites[0]
    carol = using.stub(TrainerServiceStub, "carol", "approver")
    for id_ in ("lenient", "careless"):
        policy = stub.CreateGatePolicy(
            pb.CreateGatePolicyRequest(parent=f"gatePolicies/{id_}", spec=spec, request_id=id_)
        )
        if id_ == "lenient":
            carol.ApproveGatePolicy(pb.ApproveGatePolicyRequest(name=policy.name))
        else:
            carol.RefuseGatePolicy(pb.RefuseGatePolicyRequest(name=policy.name, reason="no"))


def promote(using: Using, name: str) -> None:
    bob, carol = (using.stub(TrainerServiceStub, person, "approver") for person in ("bob", "carol"))
    refused, override = (
        bob.CreatePromotionOverride(
            pb.CreatePromotionOverrideRequest(
                model_version=name, reason="People who use it asked for it.", request_id=request_id
            )
        )
        for request_id in ("refused", "override")
    )
    carol.RefusePromotionOverride(pb.RefusePromotionOverrideRequest(name=refused.name, reason="no"))
    carol.ApprovePromotionOverride(pb.ApprovePromotionOverrideRequest(name=override.name))
    carol.PromoteModelVersion(
        pb.PromoteModelVersionRequest(name=name, override=override.name, request_id="promote")
    )


def run_request(request_id: str) -> pb.CreateTrainingRunRequest:
    weighted = [pb.WeightedSnapshot(snapshot=SNAPSHOT)]
    return pb.CreateTrainingRunRequest(
        model=MODEL,
        base_model="baseModels/tiny",
        snapshots=weighted,
        spec=pb.TrainingSpec(steps=40),
        request_id=request_id,
    )


def train(using: Using, stub: Any, jobs: OutlivingJobs, run: pb.TrainingRun) -> str:
    """What Ray does: the job runs, leaves its result, ends. Returns the version's name."""
    id_ = run.name.rsplit("/", 1)[1]
    eventually(lambda: jobs.status(id_) is not JobStatus.UNKNOWN, "the job is at Ray")
    put = using.service.objects.put_bytes
    result = TrainingResult(
        adapter_digest=put(b"adapter"),
        training_manifest_digest=put(b"manifest"),
        compute="cpu/float32",
        packages={},
        measurements={"tokens": 1.0, "train_s": 1.0},
    )
    write_json(settings(using.folder).jobs / id_ / RESULT_FILE, result)
    jobs.set(id_, JobStatus.SUCCEEDED)
    return str(list(stub.WatchTrainingRun(pb.WatchTrainingRunRequest(name=run.name)))[-1].run.model_version)


def evaluate(using: Using, stub: Any, jobs: OutlivingJobs, version: pb.ModelVersion) -> None:
    asked = [pb.EvaluateModelVersionRequest.SuiteRequest(suite=suite, items=400) for suite in SUITES]
    evaluation = stub.EvaluateModelVersion(
        pb.EvaluateModelVersionRequest(name=version.name, suites=asked, request_id="evaluate")
    )
    id_ = evaluation.name.rsplit("/", 1)[1]
    eventually(lambda: jobs.status(id_) is not JobStatus.UNKNOWN, "the evaluation is at Ray")
    job, put = EvaluationJob.read(settings(using.folder).jobs / id_), using.service.objects.put_bytes
    report, outcomes = make_report(version, SUITES, job, put)
    result = {
        "report_digest": put(canonical_json(report)), "outcomes_digest": put(outcomes), "verdict": report["gate"]["verdict"],
        "findings": report["gate"]["findings"], "compute": "cpu/float32", "measurements": {},
    }  # fmt: skip
    beside = settings(using.folder).jobs / id_ / "result.new"
    beside.write_text(json.dumps(result))
    beside.replace(beside.with_name(RESULT_FILE))
    jobs.set(id_, JobStatus.SUCCEEDED)
    last = list(stub.WatchEvaluation(pb.WatchEvaluationRequest(name=evaluation.name)))[-1].evaluation
    assert last.state == pb.RUN_STATE_SUCCEEDED, last.error


def check(folder: Path) -> None:
    states = rows(database(folder), "SELECT kind, state, attempts FROM jobs ORDER BY id")
    assert states == [("train", "succeeded", 1), ("evaluate", "succeeded", 1), ("train", "cancelled", 1)], (
        states
    )
    ids = [id_ for (id_,) in rows(database(folder), "SELECT id FROM jobs ORDER BY id")]
    assert OutlivingJobs(folder).submissions() == [IMPORT, *ids], "each job was started once"
    ((number, state, report),) = rows(
        database(folder), "SELECT number, state, report_digest FROM model_versions"
    )
    assert (number, state) == (1, "promoted")
    assert report in check_objects(folder)
    published = [(m.run.name, m.run.state) for m in events(folder, topics.TRAINING_RUN_V1.name).values()]
    train_states = (pb.RUN_STATE_QUEUED, pb.RUN_STATE_RUNNING, pb.RUN_STATE_SUCCEEDED)
    needed = [(f"trainingRuns/{ids[0]}", each) for each in train_states]
    needed += [
        (f"trainingRuns/{ids[2]}", pb.RUN_STATE_QUEUED),
        (f"trainingRuns/{ids[2]}", pb.RUN_STATE_CANCELLED),
    ]
    seen = appearances(
        [each for each in published if each != (f"trainingRuns/{ids[2]}", pb.RUN_STATE_RUNNING)]
    )
    assert seen == dict.fromkeys(needed, 1), "each state of a run is published once"
    versions = [m.model_version.state for m in events(folder, topics.MODEL_VERSION_V1.name).values()]
    assert sorted(versions) == [
        pb.MODEL_VERSION_STATE_TRAINED,
        pb.MODEL_VERSION_STATE_BLOCKED,
        pb.MODEL_VERSION_STATE_PROMOTED,
    ]
    decided = rows(database(folder), "SELECT state FROM promotion_overrides ORDER BY id")
    assert decided == [("refused",), ("approved",)], decided
    check_at_rest(folder, database(folder), "trainer", topics.DATANET_SNAPSHOT_V1.name)
