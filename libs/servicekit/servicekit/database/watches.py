"""Watches: streams that send something at each change. Commits wake them, so they do not poll the database individually.

    changes = Changes(engine, versions)     # versions(session, keys) -> {key: anything that differs after a change}

    def cancel(session): ...; changes.notify(session, run.name)

    async for _ in changes.watch(request.name):
        message = await asyncio.to_thread(read, request.name)
        if message != last: yield message

A commit of this process wakes its watchers at once. One poll for all watchers finds the commits of other processes, and it
runs only while there are watchers: a hundred idle watchers cost as much as one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Hashable, Mapping

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from servicekit.database.transaction import reading

logger = logging.getLogger(__name__)

Versions = Callable[[Session, Collection[str]], Mapping[str, Hashable]]
"""Reads, in one query, a value for each existing key that differs after every change: a version, or a time."""

_NOTIFIED = "servicekit.database.watches.notified"  # in Session.info: what to wake after the commit
_NEVER = object()


class _Watcher:
    """One stream. It belongs to the event loop that created it; any thread may call `wake`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    async def wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()


class Changes:
    """Notifies watchers that the thing with a key (for example a resource name) has changed.

    Args:
        engine: the database.
        versions: how the versions of all watched keys are read at once.
        poll_s: about the largest delay until a change of another process is seen.
    """

    def __init__(self, engine: Engine, versions: Versions, poll_s: float = 1.0) -> None:
        self._engine = engine
        self._versions = versions
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._watchers: dict[str, set[_Watcher]] = {}
        self._known: dict[str, object] = {}
        self._poller: asyncio.Task[None] | None = None

    def notify(self, session: Session, *keys: str) -> None:
        """Wakes the keys' watchers once the session's transaction is committed; never if it is rolled back."""
        session.info.setdefault(_NOTIFIED, []).extend((self, key) for key in keys)

    async def watch(self, key: str) -> AsyncGenerator[None, None]:
        """Yields at once, and then after every change of the key. Several changes may be reported as one.

        Read the state after each yield, and compare it before sending: it may not have changed.
        """
        watcher = _Watcher()
        self._add(key, watcher)
        try:
            yield
            while True:
                await watcher.wait()
                yield
        finally:
            self._remove(key, watcher)

    def _add(self, key: str, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.setdefault(key, set()).add(watcher)
            # The first poll always wakes, or a change by another process before that poll would be missed.
            self._known[key] = _NEVER
        if self._poller is None or self._poller.done():
            self._poller = asyncio.get_running_loop().create_task(self._poll())

    def _remove(self, key: str, watcher: _Watcher) -> None:
        with self._lock:
            rest = self._watchers[key]
            rest.discard(watcher)
            if not rest:
                del self._watchers[key], self._known[key]
            idle = not self._watchers
        if idle and self._poller is not None:
            self._poller.cancel()
            self._poller = None

    def _wake(self, key: str) -> None:
        with self._lock:
            woken = list(self._watchers.get(key, ()))
        for watcher in woken:
            watcher.wake()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            with self._lock:
                keys = list(self._watchers)
            try:
                found = await asyncio.to_thread(self._read, keys)
            except Exception as error:  # noqa: BLE001 - the poll continues and reports the failure
                logger.warning("watched changes of other processes cannot be read now: %s", error)
                continue
            for key in keys:
                with self._lock:
                    changed = key in self._known and self._known[key] != found.get(key)
                    if changed:
                        self._known[key] = found.get(key)
                if changed:
                    self._wake(key)

    def _read(self, keys: Collection[str]) -> Mapping[str, Hashable]:
        with reading(self._engine) as session:
            return self._versions(session, keys)


@event.listens_for(Session, "after_commit")
def _committed(session: Session) -> None:
    for changes, key in session.info.pop(_NOTIFIED, ()):
        changes._wake(key)


@event.listens_for(Session, "after_rollback")
def _rolled_back(session: Session) -> None:
    session.info.pop(_NOTIFIED, None)
