"""Creates, finds and lists Datanets and contributors."""

from __future__ import annotations

import json
import re
from dataclasses import replace

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import store
from datanet.access import check_curator, check_reader
from datanet.definition import Datanet, QualityPolicy
from datanet.entities import Contributor
from datanet.evaluation_items import EvaluationItemsCache
from datanet.payout import check_address
from identity.folding import is_blank
from identity.names import ContributorName, DatanetName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.database.request_ids import RequestId
from servicekit.errors import AlreadyExists, InvalidArgument, NotFound
from servicekit.lists import Page, Query

_MAX_TEXT = 10_000
_MAX_PRINCIPAL = 256
_MAX_SCHEMA_BYTES = 1 << 20
"""A Datanet is part of messages and events, which must stay below 4 MiB."""


class Registry:
    """Creates, finds and lists Datanets and contributors."""

    def __init__(
        self, engine: Engine, evaluation_items: EvaluationItemsCache, gate_items_digest: str = ""
    ) -> None:
        """`gate_items_digest`: the items that a Datanet is protected from when its policy names none; "" for none."""
        self._engine = engine
        self._gate_items_digest = gate_items_digest
        self._evaluation_items = evaluation_items

    def create(self, principal: Principal, described: Datanet, request: RequestId) -> Datanet:
        """Creates a Datanet owned by the principal. Repeating the request returns the same Datanet.

        Raises InvalidArgument naming the fields, NotFound for evaluation items that are not stored, AlreadyExists.
        """
        made = replace(described, owner=principal.name, create_time=utc_now())
        made.validate()
        _check_schema(made)
        check_address("datanet.treasury_address", made.treasury_address)
        _check_shown("datanet.description", made.description, _MAX_TEXT, lines=True)
        _check_shown("datanet.display_name", made.display_name, _MAX_PRINCIPAL)
        _check_shown("datanet.licence", made.licence, _MAX_PRINCIPAL)
        made = replace(made, policy=self._protected(made.policy))
        if made.policy.gate_items_digest:
            self._evaluation_items.get(made.policy.gate_items_digest)

        def insert(session: Session) -> Datanet:
            done = request.made(session)
            if done is not None:
                return find_datanet(session, DatanetName.parse(done))
            if store.datanets.get(session, DatanetName.parse(made.name)) is not None:
                raise AlreadyExists("datanet", made.name)
            store.datanets.add(session, made)
            request.remember(session, made.name)
            return made

        return run_in_transaction(self._engine, insert)

    def _protected(self, policy: QualityPolicy) -> QualityPolicy:
        """Returns the policy with the items that it is checked for. Raises InvalidArgument when there are none to check."""
        if not policy.contamination_check or policy.gate_items_digest:
            return policy
        if not self._gate_items_digest:
            message = (
                "no evaluation items to check records for: name their object in policy.gate_items_digest, set"
                " OPENLEDGER_DATANET_GATE_ITEMS_DIGEST for the service, or set policy.contamination_check to"
                " CONTAMINATION_CHECK_OFF (docs/data.md)"
            )
            raise InvalidArgument("policy.gate_items_digest", "required", message)
        return replace(policy, gate_items_digest=self._gate_items_digest)

    def get(self, name: DatanetName) -> Datanet:
        """Raises NotFound."""
        with reading(self._engine) as session:
            return find_datanet(session, name)

    def list(self, query: Query) -> Page[Datanet]:
        """Returns a page by name. Raises InvalidArgument for a wrong query."""
        with reading(self._engine) as session:
            return store.datanets.page(session, query)

    def register(self, principal: Principal, described: Contributor, request: RequestId) -> Contributor:
        """Registers a contributor; the principal must own the Datanet. Repeating the request returns the same contributor.

        Raises NotFound, PermissionDenied, InvalidArgument naming the fields, AlreadyExists if the id is taken, or another
        contributor has the same principal or one that folds alike, a display name that folds alike, or the payout address.
        """
        name = ContributorName.parse(described.name)
        parent = DatanetName(name.datanet)
        made = replace(described, consent_time=utc_now(), accepted_count=0, pending_count=0, rejected_count=0)

        def insert(session: Session) -> Contributor:
            datanet = find_datanet(session, parent)
            check_curator(principal, datanet, "datanet.contributors.write")
            done = request.made(session)
            if done is not None:
                return find_contributor(session, ContributorName.parse(done))
            _check_contributor(made, datanet)
            if store.contributors.get(session, name) is not None:
                raise AlreadyExists("contributor", made.name)
            other = store.contributors.of_principal(session, parent, made.principal)
            if other is not None:
                raise AlreadyExists("contributor of this principal", other.name)
            like = store.contributors.like(session, parent, made)
            if like is not None:
                raise AlreadyExists(f"contributor {like[0]}", like[1].name)
            store.contributors.add(session, made)
            request.remember(session, made.name)
            return made

        return run_in_transaction(self._engine, insert)

    def contributors(self, principal: Principal, name: DatanetName, query: Query) -> Page[Contributor]:
        """Returns a page by id. Raises NotFound, PermissionDenied, InvalidArgument for a wrong query."""
        with reading(self._engine) as session:
            check_reader(principal, find_datanet(session, name), "datanet.contributors.read")
            return store.contributors.page(session, name, query)


def find_datanet(session: Session, name: DatanetName) -> Datanet:
    """Returns the Datanet of this name. Raises NotFound."""
    found = store.datanets.get(session, name)
    if found is None:
        raise NotFound("datanet", str(name))
    return found


def find_contributor(session: Session, name: ContributorName) -> Contributor:
    """Returns the contributor of this name. Raises NotFound of the Datanet if that is what is missing."""
    found = store.contributors.get(session, name)
    if found is None:
        find_datanet(session, DatanetName(name.datanet))
        raise NotFound("contributor", str(name))
    return found


def _check_contributor(made: Contributor, datanet: Datanet) -> None:
    if is_blank(made.principal):
        raise InvalidArgument(
            "contributor.principal", "required", "must name the principal that may contribute"
        )
    _check_text("contributor.principal", made.principal, _MAX_PRINCIPAL)
    _check_shown("contributor.display_name", made.display_name, _MAX_PRINCIPAL)
    if made.consent_licence != datanet.licence:
        message = (
            f"must be the Datanet's licence {datanet.licence!r}: contributors consent to exactly that licence"
        )
        raise InvalidArgument("contributor.consent_licence", "consent", message, made.consent_licence)
    check_address("contributor.payout_address", made.payout_address)


def _check_schema(made: Datanet) -> None:
    size = len(json.dumps(made.schema.to_json()).encode())
    if size > _MAX_SCHEMA_BYTES:
        message = f"the schema has {size} bytes of JSON; at most {_MAX_SCHEMA_BYTES} are allowed"
        raise InvalidArgument("datanet.schema", "max_bytes", message)


_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]")
_CONTROLS_BUT_LINES = re.compile(f"(?![\\t\\n\\r]){_CONTROLS.pattern}")


def _check_shown(field: str, text: str, limit: int, *, lines: bool = False) -> None:
    """Checks a text that is shown to people: it must not command a terminal, reverse what stands beside it, or show nothing."""
    _check_text(field, text, limit)
    found = (_CONTROLS_BUT_LINES if lines else _CONTROLS).search(text)
    if found is not None:
        message = f"contains the control or direction character U+{ord(found[0]):04X}; remove it"
        raise InvalidArgument(field, "text", message)
    if text and is_blank(text):
        raise InvalidArgument(
            field, "text", "shows nothing: it has only characters that are not shown; leave it empty"
        )


def _check_text(field: str, text: str, limit: int) -> None:
    if "\x00" in text:
        raise InvalidArgument(field, "text", "contains a NUL character; remove it")
    if len(text) > limit:
        message = f"has {len(text)} characters; at most {limit} are allowed"
        raise InvalidArgument(field, "max_len", message)
