"""Jobs follow their states whatever dies, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openledger.trainer.v1 import trainer_pb2 as pb

from servicekit.testing.services import running
from servicekit.testing.waiting import eventually
from trainer.contract.failure import write_failure
from trainer.contract.files import CHECKPOINT_FILE, JOB_FILE, RESULT_FILE, TrainingResult, write_json
from trainer.jobs.runner import JobStatus
from trainer.reconciler import MAX_ATTEMPTS
from trainer.service import build

pytestmark = pytest.mark.slow


def state(trainer: Any, run: pb.TrainingRun) -> pb.TrainingRun:
    return trainer.stub().GetTrainingRun(pb.GetTrainingRunRequest(name=run.name))


def end(trainer: Any, run: pb.TrainingRun) -> pb.TrainingRun:
    """The run when it is over."""
    return list(trainer.stub().WatchTrainingRun(pb.WatchTrainingRunRequest(name=run.name)))[-1].run


def leave_result(trainer: Any, run: pb.TrainingRun) -> None:
    put = trainer.service.objects.put_bytes
    result = TrainingResult(
        adapter_digest=put(b"a"),
        training_manifest_digest=put(b"m"),
        compute="cpu/float32",
        packages={},
        measurements={"tokens": 1.0, "train_s": 1.0},
    )
    write_json(trainer.folder(run.name) / RESULT_FILE, result)


def test_a_job_has_its_input_before_it_is_submitted(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    id_ = trainer.at_ray(run.name)
    job = json.loads((trainer.folder(run.name) / JOB_FILE).read_bytes())
    assert (job["run"], job["spec"]["steps"], job["snapshots"][0]["prompt"]) == (
        id_,
        40,
        "Report: {text}\nTactic:",
    )
    assert trainer.runner.commands[id_][1:3] == ["-m", "finetune.train"]


def test_one_job_at_a_time_the_others_wait_in_order(trainer: Any) -> None:
    trainer.seal()
    first, second = trainer.create(), trainer.create()
    id_ = trainer.at_ray(first.name)
    assert trainer.runner.submissions == [id_]
    assert state(trainer, second).state == pb.RUN_STATE_QUEUED
    leave_result(trainer, first)
    trainer.runner.jobs[id_] = JobStatus.SUCCEEDED
    trainer.at_ray(second.name)


def test_a_job_that_failed_by_itself_fails_its_run_with_the_reason(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    id_ = trainer.at_ray(run.name)
    write_failure(trainer.folder(run.name), "NothingToTrainOn: no record")
    trainer.runner.jobs[id_] = JobStatus.FAILED
    ended = end(trainer, run)
    assert (ended.state, ended.error) == (pb.RUN_STATE_FAILED, "NothingToTrainOn: no record")


def test_a_job_that_ray_forgot_is_handed_over_again(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    id_ = trainer.at_ray(run.name)
    trainer.runner.jobs.clear()  # Ray was restarted
    eventually(lambda: trainer.runner.jobs.get(f"{id_}-2") is JobStatus.RUNNING)
    leave_result(trainer, run)
    trainer.runner.jobs[f"{id_}-2"] = JobStatus.SUCCEEDED
    assert end(trainer, run).state == pb.RUN_STATE_SUCCEEDED


@pytest.mark.parametrize("ending", ["result", "failure", "cancelled"])
def test_what_a_job_needed_to_resume_is_removed_once_it_is_over(trainer: Any, ending: str) -> None:
    """Killed between its last two steps, a job leaves a result and its checkpoint."""
    trainer.seal()
    run = trainer.create()
    id_ = trainer.at_ray(run.name)
    checkpoint = trainer.folder(run.name) / CHECKPOINT_FILE
    checkpoint.write_bytes(b"adapter and optimiser")
    if ending == "cancelled":
        trainer.stub().CancelTrainingRun(pb.CancelTrainingRunRequest(name=run.name))
    elif ending == "result":
        leave_result(trainer, run)
    else:
        write_failure(trainer.folder(run.name), "NothingToTrainOn: no record")
    if ending != "cancelled":
        trainer.runner.jobs[id_] = JobStatus.FAILED
    end(trainer, run)
    eventually(lambda: not checkpoint.exists())


def test_a_job_that_ray_lost_keeps_what_it_needs_to_go_on(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    id_ = trainer.at_ray(run.name)
    checkpoint = trainer.folder(run.name) / CHECKPOINT_FILE
    checkpoint.write_bytes(b"adapter and optimiser")
    trainer.runner.jobs.clear()
    eventually(lambda: trainer.runner.jobs.get(f"{id_}-2") is JobStatus.RUNNING)
    assert checkpoint.exists()


def test_a_job_that_is_always_lost_fails_in_the_end(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    id_ = trainer.at_ray(run.name)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        name = id_ if attempt == 1 else f"{id_}-{attempt}"
        eventually(lambda name=name: trainer.runner.jobs.get(name) is JobStatus.RUNNING)
        trainer.runner.jobs[name] = JobStatus.FAILED
    assert end(trainer, run).state == pb.RUN_STATE_FAILED
    assert len(trainer.runner.submissions) == MAX_ATTEMPTS


def test_runs_wait_while_ray_is_unreachable(trainer: Any) -> None:
    trainer.runner.unreachable = True
    trainer.seal()
    run = trainer.create()
    assert state(trainer, run).state == pb.RUN_STATE_QUEUED
    trainer.runner.unreachable = False
    trainer.at_ray(run.name)


def test_a_cancelled_run_is_stopped_at_ray_and_stays_cancelled(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    id_ = trainer.at_ray(run.name)
    cancelled = trainer.stub().CancelTrainingRun(pb.CancelTrainingRunRequest(name=run.name))
    assert cancelled.state == pb.RUN_STATE_CANCELLED
    eventually(lambda: trainer.runner.jobs[id_] is JobStatus.STOPPED)
    leave_result(trainer, run)
    assert end(trainer, run).state == pb.RUN_STATE_CANCELLED
    again = trainer.stub().CancelTrainingRun(pb.CancelTrainingRunRequest(name=run.name))
    assert again.end_time == cancelled.end_time


def test_a_result_left_while_the_trainer_was_dead_is_taken_over(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    id_ = trainer.at_ray(run.name)
    trainer.service.stop()
    leave_result(trainer, run)
    trainer.runner.jobs[id_] = JobStatus.SUCCEEDED
    with running(build(trainer.settings, trainer.runner)) as service:
        trainer.service = service
        assert end(trainer, run).model_version == "models/threat-intel/versions/1"
    assert trainer.runner.submissions == [id_]
