"""Garbage collection of a store, by the references of all services that share it.

Marking: an object is needed if a published list (`servicekit.objects.references`) or another needed object names it. Objects
that name others are JSON (a manifest of a base model or an index, a report), so every needed object that begins like JSON is
searched for digests. A digest has 256 bits, so a digest in it that belongs to a stored object is a reference, whatever the
format. A new format needs no code here; at worst an object is kept too long.

Sweeping: removes objects that are not needed and were last put before the time of the oldest list, minus a grace. A collection
that is killed has removed only such objects, and the next one continues. `Area.remove_older` keeps objects that are put
concurrently.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from servicekit.errors import CorruptObject, StartupError
from servicekit.objects._area import OBJECTS, Entry
from servicekit.objects.references import Published, read_all
from servicekit.objects.store import ObjectStore, digest_of, name_of

SHORTEST_GRACE = timedelta(hours=2)
"""One hour in which a new object must be referred to, plus one hour in which a put does not upload a young object again."""
GRACE = timedelta(days=1)

_CHUNK = 1 << 20
_DIGESTS = re.compile(rb"sha256:[0-9a-f]{64}")
_DIGEST_BYTES = 71


@dataclass(frozen=True, kw_only=True)
class Collected:
    """The result of a collection."""

    lists: tuple[Published, ...]
    before: datetime
    """Objects that were put later were not considered."""
    needed: tuple[Entry, ...]
    young: tuple[Entry, ...]
    """Objects that are not needed, but too young to be removed."""
    garbage: tuple[Entry, ...]
    removed: frozenset[str]
    """Names of the removed objects; empty in a dry run."""
    missing: tuple[str, ...]
    """Digests in the lists that the store does not have."""
    leftovers: int
    """Number of removed unfinished writes of dead processes."""


def collect(
    objects: ObjectStore, services: Collection[str], grace: timedelta = GRACE, dry_run: bool = False
) -> Collected:
    """Removes objects that no service needs. `services` are all services that use this store; each must have published a list.

    Raises:
        StartupError: a service has never published, a list cannot be read, or the grace is shorter than two hours.
        CorruptObject: a needed object is damaged, so its references are unknown; nothing was removed.
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
        lists=tuple(lists),
        before=before,
        needed=tuple(stored[digest] for digest in sorted(needed)),
        young=tuple(entry for entry in rest if entry.put_time >= before),
        garbage=tuple(garbage),
        removed=frozenset(removed),
        missing=tuple(sorted(named - set(stored))),
        leftovers=0 if dry_run else objects.area.remove_leftovers(before),
    )


def _oldest(lists: list[Published], services: Collection[str]) -> datetime:
    known = {published.name.rpartition("-")[0] for published in lists if published.time is not None}
    if silent := sorted(set(services) - known):
        raise StartupError(
            f"{', '.join(silent)} never published which objects they need: start them once, or name only the services"
            " that use this store"
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
    """Returns the stored objects that a JSON object names. Reads only the beginning of an object that is not JSON."""
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
