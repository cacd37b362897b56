"""Brings adapters into slots: fetched on threads of their own, installed by the scheduler's thread."""

from __future__ import annotations

import queue
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from inference import metrics
from inference.decoder import Decoder
from inference.residency import Residency
from modelkit.adapter import InvalidAdapter
from modelkit.weights.adapter import Adapter

_FETCHERS = 4
"""Adapters fetched at once: one that comes slowly must not hold up the others."""

Fetch = Callable[[str], Adapter]
"""Reads and checks an adapter by digest. Slow; raises InvalidAdapter, or what the object store raises."""

T = TypeVar("T")


class Adapters:
    """Adapters in slots, and on their way. Used by the scheduler's thread, but for `preload`.

    `arrived` is called from other threads when `take` has something to do.
    """

    def __init__(self, decoder: Decoder, slots: int, fetch: Fetch, arrived: Callable[[], None]) -> None:
        self.residency = Residency(slots)
        self._decoder = decoder
        self._fetch = fetch
        self._arrived = arrived
        self._fetchers = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="adapter-fetch")
        self._preloads: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._fetched: queue.SimpleQueue[tuple[str, Future[Adapter]]] = queue.SimpleQueue()
        self._fetching: set[str] = set()
        self._ready: dict[str, Adapter] = {}
        """Fetched, but every slot was pinned."""
        self._failures: dict[str, BaseException] = {}

    def preload(self, digest: str) -> None:
        """Asks for an adapter to be made resident if a slot is free. From any thread."""
        self._preloads.put(digest)
        self._arrived()

    def demand(self, digest: str) -> bool:
        """Loads an adapter, now or later. Returns False if it is fetched but every slot is pinned."""
        if self.residency.slot_of(digest) is not None or digest in self._failures:
            return True
        if digest in self._ready:
            return self._install(digest, evict=True)
        if digest not in self._fetching:
            self._fetching.add(digest)
            fetched = self._fetchers.submit(self._fetch, digest)
            fetched.add_done_callback(lambda done: self._came(digest, done))
        return True

    def take(self, needed: Collection[str]) -> dict[str, BaseException]:
        """Installs what was fetched, and forgets what found no slot and is not `needed`.

        Returns the adapters that cannot be had, each once; who demands one of them again tries again.
        """
        for digest, done in _drain(self._fetched):
            self._fetching.discard(digest)
            if (error := done.exception()) is not None:
                self._failures[digest] = error
            else:
                self._ready[digest] = done.result()  # waits: not at all, it is done
                self._install(digest, evict=False)
        for digest in _drain(self._preloads):
            self.demand(digest)
        self._ready = {digest: adapter for digest, adapter in self._ready.items() if digest in needed}
        failures, self._failures = self._failures, {}
        return failures

    def close(self) -> None:
        """Fetches nothing more."""
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    def _came(self, digest: str, done: Future[Adapter]) -> None:
        if not done.cancelled():
            self._fetched.put((digest, done))
            self._arrived()

    def _install(self, digest: str, evict: bool) -> bool:
        slot = self.residency.place(digest, evict)
        if slot is None:
            return False
        try:
            self._decoder.load(slot, self._ready.pop(digest))
        except InvalidAdapter as error:
            self.residency.remove(digest)
            self._failures[digest] = error
        metrics.adapters_loaded(len(self.residency))
        return True


def _drain(source: queue.SimpleQueue[T]) -> Iterator[T]:
    while not source.empty():  # one thread takes, so what is there stays there
        yield source.get()
