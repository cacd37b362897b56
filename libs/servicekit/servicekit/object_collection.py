"""Garbage collection of a store: by reference, over all services that share it.

Marking: an object is needed when a published list (`servicekit.references`) names it, or a needed object does. Objects that
name others are JSON (a base model's manifest its files, an index's manifest its arrays, a report its outcomes), so every
needed object that begins like JSON is searched for digests. A digest is 256 bits: one that is written there and names a
stored object is a reference, whatever format the object has. No format can be forgotten, at worst something is kept too long.

Sweeping: what is not needed and was last put before the oldest list was made, less a grace, is removed. Killed anywhere, it has
removed some of what was not needed; the next run goes on. `Area.remove_older` keeps what is put at the same moment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit._object_area import OBJECTS, Entry
from servicekit.errors import CorruptObject, StartupError
from servicekit.objects import ObjectStore, digest_of, name_of
from servicekit.references import Published, read_all

SHORTEST_GRACE = timedelta(hours=2)
"""An hour in which a put object must be referred to, and one in which a put does not send again what is young."""
GRACE = timedelta(days=1)

_CHUNK = 1 << 20
_DIGESTS = re.compile(rb"sha256:[0-9a-f]{64}")
_DIGEST_BYTES = 71


@dataclass(frozen=True)
class Collected:
    """What a collection found and did."""

    lists: tuple[Published, ...]
    before: datetime
    """What was put later was not looked at."""
    needed: tuple[Entry, ...]
    young: tuple[Entry, ...]
    """Not needed, and put too lately to be sure."""
    garbage: tuple[Entry, ...]
    removed: frozenset[str]
    """Names of what was removed: nothing in a dry run."""
    missing: tuple[str, ...]
    """Digests that lists name and the store lacks."""
    leftovers: int
    """Unfinished writes of dead processes that were removed."""


def collect(
    objects: ObjectStore, services: Collection[str], grace: timedelta = GRACE, dry_run: bool = False
) -> Collected:
    """Removes what nobody needs. `services` are those that must have published a list: all that use this store.

    Raises:
        StartupError: a service has never published, a list cannot be read, or the grace is shorter than two hours.
        CorruptObject: a needed object is damaged, so that what it names is not known; nothing was removed.
        Unavailable: the bucket does not answer.
    """
    if grace < SHORTEST_GRACE:
        raise StartupError(
            f"a grace of {grace} is too short: an object may wait that long for its reference; at least 2 h"
        )
    lists = read_all(objects)
    before = _oldest(lists, services) - grace
    stored = {
        digest: entry
        for entry in objects.area.entries(OBJECTS)
        if (digest := digest_of(entry.name)) is not None
    }
    named = frozenset[str]().union(*(published.digests for published in lists))
    needed = _mark(objects, named, stored)
    rest = [entry for digest, entry in stored.items() if digest not in needed]
    garbage = [entry for entry in rest if entry.put_time < before]
    removed = [] if dry_run else objects.area.remove_older([entry.name for entry in garbage], before)
    return Collected(
        tuple(lists),
        before,
        tuple(stored[digest] for digest in sorted(needed)),
        tuple(entry for entry in rest if entry.put_time >= before),
        tuple(garbage),
        frozenset(removed),
        tuple(sorted(named - set(stored))),
        0 if dry_run else objects.area.remove_leftovers(before),
    )


def _oldest(lists: list[Published], services: Collection[str]) -> datetime:
    known = {published.name.rpartition("-")[0] for published in lists if published.time is not None}
    if silent := sorted(set(services) - known):
        raise StartupError(
            f"{', '.join(silent)} never published what they need of this object store: start them once, or name only the"
            " services that use it"
        )
    return min(published.time for published in lists if published.time is not None)


def _mark(objects: ObjectStore, named: frozenset[str], stored: dict[str, Entry]) -> set[str]:
    needed = {digest for digest in named if digest in stored}
    to_search = list(needed)
    while to_search:
        found = _named_in(objects, to_search.pop(), stored) - needed
        needed |= found
        to_search += found
    return needed


def _named_in(objects: ObjectStore, digest: str, stored: dict[str, Entry]) -> set[str]:
    """Stored objects that a JSON object names; none for one that is not JSON, of which no more than a piece is read."""
    hasher, found, end = hashlib.sha256(), set[str](), b""
    with objects.area.open(name_of(digest)) as file:
        while chunk := file.read(_CHUNK):
            if not end and chunk[:1] not in (b"{", b"["):
                return found
            hasher.update(chunk)
            text = end + chunk
            found |= {name for each in _DIGESTS.findall(text) if (name := each.decode()) in stored}
            end = text[-_DIGEST_BYTES + 1 :]
    if end and f"sha256:{hasher.hexdigest()}" != digest:
        raise CorruptObject(digest, f"sha256:{hasher.hexdigest()}")
    return found
