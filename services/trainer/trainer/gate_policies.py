"""Gate policies: created in versions, approved or refused where they loosen something, read and listed."""

from __future__ import annotations

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from evalstats.policy import GatePolicy, InvalidPolicy, looser
from identity.names import GatePolicyName, GatePolicyVersionName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction
from servicekit.database.request_ids import RequestId
from servicekit.errors import FailedPrecondition, InvalidArgument, NotFound
from servicekit.lists import Page, Query
from servicekit.objects import ObjectStore
from trainer.access import check_policy_author
from trainer.entities import GatePolicyState, GatePolicyVersion
from trainer.gate_policy import DEFAULT, check_suites, named, shipped_default, to_bytes
from trainer.model_policy import active
from trainer.people import check_another_person
from trainer.store import policies

_APPROVE = "trainer.policies.approve"
_OWNER_OF_DEFAULT = "trainer"


class GatePolicies:
    """Gate policies over one database and one object store."""

    def __init__(self, engine: Engine, objects: ObjectStore) -> None:
        self._engine = engine
        self._objects = objects

    def add_default(self) -> None:
        """Makes a version of the default policy that comes with this package, unless it is there.

        After an upgrade it replaces what came with an earlier package, where it is at least as strict. What people decided
        stands.
        """
        self._objects.put_bytes(to_bytes(shipped_default()))

        def add(session: Session) -> None:
            before = policies.active(session, DEFAULT)
            upgrades = (
                before is not None
                and before.requester == _OWNER_OF_DEFAULT
                and before.policy != shipped_default()
                and not looser(shipped_default(), before.policy)
            )
            if before is None or upgrades:
                policies.add(
                    session,
                    DEFAULT,
                    shipped_default(),
                    requester=_OWNER_OF_DEFAULT,
                    reason="comes with the platform",
                    loosens=[],
                    people=1,
                )

        run_in_transaction(self._engine, add)

    def create(
        self,
        principal: Principal,
        name: GatePolicyName,
        policy: GatePolicy,
        reason: str,
        request_id: RequestId,
    ) -> GatePolicyVersion:
        """Adds a version: active at once where it is as strict as what is active under its name and as the default.

        A suite without a rule or version gets those that this service measures.
        Raises InvalidArgument for a suite that cannot be measured; PermissionDenied for another's policy.
        """
        policy = named(policy)
        try:
            check_suites(policy)
        except InvalidPolicy as error:
            raise InvalidArgument(
                f"spec.{error.field}", "gate_policy", f"expected {error.expected}", str(error.value)
            ) from None
        self._objects.put_bytes(to_bytes(policy))

        def create(session: Session) -> GatePolicyVersion:
            known = request_id.made(session)
            if known is not None:
                return _found(session, GatePolicyVersionName.parse(known))
            check_policy_author(principal, policies.first_requester(session, name), name.policy)
            references = _references(session, name)
            made = policies.add(
                session,
                name,
                policy,
                requester=principal.name,
                reason=reason,
                loosens=_loosens(policy, references),
                people=max(reference.policy.people.loosen for reference in references),
            )
            request_id.remember(session, str(made.name))
            return made

        return run_in_transaction(self._engine, create)

    def get(self, name: GatePolicyVersionName | GatePolicyName) -> GatePolicyVersion:
        """Returns a version, or the newest active one of a policy. Raises NotFound."""
        with reading(self._engine) as session:
            if isinstance(name, GatePolicyName):
                return active(session, name)
            return _found(session, name)

    def list(self, policy: GatePolicyName | None, query: Query) -> Page[GatePolicyVersion]:
        """Returns a page of a policy's versions, newest first, or of all policies'. Raises InvalidArgument for the query."""
        with reading(self._engine) as session:
            return policies.page(session, policy.policy if policy else "", query)

    def approve(self, principal: Principal, name: GatePolicyVersionName) -> GatePolicyVersion:
        """Records the consent of another person. Approving again changes nothing.

        Raises NotFound; PermissionDenied for a person who asked or has approved; FailedPrecondition when it does not wait,
        or when it loosens other things than its requester saw, because another version is active by now.
        """

        def approve(session: Session) -> GatePolicyVersion:
            version = _found(session, name)
            if principal.name in [approval.principal for approval in version.approvals]:
                return version
            check_another_person(_APPROVE, principal.name, version.requester)
            _check_pending(version)
            check_another_person(_APPROVE, principal.name, version.requester, version.approvals)
            references = _references(session, GatePolicyName(name.policy))
            newer = any(
                reference.name.policy == name.policy and reference.name.version > name.version
                for reference in references
            )
            if newer or tuple(_loosens(version.policy, references)) != version.loosens:
                raise FailedPrecondition(
                    "GATE_POLICY_SUPERSEDED",
                    f"{name} was compared with a version that is no longer in force; create it again",
                    subject=str(name),
                )
            complete = len(version.approvals) + 2 >= version.people  # with the requester and this one
            return policies.approve(session, name, principal.name, complete=complete)

        return run_in_transaction(self._engine, approve)

    def refuse(self, principal: Principal, name: GatePolicyVersionName, reason: str) -> GatePolicyVersion:
        """Refuses a version for good. Refusing again changes nothing.

        Raises NotFound; FailedPrecondition when it is active, or was refused by another.
        """

        def refuse(session: Session) -> GatePolicyVersion:
            version = _found(session, name)
            if version.refuser == principal.name:
                return version
            _check_pending(version)
            return policies.refuse(session, name, principal.name, reason)

        return run_in_transaction(self._engine, refuse)


def _references(session: Session, name: GatePolicyName) -> list[GatePolicyVersion]:
    """Returns the active versions that a new version of a policy is compared with."""
    own = policies.active(session, name) if name != DEFAULT else None
    return [active(session, DEFAULT), *([own] if own else [])]


def _loosens(policy: GatePolicy, references: list[GatePolicyVersion]) -> list[str]:
    return [
        f"{sentence} (of {reference.name})"
        for reference in references
        for sentence in looser(policy, reference.policy)
    ]


def _found(session: Session, name: GatePolicyVersionName) -> GatePolicyVersion:
    version = policies.get(session, name)
    if version is None:
        raise NotFound("gate policy version", str(name))
    return version


def _check_pending(version: GatePolicyVersion) -> None:
    if version.state is GatePolicyState.ACTIVE:
        raise FailedPrecondition(
            "GATE_POLICY_ACTIVE", f"{version.name} is active already", subject=str(version.name)
        )
    if version.state is GatePolicyState.REFUSED:
        raise FailedPrecondition(
            "GATE_POLICY_REFUSED",
            f"{version.name} was refused by {version.refuser!r}: {version.refuse_reason}",
            subject=str(version.name),
        )
