"""Overrides: decisions of several people to serve a version against its gate; asked for, approved or refused, listed."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from evalstats.policy import Verdict
from identity.folding import distinct_people
from identity.names import ModelName, ModelVersionName, PromotionOverrideName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction
from servicekit.database.request_ids import RequestId
from servicekit.errors import FailedPrecondition, NotFound
from servicekit.lists import Page, Query
from trainer import events, model_policy
from trainer.access import check_promoter
from trainer.entities import Override, OverrideState
from trainer.people import check_another_person
from trainer.store import overrides, versions
from trainer.versions import check_report, found_version

_APPROVE = "trainer.overrides.approve"


class Overrides:
    """Overrides over one database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(
        self, principal: Principal, name: ModelVersionName, reason: str, request_id: RequestId
    ) -> Override:
        """Asks to promote against the gate. Raises NotFound; FailedPrecondition without a report or when it
        passed."""

        def create(session: Session) -> Override:
            known = request_id.made(session)
            if known is not None:
                return found_override(session, known)
            version = found_version(session, name)
            check_promoter(session, principal, name.model, "trainer.overrides.create")
            check_report(version)
            people = model_policy.of_version(session, version).effective.people
            passed = version.verdict == Verdict.PASS and not model_policy.shortfall(session, version)
            if passed and people.promote < 2:
                raise FailedPrecondition(
                    "OVERRIDE_NOT_NEEDED", f"{name} passed its gate; promote it", subject=str(name)
                )
            made = overrides.add(
                session,
                version,
                reason=reason,
                requester=principal.name,
                people=people.promote if passed else people.override,
                failed_reports=[each.report_digest for each in version.failed_reports if not each.override],
            )
            request_id.remember(session, made.id)
            return made

        return run_in_transaction(self._engine, create)

    def get(self, name: PromotionOverrideName) -> Override:
        """Raises NotFound."""
        with reading(self._engine) as session:
            return found_override(session, name.override)

    def list(self, model: ModelName | None, query: Query) -> Page[Override]:
        """Returns a page of a model's overrides, newest first, or of all models'. Raises InvalidArgument for the query."""
        with reading(self._engine) as session:
            return overrides.page(session, model.model if model else "", query)

    def approve(self, principal: Principal, name: PromotionOverrideName) -> Override:
        """Records the consent of another person. Approving again changes nothing.

        Raises NotFound; PermissionDenied for a person who asked or has approved, under any spelling of the name;
        FailedPrecondition when it was approved by others or refused.
        """

        def approve(session: Session) -> Override:
            override = found_override(session, name.override)
            check_another_person(_APPROVE, principal.name, override.requester)
            if principal.name in [approval.principal for approval in override.approvals]:
                return override
            _check_pending(override)
            check_another_person(_APPROVE, principal.name, override.requester, override.approvals)
            complete = len(override.approvals) + 2 >= override.people  # with the requester and this one
            approved = overrides.approve(session, name.override, principal.name, complete=complete)
            if complete and override.failed_reports:
                _lift(session, approved)
            return approved

        return run_in_transaction(self._engine, approve)

    def refuse(self, principal: Principal, name: PromotionOverrideName, reason: str) -> Override:
        """Refuses an override for good. Refusing again changes nothing.

        Raises NotFound; FailedPrecondition when it was approved, or refused by another.
        """

        def refuse(session: Session) -> Override:
            override = found_override(session, name.override)
            if override.refuser == principal.name:
                return override
            _check_pending(override)
            return overrides.refuse(session, name.override, principal.name, reason)

        return run_in_transaction(self._engine, refuse)


def found_override(session: Session, id_: str) -> Override:
    """Returns an override. Raises NotFound."""
    found = overrides.get(session, id_)
    if found is None:
        raise NotFound("promotion override", str(PromotionOverrideName(id_)))
    return found


def check_approved(override: Override, needed: int) -> list[str]:
    """Returns the people who decided. Raises FailedPrecondition while they are fewer than needed, now or when it was asked for.

    They are counted once more: an earlier version of this service compared names by code points.
    """
    people = distinct_people([override.requester, *(approval.principal for approval in override.approvals)])
    if override.state is not OverrideState.APPROVED or len(people) < max(override.people, needed):
        said = (
            f"was refused by {override.refuser!r}: {override.refuse_reason}"
            if override.state is OverrideState.REFUSED
            else f"waits for the approval of someone other than {' and '.join(map(repr, people))}"
        )
        name = str(PromotionOverrideName(override.id))
        raise FailedPrecondition("OVERRIDE_NOT_APPROVED", f"{name} {said}", subject=name)
    return people


def _lift(session: Session, override: Override) -> None:
    """Lets the failed reports that an approved override names stand in the way no longer, and publishes what stands now."""
    before = found_version(session, override.version)
    lifted = versions.lift(session, override.version, override.failed_reports, override.id)
    after = versions.follow_report(session, lifted)
    if (after.report_digest, after.state) != (before.report_digest, before.state):
        events.version_changed(session, after)


def _check_pending(override: Override) -> None:
    name = str(PromotionOverrideName(override.id))
    if override.state is OverrideState.APPROVED:
        given = ", ".join(repr(approval.principal) for approval in override.approvals)
        raise FailedPrecondition("OVERRIDE_APPROVED", f"{name} is approved already, by {given}", subject=name)
    if override.state is OverrideState.REFUSED:
        raise FailedPrecondition(
            "OVERRIDE_REFUSED",
            f"{name} was refused by {override.refuser!r}: {override.refuse_reason}",
            subject=name,
        )
