"""A real Ray, a real training, a real evaluation: the tiny model through the whole service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
from openledger.trainer.v1 import trainer_pb2 as pb

from finetune.ray_head import RayHead, ray_head
from modelkit.training_manifest import TrainingManifest
from servicekit.testing.ports import claimed_port
from servicekit.testing.services import running
from servicekit.testing.waiting import eventually
from trainer.contract.ray_token import bearer_token, client_environment
from trainer.jobs.ray_jobs import RayJobs
from trainer.jobs.runner import JobStatus, RunnerUnavailable
from trainer.service import build
from trainer.settings import TrainerSettings

pytestmark = [pytest.mark.server, pytest.mark.slow]

_ENDS_WITHIN_S = 900.0
"""A job takes 20 s on an idle machine, 60 s on a busy one: nine processes that import Ray or torch."""

SPEC = pb.TrainingSpec(
    learning_rate=5e-3, steps=6, batch_size=4,
    rehearsal=pb.RehearsalSpec(kind=pb.REHEARSAL_KIND_SELF_GENERATED, sequences=4, tokens_each=12, sequences_per_step=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def ray_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainerSettings]:
    """Settings of a trainer beside a Ray head that runs until the module's tests are over."""
    state = tmp_path_factory.mktemp("state")
    head = ray_head(state, claimed_port(), cpus=2)
    with pytest.MonkeyPatch.context() as patch, (state / "ray.log").open("wb") as log:
        for name, value in client_environment(state).items():
            patch.setenv(name, value)
        started = Head(head, log)
        try:
            eventually(started.answers, "Ray", within_s=_ENDS_WITHIN_S)
            yield TrainerSettings(
                state_dir=state, auth_mode="development", base_models="tiny", log_level="WARNING",
                ray_address=head.address, job_python=sys.executable)  # fmt: skip
        finally:
            started.end()


class Head:
    """A running head. On a busy machine Ray gives up after half a minute; this starts it again, as supervisord does."""

    def __init__(self, head: RayHead, log: IO[bytes]) -> None:
        self._head = head
        self._log = log
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self._head.environment}
        return subprocess.Popen(self._head.argv, env=environment, stdout=self._log, stderr=self._log)

    def answers(self) -> bool:
        if self._process.poll() is not None:
            self._process = self._started()
        try:
            RayJobs(self._head.address, lambda: bearer_token(os.environ)).status("never")
        except RunnerUnavailable:
            return False
        return True

    def end(self) -> None:
        """Ends it and all it started. After a run with workers of its own Ray takes half a minute to end by itself."""
        if self._process.poll() is None:
            process = psutil.Process(self._process.pid)
            family = [process, *process.children(recursive=True)]
            process.terminate()
            for left in psutil.wait_procs(family, timeout=5)[1]:
                left.kill()
            self._process.wait()


def test_ray_listens_on_the_loopback_interface_only(ray_settings: TrainerSettings) -> None:
    ray = RayJobs(ray_settings.ray_address, lambda: bearer_token(os.environ))
    eventually(lambda: takes(ray, "listens", "sleep 600"), within_s=_ENDS_WITHIN_S)
    eventually(
        lambda: ray.status("listens") is JobStatus.RUNNING, within_s=_ENDS_WITHIN_S
    )  # by then its agents listen, too
    listening = {
        (process.name(), found.laddr.ip)
        for process in psutil.Process().children(recursive=True)
        for found in process.net_connections("inet")
        if found.status == psutil.CONN_LISTEN
    }
    ray.stop("listens")
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening


def test_ray_keeps_the_contract_of_a_runner(ray_settings: TrainerSettings, tmp_path: Path) -> None:
    ray, mark = RayJobs(ray_settings.ray_address, lambda: bearer_token(os.environ)), tmp_path / "mark"
    eventually(lambda: takes(ray, "writes", f"echo once >> '{mark}'"), within_s=_ENDS_WITHIN_S)
    assert ray.status("never") is JobStatus.UNKNOWN
    ray.stop("never")
    ray.submit("writes", ["sh", "-c", f"echo twice >> '{mark}'"])
    ray.submit("fails", ["sh", "-c", "exit 3"])
    ray.submit("lasts", ["sleep", "600"])
    eventually(lambda: ray.status("writes") is JobStatus.SUCCEEDED, within_s=_ENDS_WITHIN_S)
    assert mark.read_text() == "once\n"
    eventually(lambda: ray.status("fails") is JobStatus.FAILED, within_s=_ENDS_WITHIN_S)
    ray.stop("lasts")
    eventually(lambda: ray.status("lasts") is JobStatus.STOPPED, within_s=_ENDS_WITHIN_S)


def takes(ray: RayJobs, id_: str, script: str) -> bool:
    """Whether a Ray that may still be starting took a job."""
    try:
        ray.submit(id_, ["sh", "-c", script])
    except RunnerUnavailable:
        return False
    return True


def losses(trainer: Any, run: pb.TrainingRun) -> list[float]:
    """Loss by step of a run that must succeed."""
    updates = list(
        trainer.stub().WatchTrainingRun(pb.WatchTrainingRunRequest(name=run.name), timeout=_ENDS_WITHIN_S)
    )
    assert updates[-1].run.state == pb.RUN_STATE_SUCCEEDED, updates[-1].run.error
    return [update.metrics.loss for update in updates if update.HasField("metrics")]


def test_a_snapshot_becomes_an_evaluated_version(ray_settings: TrainerSettings, trainer_type: Any) -> None:
    with running(build(ray_settings)) as service:
        trainer = trainer_type(ray_settings, None, service)
        sealed = trainer.seal(records=40, held_out=24)
        eventually(
            lambda: list(trainer.stub().ListBaseModels(pb.ListBaseModelsRequest()).base_models) != [],
            within_s=_ENDS_WITHIN_S,
        )
        run = trainer.create(spec=SPEC)
        updates = list(
            trainer.stub().WatchTrainingRun(pb.WatchTrainingRunRequest(name=run.name), timeout=_ENDS_WITHIN_S)
        )
        assert updates[-1].run.state == pb.RUN_STATE_SUCCEEDED, updates[-1].run.error
        steps = [update.metrics for update in updates if update.HasField("metrics")]
        assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
        assert steps[0].kl < 1e-5 < steps[-1].kl
        assert steps[-1].loss < steps[0].loss
        version = trainer.stub().GetModelVersion(
            pb.GetModelVersionRequest(name=updates[-1].run.model_version)
        )
        manifest = TrainingManifest.from_bytes(service.objects.get_bytes(version.training_manifest_digest))
        assert manifest.snapshots[0].root == sealed.root
        assert sum(manifest.snapshots[0].records.values()) == 6 * 4
        two = pb.TrainingSpec()
        two.CopyFrom(SPEC)
        two.workers = 2
        together = losses(trainer, trainer.create(spec=two))
        assert together[0] == pytest.approx(steps[0].loss, rel=1e-4)  # the same first batch, shared by two
        assert together[-1] == pytest.approx(steps[-1].loss, rel=1e-2)
        domain = pb.EvaluateModelVersionRequest.SuiteRequest(suite="domain", items=24)
        evaluation = trainer.stub().EvaluateModelVersion(
            pb.EvaluateModelVersionRequest(name=version.name, suites=[domain])
        )
        last = list(
            trainer.stub().WatchEvaluation(
                pb.WatchEvaluationRequest(name=evaluation.name), timeout=_ENDS_WITHIN_S
            )
        )[-1]
        assert last.evaluation.state == pb.RUN_STATE_SUCCEEDED, last.evaluation.error
        report = trainer.stub().GetEvaluationReport(
            pb.GetEvaluationReportRequest(digest=last.evaluation.report_digest)
        )
        assert report.adapter_digest == version.adapter_digest
        for channel in trainer.channels:
            channel.close()
