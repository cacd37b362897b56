"""Evaluations of model versions: started, read; and their reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, BinaryIO

from openledger.trainer.v1 import trainer_pb2 as pb
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from identity.names import ModelVersionName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction
from servicekit.errors import InvalidArgument, NotFound
from servicekit.objects import ObjectStore
from servicekit.request_ids import RequestId
from trainer.access import check_owner
from trainer.assessment import Intent
from trainer.entities import Evaluation, JobKind
from trainer.evaluation.message import report_message
from trainer.store import evaluations, jobs, versions

if TYPE_CHECKING:
    from trainer.evaluation.job import SuiteOrder


class Evaluations:
    """Evaluations over one database and one object store."""

    def __init__(self, engine: Engine, objects: ObjectStore) -> None:
        self._engine = engine
        self._objects = objects

    def start(
        self, principal: Principal, name: ModelVersionName, request: pb.EvaluateModelVersionRequest
    ) -> Evaluation:
        """The standing evaluation of the version by these suites, or a new one, queued.

        Raises NotFound for the version, PermissionDenied for another's, InvalidArgument for a suite.
        """
        asked = RequestId.of(principal.name, request)

        def start(session: Session) -> Evaluation:
            known = asked.made(session)
            if known is not None:
                return _found(evaluations.get(session, known), known)
            version = versions.get(session, name)
            if version is None:
                raise NotFound("model version", str(name))
            check_owner(session, principal, name.model, "trainer.models.evaluate")
            suites = [asdict(one) for one in _orders(request.suites, version.run.intent)]
            evaluation = evaluations.standing(session, name, suites)
            if evaluation is None:
                evaluation = evaluations.add(session, jobs.add(session, JobKind.EVALUATE), name, suites)
            asked.remember(session, evaluation.job.id)
            return evaluation

        return run_in_transaction(self._engine, start)

    def get(self, id_: str) -> Evaluation:
        """Raises NotFound."""
        with reading(self._engine) as session:
            return _found(evaluations.get(session, id_), id_)

    def report(self, digest: str) -> pb.EvaluationReport:
        """A report that an evaluation here has made. Raises NotFound."""
        self._of_report(digest)
        return report_message(self._objects.get_bytes(digest))

    def outcomes(self, report_digest: str) -> tuple[str, BinaryIO]:
        """Digest of the outcomes behind a report, and them as a file. Raises NotFound."""
        digest = self._of_report(report_digest).outcomes_digest
        return digest, self._objects.open(digest)

    def _of_report(self, digest: str) -> Evaluation:
        """Only what an evaluation made is given out, not any object whose digest someone knows."""
        with reading(self._engine) as session:
            evaluation = evaluations.by_report(session, digest)
        if evaluation is None:
            raise NotFound("evaluation report", digest)
        return evaluation


def _orders(
    suites: Sequence[pb.EvaluateModelVersionRequest.SuiteRequest], intent: Intent
) -> tuple[SuiteOrder, ...]:
    """The suites asked for, or all at their defaults; margins are those of the run's intent."""
    # Imported at the first evaluation: it brings statistics libraries that a start should not wait for.
    from trainer.evaluation.job import UnknownSuite, default_orders, order

    margins = dict(intent.keep)
    wanted = [(suite.suite, suite.items) for suite in suites] or [(o.name, o.items) for o in default_orders()]
    try:
        return tuple(order(name, items, margins.get(name)) for name, items in wanted)
    except UnknownSuite as error:
        raise InvalidArgument("suites.suite", "suite", str(error), error.name) from None
    except ValueError as error:
        raise InvalidArgument("suites.items", "items", str(error)) from None


def _found(evaluation: Evaluation | None, id_: str) -> Evaluation:
    if evaluation is None:
        raise NotFound("evaluation", f"evaluations/{id_}")
    return evaluation
