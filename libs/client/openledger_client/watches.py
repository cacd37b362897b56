"""Watches that survive a lost connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from openledger_client.errors import OpenLedgerError
from openledger_client.resumption import Patience, Resumption

if TYPE_CHECKING:
    import grpc

Update = TypeVar("Update")


def watch(
    call: grpc.UnaryStreamMultiCallable[Any, Update],
    request: Any,
    *,
    patience: Patience | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Update]:
    """Yields the updates of a Watch method until the server ends the stream; close the iterator to stop earlier.

    When the connection is lost or the stream's deadline passes, the watch is opened again. A server answers a new watch
    with updates from the beginning or with the current state: updates that were yielded before are skipped, up to the
    first new one.

    Args:
        call: a Watch method of a stub, e.g. `client.trainer.WatchTrainingRun`.
        request: its request.
        patience: how long the service may stay unreachable.
        sleep: waits between attempts.

    Raises:
        OpenLedgerError: the service refuses the watch, or stays unreachable for longer than `patience` allows.
    """
    resumption = Resumption(patience or Patience())
    seen = _Seen()
    while True:
        stream = call(request)
        try:
            for update in stream:
                if seen.is_new(update):
                    resumption.progressed()
                    yield update
            return
        except OpenLedgerError as error:
            wait_s = resumption.wait_s(error)
        finally:
            stream.cancel()
        seen.reopened()
        sleep(wait_s)


async def async_watch(
    call: grpc.aio.UnaryStreamMultiCallable[Any, Update], request: Any, *, patience: Patience | None = None
) -> AsyncIterator[Update]:
    """`watch` for asyncio."""
    resumption = Resumption(patience or Patience())
    seen = _Seen()
    while True:
        stream: Any = call(request)
        try:
            async for update in stream:
                if seen.is_new(update):
                    resumption.progressed()
                    yield update
            return
        except OpenLedgerError as error:
            wait_s = resumption.wait_s(error)
        finally:
            stream.cancel()
        seen.reopened()
        await asyncio.sleep(wait_s)


class _Seen:
    """Which updates were yielded: hashes only, a few bytes each."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._repeating = False

    def reopened(self) -> None:
        """The next updates may be repeats."""
        self._repeating = True

    def is_new(self, update: Any) -> bool:
        """Returns whether to yield an update."""
        key = hash(update.SerializeToString(deterministic=True))
        if self._repeating and key in self._hashes:
            return False
        self._repeating = False
        self._hashes.add(key)
        return True
