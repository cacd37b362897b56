"""Training runs: assessed, created, read, cancelled. Running them is the reconciler's work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openledger.trainer.v1 import trainer_pb2 as pb
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from identity.names import BaseModelName, ModelName
from identity.snapshot import CorruptSnapshot
from modelkit.prompt import PromptTemplate, TemplateError
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from servicekit.objects import ObjectStore
from servicekit.request_ids import RequestId
from trainer import convert, events, names, paging
from trainer.access import check_owner, check_runs_own
from trainer.assessment import Intent, assess
from trainer.base_models import BaseModel, BaseModels
from trainer.entities import JobKind, JobState, Run
from trainer.estimate import expected_seconds
from trainer.facts import DataFacts, FactsReader, combine
from trainer.jobs.files import SnapshotInput
from trainer.spec import EffectiveSpec, SpecError, resolve
from trainer.store import jobs, runs, snapshots
from trainer.suggestion import suggest


@dataclass(frozen=True)
class Assessed:
    """Everything that was found out about a request before it runs."""

    base: BaseModel
    snapshots: tuple[SnapshotInput, ...]
    effective: EffectiveSpec
    intent: Intent
    message: pb.TrainingAssessment


class Runs:
    """Training runs over one database and one object store."""

    def __init__(self, engine: Engine, objects: ObjectStore, base_models: BaseModels) -> None:
        self._engine = engine
        self._base_models = base_models
        self._facts = FactsReader(objects)

    def assess(
        self,
        base_model: str,
        weighted: Sequence[pb.WeightedSnapshot],
        spec: pb.TrainingSpec,
        intent: pb.Intent,
    ) -> Assessed:
        """What a spec will lead to. Changes nothing.

        Raises NotFound for an unknown base model, FailedPrecondition for a snapshot that is not known as
        sealed, InvalidArgument for values that cannot be run.
        """
        base = self._base_models.get(names.parse("base_model", BaseModelName, base_model))
        with reading(self._engine) as session:
            inputs = tuple(_sealed(session, one) for one in weighted)
            speed = runs.newest_speed(session, base.digest)
        facts, user = self._read_facts(inputs), convert.to_user_values(spec)
        suggested = suggest(facts, user)
        try:
            effective = resolve(user, suggested)
        except SpecError as error:
            raise InvalidArgument(f"spec.{error.parameter}", "spec", error.rule) from None
        asked = convert.to_intent(intent)
        findings = assess(effective.spec, facts, asked)
        seconds = expected_seconds(effective.spec, facts, speed)
        message = convert.assessment(findings, suggested, effective, seconds)
        return Assessed(base, inputs, effective, asked, message)

    def create(self, principal: Principal, request: pb.CreateTrainingRunRequest) -> Run:
        """Accepts a run; it is queued when this returns. Raises as `assess`, and PermissionDenied for another's model."""
        model = names.parse("model", ModelName, request.model).model
        asked = RequestId.of(principal.name, request)
        with reading(self._engine) as session:
            check_owner(session, principal, model, "trainer.runs.create")
            known = asked.made(session)
            if known is not None:
                return _found(runs.get(session, known), known)
        assessed = self.assess(request.base_model, request.snapshots, request.spec, request.intent)

        def create(session: Session) -> Run:
            check_owner(session, principal, model, "trainer.runs.create")
            again = asked.made(session)
            if again is not None:
                return _found(runs.get(session, again), again)
            run = Run(
                job=jobs.add(session, JobKind.TRAIN),
                model=model,
                base_model=assessed.base.id,
                base_digest=assessed.base.digest,
                snapshots=assessed.snapshots,
                spec=assessed.effective.spec,
                origins=assessed.effective.origins,
                intent=assessed.intent,
                assessment=convert.to_json(assessed.message),
                principal=principal.name,
                version=0,
                tokens_per_s=0.0,
            )
            runs.add(session, run)
            asked.remember(session, run.job.id)
            events.run_changed(session, run)
            return run

        return run_in_transaction(self._engine, create)

    def get(self, id_: str) -> Run:
        """Raises NotFound."""
        with reading(self._engine) as session:
            return _found(runs.get(session, id_), id_)

    def list(self, model: str, page_size: int, page_token: str) -> tuple[Sequence[Run], str]:
        """A page of runs, newest first, and the next page's token."""
        with reading(self._engine) as session:
            if model:
                model = names.parse("model", ModelName, model).model
            found = runs.page(session, model, paging.key_of(page_token), paging.limit(page_size))
        return paging.page(found, page_size, lambda run: run.job.id)

    def cancel(self, principal: Principal, id_: str) -> Run:
        """Ends a run; one that has ended stays as it is. The reconciler stops its job at Ray.

        Raises NotFound, PermissionDenied for another's run.
        """

        def cancel(session: Session) -> Run:
            run = _found(runs.get(session, id_), id_)
            check_runs_own(principal, run.principal, "trainer.runs.cancel", id_)
            if run.job.state.final:
                return run
            jobs.move(session, id_, JobState.CANCELLED)
            run = _found(runs.get(session, id_), id_)
            events.run_changed(session, run)
            return run

        return run_in_transaction(self._engine, cancel)

    def _read_facts(self, inputs: Sequence[SnapshotInput]) -> DataFacts:
        parts: list[Any] = []
        for snapshot in inputs:
            try:
                template = PromptTemplate(snapshot.prompt, snapshot.completion)
                parts.append(self._facts.read(snapshot.records_digest, template))
            except (CorruptSnapshot, TemplateError) as error:
                raise FailedPrecondition(
                    "SNAPSHOT_UNUSABLE", f"{snapshot.name}: {error}", subject=snapshot.name
                ) from None
        facts = combine(parts)
        if facts.train_records == 0:
            raise FailedPrecondition(
                "NOTHING_TO_TRAIN_ON",
                f"the train splits of {', '.join(s.name for s in inputs)} hold no record",
                subject=inputs[0].name,
            )
        return facts


def _sealed(session: Session, weighted: pb.WeightedSnapshot) -> SnapshotInput:
    sealed = snapshots.get(session, weighted.snapshot)
    if sealed is None:
        raise FailedPrecondition(
            "SNAPSHOT_NOT_SEALED",
            f"{weighted.snapshot!r} is not known as a sealed snapshot; seal it, or wait for its event to arrive",
            subject=weighted.snapshot,
            snapshot=weighted.snapshot,
        )
    return SnapshotInput(
        name=sealed.name,
        root=sealed.root,
        records_digest=sealed.records_digest,
        manifest_digest=sealed.manifest_digest,
        weight=weighted.weight or 1.0,
        prompt=sealed.prompt,
        completion=sealed.completion,
    )


def _found(run: Run | None, id_: str) -> Run:
    if run is None:
        raise NotFound("training run", convert.run_name(id_))
    return run
