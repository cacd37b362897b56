"""Which Datanets there are, and who contributes to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import paging, store
from datanet.access import check_curator, check_reader
from datanet.definition import Datanet
from datanet.entities import Contributor
from datanet.gate import GateItemsCache
from datanet.payout import check_address
from identity.names import ContributorName, DatanetName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.errors import AlreadyExists, InvalidArgument, NotFound
from servicekit.request_ids import RequestId

_MAX_TEXT = 10_000
_MAX_PRINCIPAL = 256


class Registry:
    """Makes and finds Datanets and contributors."""

    def __init__(self, engine: Engine, gate_items: GateItemsCache) -> None:
        self._engine = engine
        self._gate_items = gate_items

    def create(self, principal: Principal, asked: Datanet, request: RequestId) -> Datanet:
        """Makes a Datanet owned by the principal; the same request again answers the same Datanet.

        Raises InvalidArgument naming the fields, NotFound for gate items that are not stored, AlreadyExists.
        """
        made = replace(asked, owner=principal.name, create_time=utc_now())
        made.validate()
        check_address("datanet.treasury_address", made.treasury_address)
        _check_text("datanet.description", made.description, _MAX_TEXT)
        _check_text("datanet.display_name", made.display_name, _MAX_PRINCIPAL)
        _check_text("datanet.licence", made.licence, _MAX_PRINCIPAL)
        if made.policy.gate_items_digest:
            self._gate_items.get(made.policy.gate_items_digest)

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

    def get(self, name: DatanetName) -> Datanet:
        """Raises NotFound."""
        with reading(self._engine) as session:
            return find_datanet(session, name)

    def list(self, page_size: int, page_token: str) -> tuple[Sequence[Datanet], str]:
        """A page by name, and the next page's token. Raises InvalidArgument for a bad token."""
        size, after = paging.size(page_size), paging.after(page_token)
        with reading(self._engine) as session:
            found = store.datanets.page(session, after, size + 1)
        return paging.cut(found, size, lambda each: DatanetName.parse(each.name).datanet)

    def register(self, principal: Principal, asked: Contributor, request: RequestId) -> Contributor:
        """Registers a contributor as the Datanet's owner; the same request again answers the same contributor.

        Raises NotFound, PermissionDenied, InvalidArgument naming the fields, AlreadyExists when the id, or the
        principal under another id, is taken.
        """
        name = ContributorName.parse(asked.name)
        parent = DatanetName(name.datanet)
        made = replace(asked, consent_time=utc_now(), accepted_count=0, pending_count=0, rejected_count=0)

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
            store.contributors.add(session, made)
            request.remember(session, made.name)
            return made

        return run_in_transaction(self._engine, insert)

    def contributors(
        self, principal: Principal, name: DatanetName, page_size: int, page_token: str
    ) -> tuple[Sequence[Contributor], str]:
        """A page by id, and the next page's token. Raises NotFound, PermissionDenied, InvalidArgument."""
        size, after = paging.size(page_size), paging.after(page_token)
        with reading(self._engine) as session:
            check_reader(principal, find_datanet(session, name), "datanet.contributors.read")
            found = store.contributors.page(session, name, after, size + 1)
        return paging.cut(found, size, lambda each: ContributorName.parse(each.name).contributor)


def find_datanet(session: Session, name: DatanetName) -> Datanet:
    """The Datanet of this name. Raises NotFound."""
    found = store.datanets.get(session, name)
    if found is None:
        raise NotFound("datanet", str(name))
    return found


def find_contributor(session: Session, name: ContributorName) -> Contributor:
    """The contributor of this name. Raises NotFound of the Datanet, if that is what is missing."""
    found = store.contributors.get(session, name)
    if found is None:
        find_datanet(session, DatanetName(name.datanet))
        raise NotFound("contributor", str(name))
    return found


def _check_contributor(made: Contributor, datanet: Datanet) -> None:
    if not made.principal:
        raise InvalidArgument("contributor.principal", "required", "must name who may contribute")
    _check_text("contributor.principal", made.principal, _MAX_PRINCIPAL)
    _check_text("contributor.display_name", made.display_name, _MAX_PRINCIPAL)
    if made.consent_licence != datanet.licence:
        message = f"must be the Datanet's licence {datanet.licence!r}: that is what is consented to"
        raise InvalidArgument("contributor.consent_licence", "consent", message, made.consent_licence)
    check_address("contributor.payout_address", made.payout_address)


def _check_text(field: str, text: str, limit: int) -> None:
    if "\x00" in text:
        raise InvalidArgument(field, "text", "holds a NUL character, which is no text")
    if len(text) > limit:
        message = f"has {len(text)} characters; at most {limit} are allowed"
        raise InvalidArgument(field, "max_len", message)
