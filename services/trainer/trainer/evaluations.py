"""Evaluations of model versions: started, read; and their reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import BinaryIO

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from evalstats.policy import GatePolicy, SuitePolicy
from identity.names import EvaluationName, ModelVersionName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction
from servicekit.database.request_ids import RequestId
from servicekit.errors import InvalidArgument, NotFound
from servicekit.objects import ObjectStore
from trainer import model_policy
from trainer.access import check_owner
from trainer.contract.evaluation import SuiteOrder, UnknownSuite, order
from trainer.entities import Evaluation, JobKind
from trainer.gate_policy import check_measurable, to_bytes
from trainer.store import evaluations, jobs, policies
from trainer.versions import found_version


class Evaluations:
    """Evaluations over one database and one object store."""

    def __init__(self, engine: Engine, objects: ObjectStore) -> None:
        self._engine = engine
        self._objects = objects

    def start(
        self,
        principal: Principal,
        name: ModelVersionName,
        suites: Sequence[tuple[str, int]],
        request_id: RequestId,
    ) -> Evaluation:
        """Returns the current evaluation of the version by these suites, or a new one, queued.

        `suites` has names and most items (0: the gate policy's number); empty means the policy's suites. Margins and the order of
        items are the policy's that the version is held to. Raises NotFound for the version, PermissionDenied for another's,
        InvalidArgument for a suite, FailedPrecondition for a policy that cannot be measured.
        """

        def start(session: Session) -> Evaluation:
            known = request_id.made(session)
            if known is not None:
                return _found(evaluations.get(session, known), known)
            version = found_version(session, name)
            check_owner(session, principal, name.model, "trainer.models.evaluate")
            held_to = model_policy.of_version(session, version)
            check_measurable(held_to.effective)
            self._objects.put_bytes(to_bytes(held_to.effective))
            orders = [asdict(one) for one in _orders(suites, held_to.effective)]
            digest = policies.put(session, held_to.effective)
            evaluation = evaluations.current(session, name, orders, digest)
            if evaluation is None:
                evaluation = evaluations.add(
                    session,
                    jobs.add(session, JobKind.EVALUATE),
                    name,
                    orders,
                    policy_digest=digest,
                    policy_source=held_to.source.policy.digest,
                )
            request_id.remember(session, evaluation.job.id)
            return evaluation

        return run_in_transaction(self._engine, start)

    def get(self, id_: str) -> Evaluation:
        """Raises NotFound."""
        with reading(self._engine) as session:
            return _found(evaluations.get(session, id_), id_)

    def report(self, digest: str) -> bytes:
        """Returns the canonical JSON of a report that an evaluation here has made. Raises NotFound."""
        self._of_report(digest)
        return self._objects.get_bytes(digest)

    def outcomes(self, report_digest: str) -> tuple[str, BinaryIO]:
        """Returns the digest of the outcomes behind a report, and an open file of them. Raises NotFound."""
        digest = self._of_report(report_digest).outcomes_digest
        return digest, self._objects.open(digest)

    def _of_report(self, digest: str) -> Evaluation:
        """Returns the evaluation that made a report: no other object is served, whatever its digest."""
        with reading(self._engine) as session:
            evaluation = evaluations.by_report(session, digest)
        if evaluation is None:
            raise NotFound("evaluation report", digest)
        return evaluation


def _orders(suites: Sequence[tuple[str, int]], policy: GatePolicy) -> tuple[SuiteOrder, ...]:
    """Returns the suites asked for, or the policy's. Of a suite that the policy lacks, the margin is the platform's."""
    requested = suites or [(suite.name, suite.items) for suite in policy.suites]
    names = [name for name, _ in requested]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InvalidArgument(f"suites[{number}].suite", "suite", "is named twice", name)
    try:
        return tuple(_order(name, items, policy.suite(name)) for name, items in requested)
    except UnknownSuite as error:
        raise InvalidArgument("suites.suite", "suite", str(error), error.name) from None
    except ValueError as error:
        raise InvalidArgument("suites.items", "items", str(error)) from None


def _order(name: str, items: int, asked: SuitePolicy | None) -> SuiteOrder:
    return order(name, items or asked.items, asked.margin) if asked else order(name, items)


def _found(evaluation: Evaluation | None, id_: str) -> Evaluation:
    if evaluation is None:
        raise NotFound("evaluation", str(EvaluationName(id_)))
    return evaluation
