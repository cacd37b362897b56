"""Garbage collection of the object store, for operators."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from openledger_client import services
from openledger_ops.state_folder import existing_part
from servicekit.errors import InvalidArgument, NotFound, StartupError
from servicekit.objects import ObjectStore
from servicekit.objects import references as lists
from servicekit.objects.collection import Collected
from servicekit.objects.collection import collect as collect_objects

_UNITS_S = {"h": 3600, "d": 86_400}
_NONE = "nothing"
"""A folder that no store has."""
_PIN = re.compile(r"[a-z][a-z0-9-]{0,62}")


def store_of(location: str, state_dir: Path) -> ObjectStore:
    """Returns the object store at a location; the state folder's own for "".

    Raises:
        StartupError: the location is no object store, does not exist, or does not answer. Reading must not create it.
    """
    url = location or str(existing_part(state_dir, "objects"))
    if "://" not in url.removeprefix("file://") and not Path(url.removeprefix("file://")).is_dir():
        raise StartupError(
            f"no object store at {url}: give --object-store the folder or URL of the platform's"
        )
    try:
        store = ObjectStore(url, cache=state_dir / "objects-cache")
        if "://" in url:
            # Not every file system connects, or reads the rest of its URL, before its first use.
            next(iter(store.area.entries(_NONE)), None)
        return store
    except (OSError, ValueError, ImportError) as error:  # of whichever file system the URL names
        raise StartupError(f"object store {url}: {type(error).__name__}: {error}") from None


def collect(store: ObjectStore, only: Sequence[str], grace: timedelta, dry_run: bool) -> Collected:
    """Removes the objects that no service needs. Every service of the registry must have said what it needs, or those
    named by `only`.

    Raises:
        StartupError: a service never said what it needs.
    """
    expected = list(only) or [service.name for service in services.ALL]
    return collect_objects(store, expected, grace, dry_run)


def grace_of(text: str) -> timedelta:
    """Returns the duration that `12h` or `7d` means. Raises InvalidArgument."""
    match = re.fullmatch(r"(\d{1,6})([hd])", text)
    if match is None:
        raise InvalidArgument(
            "--grace", "duration", "must be a number of hours or days, like 12h or 7d", text
        )
    return timedelta(seconds=int(match[1]) * _UNITS_S[match[2]])


def pin(store: ObjectStore, name: str, digests: Sequence[str]) -> None:
    """Keeps objects that no service needs, until `forget`.

    Raises:
        InvalidArgument: the name is not one of a pin.
        NotFound: there is no such object.
    """
    if _PIN.fullmatch(name) is None:
        raise InvalidArgument("name", "name.format", "must be lower case letters, digits and -", name)
    for digest in digests:
        if not store.exists(digest):
            raise NotFound("object", digest)
    lists.pin(store, f"pin-{name}", digests)


def forget(store: ObjectStore, name: str) -> None:
    """Drops a pin, or the list of a service or database that is gone for good. Raises NotFound."""
    if not lists.forget(store, name):
        raise NotFound("list of references", name)
