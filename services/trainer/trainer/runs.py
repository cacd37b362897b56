"""Training runs: assessed, created, read, cancelled. The reconciler has Ray run them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from identity.names import ModelName, TrainingRunName
from modelkit.base_model import InvalidBaseModel, context_length
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction
from servicekit.database.request_ids import RequestId
from servicekit.database.watches import Changes
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from servicekit.lists import Page, Query
from servicekit.objects import ObjectStore
from trainer import events, model_policy
from trainer.access import check_owner, check_runs_own
from trainer.assessment import Assessment, assess
from trainer.base_models import BaseModels
from trainer.contract.base_models import BaseModel
from trainer.contract.files import SnapshotInput
from trainer.contract.spec import SpecError, check_context, resolve
from trainer.entities import JobKind, JobState, Run
from trainer.estimate import expected
from trainer.facts import DataFacts, FactsReader, Surroundings, UnusableSnapshot
from trainer.gate_policy import to_bytes
from trainer.proposals import Proposal, WeightedSnapshot
from trainer.store import jobs, policies, runs, snapshots
from trainer.suggestion import suggest


@dataclass(frozen=True)
class Assessed:
    """A proposal whose base model and snapshots were found, with its assessment."""

    base: BaseModel
    snapshots: tuple[SnapshotInput, ...]
    assessment: Assessment


class Runs:
    """Training runs over one database and one object store."""

    def __init__(
        self,
        *,
        engine: Engine,
        objects: ObjectStore,
        base_models: BaseModels,
        changes: Changes,
        cores: Callable[[], int | None],
    ) -> None:
        """`cores` returns how many Ray has, or None while it does not say."""
        self._engine = engine
        self._cores = cores
        self._context = lru_cache(maxsize=32)(partial(context_length, store=objects))
        self._changes = changes
        self._base_models = base_models
        self._facts = FactsReader(objects)
        self._objects = objects

    def assess(self, proposal: Proposal) -> Assessed:
        """Returns what a proposal will lead to. Changes nothing.

        Raises NotFound for an unknown base model, FailedPrecondition for a snapshot that is not known as
        sealed, InvalidArgument for values that cannot be run and for margins that the gate policy does not allow.
        """
        with reading(self._engine) as session:
            model_policy.of_intent(session, proposal.intent)
        return self._assess(proposal)

    def _assess(self, proposal: Proposal) -> Assessed:
        base = self._base_models.get(proposal.base_model)
        with reading(self._engine) as session:
            inputs = tuple(_sealed(session, one) for one in proposal.snapshots)
            speed = runs.newest_speed(session, base.digest)
        facts, around = self._read_facts(inputs), self._around(base, proposal)
        suggested = suggest(facts, proposal.values, around)
        try:
            effective = resolve(proposal.values, suggested)
            if around.context is not None:
                check_context(effective.spec, around.context)
        except SpecError as error:
            raise InvalidArgument(f"spec.{error.parameter}", "spec", error.rule) from None
        expectation = expected(effective.spec, facts, speed, base.parameter_count)
        assessment = Assessment(
            findings=tuple(assess(effective.spec, facts, proposal.intent, around)),
            suggested=suggested,
            effective=effective,
            expected_s=expectation.seconds,
            expected_basis=expectation.basis,
        )
        return Assessed(base, inputs, assessment)

    def create(
        self, principal: Principal, model: ModelName, proposal: Proposal, request_id: RequestId
    ) -> Run:
        """Accepts a run; it is queued when this returns.

        Raises as `assess`; PermissionDenied for another's model; FailedPrecondition for an intent that is looser than the
        model's earlier runs.
        """
        with reading(self._engine) as session:
            check_owner(session, principal, model.model, "trainer.runs.create")
            known = request_id.made(session)
            if known is not None:
                return _found(runs.get(session, known), known)
        assessed = self._assess(proposal)

        def create(session: Session) -> Run:
            check_owner(session, principal, model.model, "trainer.runs.create")
            again = request_id.made(session)
            if again is not None:
                return _found(runs.get(session, again), again)
            held_to = model_policy.of_new_run(session, model.model, proposal.intent)
            self._objects.put_bytes(to_bytes(held_to.effective))
            run = Run(
                job=jobs.add(session, JobKind.TRAIN),
                model=model.model,
                base_model=assessed.base.id,
                base_digest=assessed.base.digest,
                snapshots=assessed.snapshots,
                spec=assessed.assessment.effective.spec,
                origins=assessed.assessment.effective.origins,
                intent=proposal.intent,
                assessment=assessed.assessment,
                principal=principal.name,
                version=0,
                tokens_per_s=0.0,
                gate_policy=held_to.source.name,
                policy_digest=policies.put(session, held_to.effective),
            )
            runs.add(session, run)
            request_id.remember(session, run.job.id)
            events.run_changed(session, run)
            return run

        return run_in_transaction(self._engine, create)

    def get(self, id_: str) -> Run:
        """Raises NotFound."""
        with reading(self._engine) as session:
            return _found(runs.get(session, id_), id_)

    def list(self, model: ModelName | None, query: Query) -> Page[Run]:
        """Returns a page of a model's runs, newest first, or of all models'. Raises InvalidArgument for the query."""
        with reading(self._engine) as session:
            return runs.page(session, model.model if model else "", query)

    def cancel(self, principal: Principal, id_: str) -> Run:
        """Cancels a run; one that has ended stays as it is. The reconciler stops its job at Ray.

        Raises NotFound, PermissionDenied for another's run.
        """

        def cancel(session: Session) -> Run:
            run = _found(runs.get(session, id_), id_)
            check_runs_own(principal, run.principal, "trainer.runs.cancel", id_)
            if run.job.state.final:
                return run
            jobs.move(session, id_, JobState.CANCELLED)
            self._changes.notify(session, id_)
            run = _found(runs.get(session, id_), id_)
            events.run_changed(session, run)
            return run

        return run_in_transaction(self._engine, cancel)

    def _around(self, base: BaseModel, proposal: Proposal) -> Surroundings:
        """Ray is asked only where its answer can matter: one worker always has a core."""
        cores = self._cores() if proposal.values.get("workers", 1) > 1 else None
        around = Surroundings(cores=cores, linear_modules=base.linear_modules)
        try:
            return replace(around, context=self._context(base.digest))
        except (NotFound, InvalidBaseModel):  # its import says so, and training does
            return around

    def _read_facts(self, inputs: Sequence[SnapshotInput]) -> DataFacts:
        try:
            facts = self._facts.read(inputs)
        except UnusableSnapshot as error:
            raise FailedPrecondition("SNAPSHOT_UNUSABLE", str(error), subject=error.name) from None
        if facts.train_records == 0:
            raise FailedPrecondition(
                "NOTHING_TO_TRAIN_ON",
                f"the train splits of {', '.join(s.name for s in inputs)} hold no record that none of them holds out or keeps as "
                "a control",
                subject=inputs[0].name,
            )
        return facts


def _sealed(session: Session, weighted: WeightedSnapshot) -> SnapshotInput:
    sealed = snapshots.get(session, weighted.name)
    if sealed is None:
        raise FailedPrecondition(
            "SNAPSHOT_NOT_SEALED",
            f"{weighted.name!r} is not known as a sealed snapshot; seal it, or wait for its event to arrive",
            subject=weighted.name,
            snapshot=weighted.name,
        )
    return SnapshotInput(
        name=sealed.name,
        root=sealed.root,
        records_digest=sealed.records_digest,
        manifest_digest=sealed.manifest_digest,
        weight=weighted.weight,
        prompt=sealed.prompt,
        completion=sealed.completion,
    )


def _found(run: Run | None, id_: str) -> Run:
    if run is None:
        raise NotFound("training run", str(TrainingRunName(id_)))
    return run
