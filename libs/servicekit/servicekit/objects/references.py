"""Publishes which objects a service needs, for garbage collection.

Several services share one store, and no service may know another one's tables. So each service publishes the digests that its
database refers to, in the store itself: when it starts, and every few minutes. `servicekit.objects.collection` keeps all objects
that a published list names, those that named objects name in turn, and those that were put after the time of the oldest list,
minus a grace. So a service that is down for a month loses nothing: its list protects older objects, and the age of the list
protects newer ones.

Every service has a `references.py` with one function that yields its digests. The rules: a service that puts an object refers
to it within an hour (the shortest grace is two hours), and a service that deletes a row gives up the objects that only this row
referred to.

A list is named after its service and the identity of its database. So replicas of a service publish the same list, and two
deployments that share a bucket do not overwrite each other's lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, MetaData, insert, select
from sqlalchemy.orm import Session

from servicekit.database import reading, run_in_transaction, ulid, utc_now
from servicekit.database.tables import add_identity
from servicekit.errors import StartupError
from servicekit.objects import ObjectStore
from servicekit.objects._area import REFERENCES
from servicekit.telemetry.metrics import REFERENCES_PUBLISHED

FORMAT = "openledger.references/1"
PUBLISH_EVERY_S = 300.0
_IDENTITY = add_identity(MetaData())

References = Callable[[Session], Iterable[str]]
"""Yields the digests of all objects that a database refers to; "" and duplicates are ignored."""


@dataclass(frozen=True)
class Published:
    """A published list."""

    name: str
    """`<service>-<database's id>`, or the name of a pin."""
    time: datetime | None
    """The list holds everything that was referred to before this time. None for a pin, which does not age."""
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
        """Publishes the digests in the database, and returns the list. Raises errors of the database and the store."""
        identity = run_in_transaction(self._engine, _identity)
        time = self._now()  # before the database is read: later references may be missing
        with reading(self._engine) as session:
            digests = frozenset(digest for digest in self._references(session) if digest)
        published = Published(f"{self._service}-{identity}", time, digests)
        write(self._objects, published)
        REFERENCES_PUBLISHED.labels(self._service).set(time.timestamp())
        return published

    def step(self) -> None:
        """Publishes; for a loop that repeats it every `PUBLISH_EVERY_S` and once more when the service stops."""
        self.publish()


def pin(objects: ObjectStore, name: str, digests: Iterable[str]) -> None:
    """Keeps objects that no database refers to yet, until `forget`. A pin with the same name replaces the former one."""
    write(objects, Published(name, None, frozenset(digests)))


def forget(objects: ObjectStore, name: str) -> bool:
    """Removes a pin, or the list of a service or database that no longer exists. Returns whether there was one of that name."""
    known = any(published.name == name for published in read_all(objects))
    objects.area.remove(_path_of(name))
    return known


def write(objects: ObjectStore, published: Published) -> None:
    """Writes a list atomically."""
    time = None if published.time is None else published.time.isoformat()
    head = json.dumps({"format": FORMAT, "time": time, "count": len(published.digests)})
    objects.area.write(_path_of(published.name), "\n".join([head, *sorted(published.digests)]).encode())


def read_all(objects: ObjectStore) -> list[Published]:
    """Returns all lists of a store.

    Raises:
        StartupError: a list cannot be read; nothing may be collected then.
    """
    return [
        _read(objects, entry.name) for entry in sorted(objects.area.entries(REFERENCES), key=lambda e: e.name)
    ]


def _read(objects: ObjectStore, path: str) -> Published:
    with objects.area.open(path) as file:
        lines = file.read().decode(errors="replace").split("\n")
    try:
        head = json.loads(lines[0])
        time = None if head["time"] is None else datetime.fromisoformat(head["time"])
        if head["format"] != FORMAT or head["count"] != len(lines) - 1:
            raise ValueError(f"format {head['format']}, {len(lines) - 1} of {head['count']} digests")
    except (ValueError, KeyError, TypeError) as error:
        raise StartupError(f"{path} of the object store is not a list of references: {error}") from None
    return Published(path.removeprefix(f"{REFERENCES}/"), time, frozenset(lines[1:]))


def _path_of(name: str) -> str:
    return f"{REFERENCES}/{name}"


def _identity(session: Session) -> str:
    found = session.scalar(select(_IDENTITY.c.id))
    if found is None:
        found = ulid()
        session.execute(insert(_IDENTITY), {"only_row": 1, "id": found})
    return str(found)
