"""The facts of a service, read by RPC, and the objects that they name."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from openledger.audit.v1.audit_pb2 import (
    Consumer,
    Fact,
    FactsPage,
    InboxEvents,
    ReadFactsRequest,
    ReadObjectRequest,
)

from identity.digest import sha256_bytes
from openledger_client import services
from openledger_client.client import Client
from openledger_client.errors import ConfigurationError, DataLoss, OpenLedgerError
from openledger_client.services import Service
from openledger_ops.reconcile.book import Unreachable
from openledger_ops.reconcile.fact_forms import problem

_FACTS_S = 1800.0
"""Longest time of one stream of facts."""
_OBJECT_S = 600.0
_MAY_PASS = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNKNOWN,  # gRPC's own, where a connection breaks inside a message
}
"""Ends of a call after which another attempt may succeed."""

M = TypeVar("M", bound=Message)
Keep = Mapping[type[Message], Callable[[Any], object]]
"""What is kept of a kind of fact in place of the whole: a table may have millions of rows."""

_FIELDS = {
    field.message_type.full_name: field.name
    for field in Fact.DESCRIPTOR.fields
    if field.message_type is not None
}


@dataclass(frozen=True, slots=True)
class Malformed:
    """A fact that cannot be read: a row that was changed by hand, for example."""

    thing: str
    why: str


class Facts:
    """Everything that one service has written down, as of `state_time`."""

    def __init__(
        self, service: Service[object], pages: Iterable[FactsPage], keep: Keep | None = None
    ) -> None:
        self.service = service
        self.state_time = datetime.fromtimestamp(0, UTC)
        self.inboxes: dict[str, set[str]] = defaultdict(set)
        """Ids of events that took effect, by consumer group."""
        self.malformed: list[Malformed] = []
        """Facts that cannot be read. They are in no list of facts."""
        self._kept: dict[str, list[Any]] = defaultdict(list)
        kept_as = {_field(kind): make for kind, make in (keep or {}).items()}
        inbox = _field(InboxEvents)
        for page in pages:
            self.state_time = page.state_time.ToDatetime(UTC)
            for fact in page.facts:
                kind = fact.WhichOneof("kind")
                if kind is None:
                    continue  # of a later release
                value = getattr(fact, kind)
                if why := problem(kind, value):
                    self.malformed.append(Malformed(thing=_name_of(kind, value), why=why))
                    continue
                if kind == inbox:
                    self.inboxes[value.group].update(value.event_ids)
                else:
                    self._kept[kind].append(kept_as[kind](value) if kind in kept_as else value)

    def of(self, kind: type[M]) -> list[M]:
        """Returns the facts of one kind, in the service's order."""
        return cast("list[M]", self._kept.get(_field(kind), []))

    def kept(self, kind: type[Message]) -> list[Any]:
        """Returns what was kept of the facts of one kind."""
        return self._kept.get(_field(kind), [])

    def consumers(self, topic: str) -> list[Consumer]:
        """Returns the consumers that the service runs for a topic."""
        return [each for each in self.of(Consumer) if each.topic == topic]


def read_all(client: Client, keep: Keep) -> dict[Service[object], Facts]:
    """Returns the facts of every service, read at the same time.

    Raises:
        Unreachable: a service does not answer, or ended its stream before it was complete.
        OpenLedgerError: a service refuses, because the caller is not an auditor for example.
    """

    def read(service: Service[object]) -> Facts:
        return Facts(service, _pages(client, service), keep)

    with ThreadPoolExecutor(len(services.ALL)) as pool:
        return dict(zip(services.ALL, pool.map(read, services.ALL), strict=True))


def _pages(client: Client, service: Service[object]) -> Iterator[FactsPage]:
    try:
        yield from client.audit(service).ReadFacts(ReadFactsRequest(), timeout=_FACTS_S)
    except OpenLedgerError as error:
        raise meaning(error, f"the facts of {service} cannot be read") from None


class Objects:
    """Objects as a service's object store holds them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, service: Service[Any], digest: str) -> bytes:
        """Returns an object, verified.

        Raises:
            NotFound, DataLoss: the service's store does not have it, or has other bytes under its name.
            Unreachable: the service does not answer.
        """
        try:
            chunks = self._client.audit(service).ReadObject(
                ReadObjectRequest(digest=digest), timeout=_OBJECT_S
            )
            content = b"".join(chunk.data for chunk in chunks)
        except OpenLedgerError as error:
            raise meaning(error, f"object {digest} cannot be read from {service}") from None
        found = sha256_bytes(content)
        if found != digest:
            raise DataLoss(f"the object that is stored as {digest} has the digest {found}")
        return content


def meaning(error: OpenLedgerError, what: str) -> Exception:
    """Returns the exception for a failed call: `Unreachable` where another attempt may succeed, else what the service said."""
    if error.code in _MAY_PASS or isinstance(error, ConfigurationError):
        return Unreachable(f"{what}: {error}; reconcile needs every service to run")
    return error


def _name_of(kind: str, value: Message) -> str:
    """Returns what distinguishes a fact from others: in every kind the first field does, or says at least where to look."""
    first = value.DESCRIPTOR.fields[0].name
    return f"{kind} with {first} {getattr(value, first)!r}"


def _field(kind: type[Message]) -> str:
    return _FIELDS[kind.DESCRIPTOR.full_name]


def retention_start(retention_hours: int | None) -> float:
    """Returns the Unix time from which on a topic certainly still has its events; 0 where they are kept forever."""
    return 0.0 if retention_hours is None else time.time() - retention_hours * 3600
