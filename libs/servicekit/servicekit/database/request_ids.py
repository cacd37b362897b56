"""Idempotency keys (AIP-155): a request that is repeated with the same ``request_id`` makes its change only once.

The resource that a request made is stored in the same transaction, under principal, method and id, for
``request_id_ttl_s``. A repeat within that time returns the same resource. The same id with a different content is refused,
because the client has mixed up two requests. Later the id counts as new, so a client must not retry for that long.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Self, cast

from google.protobuf.message import Message
from sqlalchemy import (
    BigInteger,
    Column,
    CursorResult,
    Index,
    MetaData,
    String,
    Table,
    delete,
    select,
)
from sqlalchemy.orm import Session

from identity.digest import sha256_bytes
from servicekit.errors import AlreadyExists


def add_request_ids(metadata: MetaData) -> Table:
    """Adds the `request_ids` table to the metadata of a service and returns it.

    principal, method, request_id  who asked for what, and the id that the client chose
    fingerprint                    sha256 of the request's bytes
    resource                       name of what it made or changed
    created_ms                     Unix time in milliseconds, for pruning
    """
    return Table(
        "request_ids",
        metadata,
        Column("principal", String(256), primary_key=True),
        Column("method", String(64), primary_key=True),
        Column("request_id", String(64), primary_key=True),
        Column("fingerprint", String(71), nullable=False),
        Column("resource", String(256), nullable=False),
        Column("created_ms", BigInteger, nullable=False),
        Index("request_ids_by_age", "created_ms"),
    )


_TABLE = add_request_ids(MetaData())


@dataclass(frozen=True)
class RequestId:
    """The id that a principal gave a request. With an empty `id` nothing is stored."""

    principal: str
    method: str
    id: str
    fingerprint: str

    @classmethod
    def of(cls, principal: str, request: Message) -> Self:
        """Returns the id of a request message that has a field ``request_id``."""
        method = request.DESCRIPTOR.name.removesuffix("Request")
        content = request.SerializeToString(deterministic=True)
        return cls(principal, method, str(cast(Any, request).request_id), sha256_bytes(content))

    def made(self, session: Session) -> str | None:
        """Returns the resource that this request made before; None for a new request.

        Raises:
            AlreadyExists: the id was used with a different content.
        """
        if not self.id:
            return None
        query = select(_TABLE.c.fingerprint, _TABLE.c.resource).where(*self._key())
        row = session.execute(query).one_or_none()
        if row is None:
            return None
        if row.fingerprint != self.fingerprint:
            raise AlreadyExists("request", self.id)
        return str(row.resource)

    def remember(self, session: Session, resource: str) -> None:
        """Stores the resource that the request made. Call it in the same transaction, after `made`."""
        if self.id:
            session.execute(
                _TABLE.insert().values(
                    principal=self.principal,
                    method=self.method,
                    request_id=self.id,
                    fingerprint=self.fingerprint,
                    resource=resource,
                    created_ms=_now_ms(),
                )
            )

    def _key(self) -> tuple[Any, ...]:
        return (
            _TABLE.c.principal == self.principal,
            _TABLE.c.method == self.method,
            _TABLE.c.request_id == self.id,
        )


UNNAMED = RequestId("", "", "", "")
"""For a change that the client does not repeat."""


def prune(session: Session, older_than_s: float) -> int:
    """Deletes ids older than this, and returns how many."""
    old = delete(_TABLE).where(_TABLE.c.created_ms < _now_ms() - int(older_than_s * 1000))
    return cast("CursorResult[Any]", session.execute(old)).rowcount


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
