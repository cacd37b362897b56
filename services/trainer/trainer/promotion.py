"""The promotion gate: a version is served when its report passed, when people decided to override the report, or when
its successor is rolled back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from evalstats.policy import Verdict
from identity.folding import distinct_people
from identity.names import ModelName, ModelVersionName, PromotionName, PromotionOverrideName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.database.request_ids import RequestId
from servicekit.errors import FailedPrecondition, NotFound
from servicekit.lists import Page, Query
from servicekit.objects import ObjectStore
from trainer import events, metrics, model_policy
from trainer.access import check_promoter
from trainer.entities import Override, Promotion, PromotionKind, Version, VersionState
from trainer.overrides import check_approved, found_override
from trainer.promotion_history import entry_hash, served_before
from trainer.reports import blocking_findings, worst_suite
from trainer.store import promotions, versions
from trainer.versions import check_report, found_version

_REFUSALS = {
    Verdict.PASS: ("GATE_NEEDS_PEOPLE", "passed, and its policy asks more people than one to promote it"),
    Verdict.FAILED: ("GATE_FAILED", "failed"),
    Verdict.INCONCLUSIVE: ("GATE_INCONCLUSIVE", "is inconclusive"),
    Verdict.INCOMPLETE: (
        "GATE_INCOMPLETE",
        "is incomplete: not every suite of its policy was measured to its end",
    ),
}
"""Reason and words of a refusal, by the verdict that stands."""


@dataclass(frozen=True, kw_only=True)
class _Decision:
    """Why a version may be served."""

    kind: PromotionKind
    reason: str
    people: tuple[str, ...] = ()
    """Who decided besides the person who asks for the promotion."""
    override: str = ""
    back_to: int = 0


class Promotions:
    """What is served: promotions, rollbacks and their history, over one database and one object store."""

    def __init__(self, engine: Engine, objects: ObjectStore) -> None:
        self._engine = engine
        self._objects = objects

    def promote(
        self,
        principal: Principal,
        name: ModelVersionName,
        override: PromotionOverrideName | None,
        request_id: RequestId,
    ) -> Version:
        """Serves a version and retires the one served before. Promoting the served version changes nothing, and a late
        repeat of a completed request does not bring back a version that was retired since.

        Raises NotFound; PermissionDenied for another's model; FailedPrecondition without a report, when the gate
        did not pass and no approved override of this very report is given.
        """

        def promote(session: Session) -> Version:
            version = found_version(session, name)
            check_promoter(session, principal, name.model, "trainer.models.promote")
            if request_id.made(session) is not None:
                return version
            request_id.remember(session, str(name))
            if version.state is VersionState.PROMOTED:
                return version
            decision = self._decide(session, version, override)
            self._serve(session, version, principal, decision)
            return found_version(session, name)

        try:
            version = run_in_transaction(self._engine, promote)
        except FailedPrecondition:
            metrics.PROMOTIONS.labels("refused").inc()
            raise
        metrics.PROMOTIONS.labels("overridden" if override else "passed").inc()
        return version

    def rollback(
        self, principal: Principal, model: ModelName, reason: str, request_id: RequestId
    ) -> Promotion:
        """Serves the version again that was served before the present one; the promotion that it had then still counts.

        Raises NotFound; PermissionDenied for another's model; FailedPrecondition when nothing was served before, or when
        that version has failed since.
        """

        def rollback(session: Session) -> Promotion:
            if not versions.exists_model(session, model.model):
                raise NotFound("model", str(model))
            check_promoter(session, principal, model.model, "trainer.models.promote")
            known = request_id.made(session)
            if known is not None:
                made = promotions.get(session, PromotionName.parse(known))
                assert made is not None
                return made
            target = served_before(promotions.history(session, model.model))
            if target is None:
                raise FailedPrecondition(
                    "NOTHING_TO_ROLL_BACK_TO",
                    f"{model} served no version before the present one",
                    subject=str(model),
                )
            version = found_version(session, target.version)
            if any(not report.override for report in version.failed_reports):
                raise self._refusal(version, [])
            decision = _Decision(
                kind=PromotionKind.ROLLED_BACK,
                reason=reason,
                back_to=target.number,
            )
            made = self._serve(session, version, principal, decision)
            request_id.remember(session, str(PromotionName(model.model, made.number)))
            return made

        made = run_in_transaction(self._engine, rollback)
        metrics.PROMOTIONS.labels("rolled_back").inc()
        return made

    def list(self, model: ModelName, query: Query) -> Page[Promotion]:
        """Returns a page of a model's history, newest first.

        Raises NotFound for a model without a training run, InvalidArgument for the query.
        """
        with reading(self._engine) as session:
            if not versions.exists_model(session, model.model):
                raise NotFound("model", str(model))
            return promotions.page(session, model.model, query)

    def _serve(
        self, session: Session, version: Version, principal: Principal, decision: _Decision
    ) -> Promotion:
        """Promotes a version, retires the one served before, adds the entry and publishes the event."""
        name = version.name
        served = versions.promoted(session, name.model)
        before = promotions.newest(session, name.model)
        made = promotions.add(
            session,
            Promotion(
                model=name.model,
                number=before.number + 1 if before else 1,
                previous_hash=entry_hash(before) if before else "",
                version=name,
                retired=served.name if served else None,
                kind=decision.kind,
                report_digest=version.report_digest,
                verdict=version.verdict,
                policy_digest=version.policy_digest,
                override=decision.override,
                back_to=decision.back_to,
                principal=principal.name,
                people=tuple(distinct_people([principal.name, *decision.people])),
                reason=decision.reason,
                time=utc_now(),
            ),
        )
        rolled_back = decision.kind is PromotionKind.ROLLED_BACK
        of_entry = f"{PromotionName(name.model, decision.back_to)}" if rolled_back else ""
        retired = served and versions.move(
            session,
            served.name,
            VersionState.RETIRED,
            principal.name,
            f"rolled back to {name} of {of_entry}" if rolled_back else f"{name} was promoted",
        )
        promoted = versions.move(
            session,
            name,
            VersionState.PROMOTED,
            principal.name,
            f"rollback to {of_entry}: {decision.reason}" if rolled_back else decision.reason,
        )
        events.version_promoted(session, promoted, retired)
        return made

    def _decide(
        self, session: Session, version: Version, override: PromotionOverrideName | None
    ) -> _Decision:
        """Returns why the version may be promoted. Raises FailedPrecondition when it may not."""
        check_report(version)
        people = model_policy.of_version(session, version).effective.people
        shortfall = model_policy.shortfall(session, version)
        passed = version.verdict == Verdict.PASS and not shortfall
        if passed and people.promote < 2:
            return _Decision(
                kind=PromotionKind.PASSED, reason=f"the gate of report {version.report_digest} passed"
            )
        if override is None:
            raise self._refusal(version, shortfall)
        found = found_override(session, override.override)
        if found.version != version.name or not _is_about(found, version):
            raise FailedPrecondition(
                "OVERRIDE_OF_ANOTHER_REPORT",
                f"{override} is about report {found.report_digest} of {found.version}; the report that stands for "
                f"{version.name} is {version.report_digest}",
                subject=str(version.name),
            )
        requester, *approvers = check_approved(found, people.promote if passed else people.override)
        return _Decision(
            kind=PromotionKind.OVERRIDDEN,
            reason=f"override {found.id} by {requester}, approved by {' and '.join(approvers)}: {found.reason}",
            people=(requester, *approvers),
            override=found.id,
        )

    def _refusal(self, version: Version, shortfall: Sequence[str]) -> FailedPrecondition:
        """Returns an error that names the worst suite with its drop, interval and margin; its message names all."""
        report = self._objects.get_bytes(version.report_digest)
        reason, said = _REFUSALS[Verdict(version.verdict)]
        if shortfall and version.verdict != Verdict.FAILED:
            reason, said = "GATE_POLICY_NOT_MET", "was decided by a looser policy than the model is held to"
        worst = worst_suite(report)
        message = "; ".join([f"the gate of {version.name} {said}", *shortfall, *blocking_findings(report)])
        if worst is None:
            return FailedPrecondition(
                reason,
                message,
                subject=str(version.name),
                verdict=version.verdict,
                report_digest=version.report_digest,
                policy_digest=version.policy_digest,
            )
        statistics = worst["statistics"]
        interval = statistics["gain"]["interval"]
        return FailedPrecondition(
            reason,
            message,
            subject=str(version.name),
            suite=worst["name"],
            drop=f"{-statistics['gain']['value']:.4f}",
            drop_lower=f"{-interval['upper']:.4f}",
            drop_upper=f"{-interval['lower']:.4f}",
            margin=f"{worst['margin']:g}",
            items=str(statistics["n"]),
            verdict=version.verdict,
            report_digest=version.report_digest,
            policy_digest=version.policy_digest,
        )


def _is_about(override: Override, version: Version) -> bool:
    """Whether an override is about the report that stands for a version, or lifts its newest failed report."""
    failed = version.failed_reports[-1].report_digest if version.failed_reports else ""
    return override.report_digest == version.report_digest or failed in override.failed_reports
