"""Request ids: a retry answers what the first call made (AIP-155)."""

from __future__ import annotations

from google.protobuf.message import Message
from sqlalchemy.orm import Session

from identity.digest import sha256_bytes
from servicekit.errors import AlreadyExists
from trainer.store.tables import RequestRow


def made(session: Session, principal: str, method: str, request_id: str, request: Message) -> str | None:
    """The resource that this request made before, if it did; None too without a request id.

    Raises AlreadyExists when the id was used for another content.
    """
    if not request_id:
        return None
    row = session.get(RequestRow, (principal, method, request_id))
    if row is None:
        return None
    if row.fingerprint != _fingerprint(request):
        raise AlreadyExists("request", request_id)
    return row.resource


def remember(
    session: Session, principal: str, method: str, request_id: str, request: Message, resource: str
) -> None:
    """Notes what a request made, in the transaction that makes it."""
    if request_id:
        session.add(
            RequestRow(
                principal=principal,
                method=method,
                request_id=request_id,
                fingerprint=_fingerprint(request),
                resource=resource,
            )
        )
        session.flush()


def _fingerprint(request: Message) -> str:
    return sha256_bytes(request.SerializeToString(deterministic=True))
