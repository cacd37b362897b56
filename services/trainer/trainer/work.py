"""What the two kinds of jobs are told and what becomes of their results. The reconciler does the rest for
both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy.orm import Session

from identity.digest import digest_json
from servicekit.files import remove
from trainer import events
from trainer.entities import Run, Version, VersionState
from trainer.jobs.files import CHECKPOINT_FILE, JOB_FILE, RESULT_FILE, TrainingJob, TrainingResult, write_json
from trainer.store import evaluations, runs, versions

if TYPE_CHECKING:
    from trainer.evaluation.job import EvaluationResult


@dataclass(frozen=True)
class Places:
    """Where jobs find things, on every machine of Ray's."""

    object_store: str
    """Absolute folder or URL."""
    cache_dir: str


class Work(Protocol):
    """One kind of job."""

    module: str
    """Run as `python -m MODULE --run FOLDER`."""

    def prepare(self, session: Session, id_: str, folder: Path) -> None:
        """Writes the folder's job file; the same one each time."""

    def has_result(self, folder: Path) -> bool:
        """Whether the job did its last act."""

    def finish(self, session: Session, id_: str, folder: Path) -> None:
        """Takes over a result, in the transaction that makes the job SUCCEEDED."""

    def changed(self, session: Session, id_: str) -> None:
        """Tells a new state, in the transaction that made it."""

    def clear(self, folder: Path) -> None:
        """Removes what a job that is over, and that Ray has let go of, needed only to go on. May be repeated."""


class TrainingWork:
    """Trainings: a result becomes the next version of the run's model."""

    module = "trainer.jobs.train"

    def __init__(self, places: Places) -> None:
        self._places = places

    def prepare(self, session: Session, id_: str, folder: Path) -> None:
        """See Work."""
        run = _run(session, id_)
        job = TrainingJob(
            run=id_,
            base_digest=run.base_digest,
            snapshots=run.snapshots,
            spec=run.spec.to_json(),
            origins=run.origins,
            object_store=self._places.object_store,
            cache_dir=self._places.cache_dir,
        )
        write_json(folder / JOB_FILE, job)

    def has_result(self, folder: Path) -> bool:
        """See Work."""
        return (folder / RESULT_FILE).is_file()

    def finish(self, session: Session, id_: str, folder: Path) -> None:
        """See Work."""
        run, result = _run(session, id_), TrainingResult.read(folder)
        assert result is not None
        digest = digest_json(
            {
                "kind": "model-version",
                "base": run.base_digest,
                "adapter": result.adapter_digest,
                "training_manifest": result.training_manifest_digest,
            }
        )
        version = versions.add(session, run, digest, result)
        speed = result.measurements.get("tokens", 0.0) / max(result.measurements.get("train_s", 0.0), 1e-3)
        runs.succeeded(session, id_, version.name.version, speed)
        events.version_changed(session, version)

    def changed(self, session: Session, id_: str) -> None:
        """See Work."""
        events.run_changed(session, _run(session, id_))

    def clear(self, folder: Path) -> None:
        """See Work. A job that ended well discards its checkpoint itself, unless it was killed on that line."""
        remove(folder / CHECKPOINT_FILE)


class EvaluationWork:
    """Evaluations: a result becomes the newest report of its version, and moves the version.

    The job's types are imported at the first evaluation: they bring statistics libraries that the service's start
    should not wait for.
    """

    module = "trainer.jobs.evaluate"

    def __init__(self, places: Places) -> None:
        self._places = places

    def prepare(self, session: Session, id_: str, folder: Path) -> None:
        """See Work."""
        from trainer.evaluation.job import EvaluationJob, SuiteOrder

        evaluation = evaluations.get(session, id_)
        assert evaluation is not None
        version = versions.get(session, evaluation.version)
        assert version is not None
        job = EvaluationJob(
            base_digest=version.run.base_digest,
            adapter_digest=version.adapter_digest,
            snapshots=version.run.snapshots,
            suites=tuple(SuiteOrder(**suite) for suite in evaluation.suites),
            object_store=self._places.object_store,
            cache_dir=self._places.cache_dir,
        )
        write_json(folder / JOB_FILE, job)

    def has_result(self, folder: Path) -> bool:
        """See Work."""
        return (folder / RESULT_FILE).is_file()

    def finish(self, session: Session, id_: str, folder: Path) -> None:
        """See Work."""
        from trainer.evaluation.job import EvaluationResult

        evaluation, result = evaluations.get(session, id_), EvaluationResult.read(folder)
        assert evaluation is not None
        assert result is not None
        evaluations.succeeded(session, id_, result.report_digest, result.outcomes_digest)
        versions.set_report(session, evaluation.version, result.report_digest, result.verdict)
        version = versions.get(session, evaluation.version)
        assert version is not None
        events.version_changed(session, self._moved(session, version, result))

    def changed(self, session: Session, id_: str) -> None:
        """Evaluations have no event of their own: their version's says what came of them."""

    def clear(self, folder: Path) -> None:
        """Evaluations begin anew: there is nothing to clear."""

    def _moved(self, session: Session, version: Version, result: EvaluationResult) -> Version:
        """A version that is served, or was, keeps its state: taking it down is a person's decision."""
        state = VersionState.BLOCKED if result.verdict == "failed" else VersionState.EVALUATED
        if version.state in (state, VersionState.PROMOTED, VersionState.RETIRED):
            return version
        reason = f"report {result.report_digest}: {result.verdict}"
        return versions.move(session, version.name, state, "trainer", reason)


def _run(session: Session, id_: str) -> Run:
    run = runs.get(session, id_)
    assert run is not None
    return run
