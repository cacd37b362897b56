"""The gate: a version is served when its report passed, or when two people stand for it against the
report."""

from __future__ import annotations

import json
from typing import Any

from openledger.trainer.v1 import trainer_pb2 as pb
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from identity.names import ModelVersionName
from servicekit.auth import Principal
from servicekit.database import run_in_transaction
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound, PermissionDenied
from servicekit.objects import ObjectStore
from servicekit.request_ids import RequestId
from trainer import events, metrics
from trainer.access import check_promoter
from trainer.entities import Override, Version, VersionState
from trainer.evaluation.message import blocking_findings
from trainer.store import overrides, versions

_PASS = "pass"
_APPROVE = "trainer.overrides.approve"


class Promotion:
    """Promotion and its overrides over one database and one object store."""

    def __init__(self, engine: Engine, objects: ObjectStore) -> None:
        self._engine = engine
        self._objects = objects

    def promote(
        self, principal: Principal, name: ModelVersionName, request: pb.PromoteModelVersionRequest
    ) -> Version:
        """Serves a version and retires the one served before. Serving what is served changes nothing, and a late
        repeat of a request that was done does not bring back a version that was retired since.

        Raises NotFound; PermissionDenied for another's model; FailedPrecondition without a report, when the gate
        did not pass and no approved override of this very report is given.
        """

        asked, override = RequestId.of(principal.name, request), request.override

        def promote(session: Session) -> Version:
            version = _found(versions.get(session, name), name)
            check_promoter(session, principal, name.model, "trainer.models.promote")
            if asked.made(session) is not None:
                return version
            asked.remember(session, str(name))
            if version.state is VersionState.PROMOTED:
                return version
            reason = self._reason(session, version, override)
            served = versions.promoted(session, name.model)
            if served is not None:
                retired = versions.move(
                    session, served.name, VersionState.RETIRED, principal.name, f"{name} was promoted"
                )
                events.version_changed(session, retired)
            promoted = versions.move(session, name, VersionState.PROMOTED, principal.name, reason)
            events.version_changed(session, promoted)
            return promoted

        try:
            version = run_in_transaction(self._engine, promote)
        except FailedPrecondition:
            metrics.PROMOTIONS.labels("refused").inc()
            raise
        metrics.PROMOTIONS.labels("overridden" if override else "passed").inc()
        return version

    def create_override(
        self, principal: Principal, name: ModelVersionName, request: pb.CreatePromotionOverrideRequest
    ) -> Override:
        """Asks to promote against the gate. Raises NotFound; FailedPrecondition without a report or when it
        passed."""
        asked = RequestId.of(principal.name, request)

        def create(session: Session) -> Override:
            known = asked.made(session)
            if known is not None:
                return _override(session, known)
            version = _found(versions.get(session, name), name)
            check_promoter(session, principal, name.model, "trainer.overrides.create")
            _check_report(version)
            if version.verdict == _PASS:
                raise FailedPrecondition(
                    "OVERRIDE_NOT_NEEDED", f"{name} passed its gate; promote it", subject=str(name)
                )
            made = overrides.add(session, version, request.reason, principal.name)
            asked.remember(session, made.id)
            return made

        return run_in_transaction(self._engine, create)

    def approve_override(self, principal: Principal, id_: str) -> Override:
        """A second person's consent. Approving again changes nothing.

        Raises NotFound; PermissionDenied for the person who asked; FailedPrecondition when another has
        approved.
        """

        def approve(session: Session) -> Override:
            override = _override(session, id_)
            if override.requester == principal.name:
                raise PermissionDenied(f"{_APPROVE} (of one's own request)", principal.name)
            if override.approver == principal.name:
                return override
            if override.approver:
                raise FailedPrecondition(
                    "OVERRIDE_APPROVED", f"{override.approver!r} has approved it already", subject=id_
                )
            return overrides.approve(session, id_, principal.name)

        return run_in_transaction(self._engine, approve)

    def _reason(self, session: Session, version: Version, override: str) -> str:
        """Why the version may be promoted. Raises FailedPrecondition when it may not."""
        _check_report(version)
        if version.verdict == _PASS:
            return f"the gate of report {version.report_digest} passed"
        if not override:
            raise self._refusal(version)
        found = _override(session, _override_id(override))
        if found.version != version.name or found.report_digest != version.report_digest:
            raise FailedPrecondition(
                "OVERRIDE_OF_ANOTHER_REPORT",
                f"{override} is about report {found.report_digest} of {found.version}; the newest report of "
                f"{version.name} is {version.report_digest}",
                subject=str(version.name),
            )
        if not found.approver:
            raise FailedPrecondition(
                "OVERRIDE_NOT_APPROVED",
                f"{override} waits for the approval of someone other than {found.requester!r}",
                subject=override,
            )
        return f"override {found.id} by {found.requester}, approved by {found.approver}: {found.reason}"

    def _refusal(self, version: Version) -> FailedPrecondition:
        """Names the suite that stands most in the way, with its drop, interval and margin; the message names
        all."""
        report = self._objects.get_bytes(version.report_digest)
        worst = _worst_suite(json.loads(report))
        statistics = worst["statistics"]
        interval = statistics["gain"]["interval"]
        failed = version.verdict == "failed"
        return FailedPrecondition(
            "GATE_FAILED" if failed else "GATE_INCONCLUSIVE",
            f"the gate of {version.name} {'failed' if failed else 'is inconclusive'}: "
            + "; ".join(blocking_findings(report)),
            subject=str(version.name),
            suite=worst["name"],
            drop=f"{-statistics['gain']['value']:.4f}",
            drop_lower=f"{-interval['upper']:.4f}",
            drop_upper=f"{-interval['lower']:.4f}",
            margin=f"{worst['margin']:g}",
            items=str(statistics["n"]),
            verdict=version.verdict,
            report_digest=version.report_digest,
        )


def _worst_suite(report: dict[str, Any]) -> dict[str, Any]:
    """Of the suites that did not pass: failed before inconclusive, then the surest fall beyond its margin."""
    standing = [suite for suite in report["suites"] if suite["verdict"] != _PASS]

    def severity(suite: dict[str, Any]) -> tuple[bool, float]:
        statistics = suite["statistics"]
        beyond = -statistics["gain"]["value"] - suite["margin"]
        error = statistics["gain_standard_error"] or 1.0
        return suite["verdict"] == "failed", beyond / error

    return max(standing, key=severity)


def _check_report(version: Version) -> None:
    if not version.report_digest:
        raise FailedPrecondition(
            "NO_EVALUATION_REPORT",
            f"{version.name} has no evaluation report; evaluate it first",
            subject=str(version.name),
        )


def _override_id(name: str) -> str:
    prefix, _, id_ = name.partition("/")
    if prefix != "promotionOverrides" or not id_:
        raise InvalidArgument("override", "resource_name", "must be promotionOverrides/{ulid}", name)
    return id_


def _override(session: Session, id_: str) -> Override:
    found = overrides.get(session, id_)
    if found is None:
        raise NotFound("promotion override", f"promotionOverrides/{id_}")
    return found


def _found(version: Version | None, name: ModelVersionName) -> Version:
    if version is None:
        raise NotFound("model version", str(name))
    return version
