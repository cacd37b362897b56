"""What a service needs of the object store, said where garbage collection can read it.

Several services share one store, and none may know another's tables. So each publishes the digests that its database refers
to, in the store itself: when it starts, and every few minutes. `servicekit.object_collection` takes nothing that a published
list names, nor what named objects name in turn, nor anything put after the oldest list was made, less a grace. So a service
that is down for a month loses nothing: its list protects what it knew, its age what came since.

Every service has a `references.py` with one function that yields its digests. The rule behind all of this: whoever puts an
object refers to it within an hour (the shortest grace is two), and a service that drops a row drops what only it referred to.

A list is named by its service and by its database, which has an identity of its own: replicas of a service publish the same
list, two deployments that share a bucket do not overwrite each other's.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, MetaData, insert, select
from sqlalchemy.orm import Session

from servicekit import backoff
from servicekit._object_area import REFERENCES
from servicekit.database import reading, run_in_transaction, ulid, utc_now
from servicekit.errors import StartupError
from servicekit.metrics import REFERENCES_PUBLISHED
from servicekit.objects import ObjectStore
from servicekit.tables import add_identity

logger = logging.getLogger(__name__)

FORMAT = "openledger.references/1"
_EVERY_S = 300.0
_IDENTITY = add_identity(MetaData())

References = Callable[[Session], Iterable[str]]
"""Digests of all objects that a database refers to; "" and repetitions do no harm."""


@dataclass(frozen=True)
class Published:
    """A published list."""

    name: str
    """`<service>-<database's id>`, or the name of a pin."""
    time: datetime | None
    """Whatever was referred to before this moment is in it. None for a pin, which does not age."""
    digests: frozenset[str]


class ReferencePublisher:
    """Publishes one service's list."""

    def __init__(
        self,
        objects: ObjectStore,
        service: str,
        engine: Engine,
        references: References,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._objects = objects
        self._service = service
        self._engine = engine
        self._references = references
        self._now = now
        REFERENCES_PUBLISHED.labels(service).set(0)

    def publish(self) -> Published:
        """Reads the database and publishes what it refers to. Raises as the database and the store do."""
        identity = run_in_transaction(self._engine, _identity)
        time = self._now()  # before the database is read: what is referred to later may be missing
        with reading(self._engine) as session:
            digests = frozenset(digest for digest in self._references(session) if digest)
        published = Published(f"{self._service}-{identity}", time, digests)
        write(self._objects, published)
        REFERENCES_PUBLISHED.labels(self._service).set(time.timestamp())
        return published

    def run(self, stop: threading.Event) -> None:
        """Publishes now, every five minutes and when `stop` is set; tries again when database or store are away."""
        failures = 0
        while not stop.is_set():
            failures = 0 if self._published() else failures + 1
            if failures:
                backoff.wait(stop, failures)
            else:
                stop.wait(_EVERY_S)
        self._published()

    def _published(self) -> bool:
        try:
            self.publish()
        except Exception as error:
            logger.warning("what this service needs of the object store cannot be published: %s", error)
            return False
        return True


def pin(objects: ObjectStore, name: str, digests: Iterable[str]) -> None:
    """Keeps objects that no database refers to yet, until `forget`; the same name again replaces what it kept."""
    write(objects, Published(name, None, frozenset(digests)))


def forget(objects: ObjectStore, name: str) -> bool:
    """Drops a list whose service or database is gone for good, or a pin; False when there is none of that name."""
    known = any(published.name == name for published in read_all(objects))
    objects.area.remove(_place(name))
    return known


def write(objects: ObjectStore, published: Published) -> None:
    """Writes a list, whole."""
    time = None if published.time is None else published.time.isoformat()
    head = json.dumps({"format": FORMAT, "time": time, "count": len(published.digests)})
    objects.area.write(_place(published.name), "\n".join([head, *sorted(published.digests)]).encode())


def read_all(objects: ObjectStore) -> list[Published]:
    """Every list of a store.

    Raises:
        StartupError: a list cannot be read; nothing may be collected then.
    """
    return [
        _read(objects, entry.name) for entry in sorted(objects.area.entries(REFERENCES), key=lambda e: e.name)
    ]


def _read(objects: ObjectStore, place: str) -> Published:
    with objects.area.open(place) as file:
        lines = file.read().decode(errors="replace").split("\n")
    try:
        head = json.loads(lines[0])
        time = None if head["time"] is None else datetime.fromisoformat(head["time"])
        if head["format"] != FORMAT or head["count"] != len(lines) - 1:
            raise ValueError(f"format {head['format']}, {len(lines) - 1} of {head['count']} digests")
    except (ValueError, KeyError, TypeError) as error:
        raise StartupError(f"{place} of the object store is not a list of references: {error}") from None
    return Published(place.removeprefix(f"{REFERENCES}/"), time, frozenset(lines[1:]))


def _place(name: str) -> str:
    return f"{REFERENCES}/{name}"


def _identity(session: Session) -> str:
    found = session.scalar(select(_IDENTITY.c.id))
    if found is None:
        found = ulid()
        session.execute(insert(_IDENTITY), {"only_row": 1, "id": found})
    return str(found)
