"""The job handlers: what each kind of job is asked to do, and what becomes of its result.

The reconciler does what both kinds share.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy.orm import Session

from evalstats.claims import Ordered, contradictions
from identity.digest import digest_json
from servicekit.errors import CorruptObject, NotFound
from servicekit.files import remove
from servicekit.objects import ObjectStore
from trainer import events
from trainer.contract.evaluation import EvaluationJob, EvaluationResult, SuiteOrder
from trainer.contract.files import (
    CHECKPOINT_FILE,
    EVALUATE,
    JOB_FILE,
    RESULT_FILE,
    TRAIN,
    TrainingJob,
    TrainingResult,
    write_json,
)
from trainer.entities import Run
from trainer.reports import judged
from trainer.store import evaluations, policies, runs, versions

_SAID = 5
"""Contradictions that a refusal names."""


@dataclass(frozen=True)
class Locations:
    """Where jobs find objects and caches, the same on every machine of Ray's."""

    object_store: str
    """Absolute folder or URL."""
    cache_dir: str


class JobHandler(Protocol):
    """One kind of job."""

    module: str
    """Run as `python -m MODULE --run FOLDER`."""

    def prepare(self, session: Session, id_: str, folder: Path) -> None:
        """Writes the folder's job file; the same content each time."""

    def has_result(self, folder: Path) -> bool:
        """Returns whether the job has finished its last step."""

    def refusal(self, session: Session, id_: str, folder: Path) -> str:
        """Returns why a result is not accepted, which fails the job; "" for one that is."""

    def finish(self, session: Session, id_: str, folder: Path) -> None:
        """Records a result, in the transaction that makes the job SUCCEEDED."""

    def changed(self, session: Session, id_: str) -> None:
        """Publishes a new state, in the transaction that made it."""

    def clear(self, folder: Path) -> None:
        """Removes what only a resumed job needs, once the job is over and Ray has ended it. May be repeated."""


class TrainingHandler:
    """Trainings: a result becomes the next version of the run's model."""

    module = TRAIN

    def __init__(self, locations: Locations) -> None:
        self._locations = locations

    def prepare(self, session: Session, id_: str, folder: Path) -> None:
        """See JobHandler."""
        run = _run(session, id_)
        job = TrainingJob(
            run=id_,
            base_digest=run.base_digest,
            snapshots=run.snapshots,
            spec=run.spec.to_json(),
            origins=run.origins,
            object_store=self._locations.object_store,
            cache_dir=self._locations.cache_dir,
        )
        write_json(folder / JOB_FILE, job)

    def has_result(self, folder: Path) -> bool:
        """See JobHandler."""
        return (folder / RESULT_FILE).is_file()

    def refusal(self, session: Session, id_: str, folder: Path) -> str:
        """Accepts every result: what a training made is judged by evaluations."""
        return ""

    def finish(self, session: Session, id_: str, folder: Path) -> None:
        """See JobHandler."""
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
        """See JobHandler."""
        events.run_changed(session, _run(session, id_))

    def clear(self, folder: Path) -> None:
        """See JobHandler. A job that succeeds removes its checkpoint itself, unless it was killed at that point."""
        remove(folder / CHECKPOINT_FILE)


class EvaluationHandler:
    """Evaluations: a result becomes a report of its version, and moves the version."""

    module = EVALUATE

    def __init__(self, locations: Locations, objects: ObjectStore) -> None:
        self._locations = locations
        self._objects = objects

    def prepare(self, session: Session, id_: str, folder: Path) -> None:
        """See JobHandler."""
        evaluation = evaluations.get(session, id_)
        assert evaluation is not None
        version = versions.get(session, evaluation.version)
        assert version is not None
        policy = policies.content(session, evaluation.policy_digest)
        job = EvaluationJob(
            base_digest=version.run.base_digest,
            adapter_digest=version.adapter_digest,
            snapshots=version.run.snapshots,
            suites=tuple(SuiteOrder(**suite) for suite in evaluation.suites),
            object_store=self._locations.object_store,
            cache_dir=self._locations.cache_dir,
            seed=policy.seed if policy else 0,
            policy=policy.to_json() if policy else {},
            policy_source=evaluation.policy_source,
        )
        write_json(folder / JOB_FILE, job)

    def has_result(self, folder: Path) -> bool:
        """See JobHandler."""
        return (folder / RESULT_FILE).is_file()

    def refusal(self, session: Session, id_: str, folder: Path) -> str:
        """Decides the report again, from the outcomes that it names: a verdict that does not follow is never recorded."""
        evaluation, result = evaluations.get(session, id_), EvaluationResult.read(folder)
        assert evaluation is not None
        assert result is not None
        version = versions.get(session, evaluation.version)
        assert version is not None
        ordered = Ordered(
            base_digest=version.run.base_digest,
            adapter_digest=version.adapter_digest,
            outcomes_digest=result.outcomes_digest,
            policy=policies.content(session, evaluation.policy_digest),
        )
        try:
            report, outcomes = self._json(result.report_digest), self._json(result.outcomes_digest)
            found = contradictions(report, outcomes, ordered, self._json)
        except (NotFound, CorruptObject, ValueError) as error:
            found = [str(error)]
        if not found:
            return ""
        more = f"; and {len(found) - _SAID} more" if len(found) > _SAID else ""
        return (
            f"report {result.report_digest} is refused, it does not follow from its outcomes: "
            f"{'; '.join(found[:_SAID])}{more}"
        )

    def _json(self, digest: str) -> Any:
        return json.loads(self._objects.get_bytes(digest))

    def finish(self, session: Session, id_: str, folder: Path) -> None:
        """See JobHandler."""
        evaluation, result = evaluations.get(session, id_), EvaluationResult.read(folder)
        assert evaluation is not None
        assert result is not None
        policy = policies.content(session, evaluation.policy_digest)
        verdict = judged(self._objects.get_bytes(result.report_digest), policy)
        evaluations.succeeded(session, id_, result.report_digest, result.outcomes_digest, verdict)
        version = versions.set_report(
            session, evaluation.version, result.report_digest, verdict, evaluation.policy_digest
        )
        events.version_changed(session, versions.follow_report(session, version))

    def changed(self, session: Session, id_: str) -> None:
        """Does nothing: evaluations have no event of their own; the event of their version names the report."""

    def clear(self, folder: Path) -> None:
        """Does nothing: an evaluation starts again from the outcomes that it has stored."""


def _run(session: Session, id_: str) -> Run:
    run = runs.get(session, id_)
    assert run is not None
    return run
