"""Idempotency keys (AIP-155): a change that is asked for again under its ``request_id`` is not made again.

What a request made is noted in the transaction that makes it, by principal, method and id, and kept for
``request_id_ttl_s``. A repeat within that time answers the same resource, and an id that comes with another content is
refused: its client has mixed up two requests. After that time the id is new again, so no client may retry that long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

from google.protobuf.message import Message
from sqlalchemy import (
    BigInteger,
    Column,
    CursorResult,
    Engine,
    Index,
    MetaData,
    String,
    Table,
    delete,
    select,
)
from sqlalchemy.orm import Session

from identity.digest import sha256_bytes
from servicekit.database import run_in_transaction
from servicekit.errors import AlreadyExists, DomainError

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 3600.0


def add_request_ids(metadata: MetaData) -> Table:
    """Add the `request_ids` table to a service that changes something when asked.

    principal, method, request_id  who asked for what, and their name for it
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
    """One principal's name for one request; an empty `id` names none, and nothing is kept of it."""

    principal: str
    method: str
    id: str
    fingerprint: str

    @classmethod
    def of(cls, principal: str, request: Message) -> Self:
        """From a request message with a field ``request_id``."""
        method = request.DESCRIPTOR.name.removesuffix("Request")
        content = request.SerializeToString(deterministic=True)
        return cls(principal, method, str(cast(Any, request).request_id), sha256_bytes(content))

    def made(self, session: Session) -> str | None:
        """The resource that this request made before, if it did.

        Raises:
            AlreadyExists: the id came with another content before.
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
        """Notes what it made, in the transaction that makes it, after `made` in the same transaction."""
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
"""For a change that its client will not ask for again."""


def prune(session: Session, older_than_s: float) -> int:
    """Forgets ids noted longer ago; returns how many."""
    old = delete(_TABLE).where(_TABLE.c.created_ms < _now_ms() - int(older_than_s * 1000))
    return cast("CursorResult[Any]", session.execute(old)).rowcount


def pruning(engine: Engine, ttl_s: float) -> Callable[[threading.Event], None]:
    """A service's thread that forgets ids when their time is over."""

    def run(stop: threading.Event) -> None:
        while True:
            try:
                run_in_transaction(engine, lambda session: prune(session, ttl_s))
            except DomainError as error:  # others write: later is soon enough
                logger.info("request ids not pruned now: %s", error)
            if stop.wait(min(_LONGEST_PAUSE_S, ttl_s / 10)):
                return

    return run


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
