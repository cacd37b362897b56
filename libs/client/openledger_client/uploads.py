"""Uploads of records in one stream. Each record is acknowledged, and a lost connection neither loses nor duplicates one."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client.errors import Internal, InvalidArgument, OpenLedgerError
from openledger_client.resumption import Patience, Resumption

if TYPE_CHECKING:
    from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub


def contribute(
    stub: DatanetServiceStub,
    contributor: str,
    records: Iterable[bytes],
    *,
    window: int = 256,
    window_bytes: int = 16 << 20,
    patience: Patience | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[pb.ContributeResponse]:
    """Streams records to a Datanet and yields one acknowledgement per record, in order; `sequence` counts from 1.

    An acknowledged record is durable. A rejected record has a `status` and does not end the stream. When the connection is
    lost, records without an acknowledgement are sent again on a new stream: the service recognises those that it has
    (`already_present`).

    Args:
        stub: `client.datanet`.
        contributor: `datanets/{datanet}/contributors/{contributor}`.
        records: UTF-8 JSON objects. They are read as the service accepts them, in another thread.
        window: most records that wait for their acknowledgement.
        window_bytes: most bytes that wait, apart from one record more: the memory that long records take.
        patience: how long the service may stay unreachable.
        sleep: waits between attempts.

    Raises:
        OpenLedgerError: the service refuses the stream, or stays unreachable for longer than `patience` allows.
        InvalidArgument: a record is not bytes. Those before it may have been stored.
        Exception: whatever `records` raises.
    """
    resumption = Resumption(patience or Patience())
    outgoing = _Outgoing(contributor, records, window=window, window_bytes=window_bytes)
    while True:
        stream = stub.Contribute(outgoing.stream())
        try:
            for response in stream:
                outgoing.acknowledge(response)
                resumption.progressed()
                yield response
            outgoing.check_complete()
            return
        except OpenLedgerError as error:
            if outgoing.failure is not None:
                raise outgoing.failure from None
            wait_s = resumption.wait_s(error)
        finally:
            outgoing.stop()
            stream.cancel()
        sleep(wait_s)


class _Outgoing:
    """Records on their way: those without an acknowledgement, then those not read yet.

    gRPC reads a stream's requests in a thread of its own, which may still be reading when the stream has failed. Each stream
    has a number, and only the newest reads.
    """

    def __init__(self, contributor: str, records: Iterable[bytes], *, window: int, window_bytes: int) -> None:
        self._contributor = contributor
        self._records: Iterator[object] = iter(
            records
        )  # callers without a type checker may give others than bytes
        self._window = window
        self._window_bytes = window_bytes
        self._waiting_bytes = 0
        self._waiting: deque[pb.ContributeRequest] = deque()
        self._acknowledged = 0
        self._number = 0
        self._exhausted = False
        self._changed = threading.Condition()
        self._reading = threading.Lock()
        self.failure: BaseException | None = None
        """What `records` raised."""

    def stream(self) -> Iterator[pb.ContributeRequest]:
        """Returns the requests of a new stream; the one before it ends."""
        with self._changed:
            self._number += 1
            self._changed.notify_all()
            return self._requests(self._number, self._acknowledged)

    def stop(self) -> None:
        """Ends the current stream's requests."""
        with self._changed:
            self._number += 1
            self._changed.notify_all()

    def acknowledge(self, response: pb.ContributeResponse) -> None:
        """Forgets a record. Raises Internal when the service acknowledges another record than the oldest."""
        with self._changed:
            expected = self._waiting[0].sequence if self._waiting else 0
            if response.sequence != expected:
                raise Internal(
                    f"the service acknowledges record {response.sequence}, expected {expected or 'none'}",
                    reason="WRONG_ACKNOWLEDGEMENT",
                )
            self._waiting_bytes -= len(self._waiting.popleft().content)
            self._acknowledged += 1
            self._changed.notify_all()

    def check_complete(self) -> None:
        """Raises what `records` raised, or Internal when the service ended the stream before the last acknowledgement."""
        if self.failure is not None:
            raise self.failure
        with self._changed:
            if self._waiting or not self._exhausted:
                raise Internal(
                    f"the service ended the stream; {len(self._waiting)} records have no acknowledgement",
                    reason="STREAM_ENDED_EARLY",
                )

    def _requests(self, number: int, position: int) -> Iterator[pb.ContributeRequest]:
        """Yields requests from the `position`-th record on."""
        while self._may_continue(number, position):
            if (request := self._known(position)) is None:
                if not self._read(number, position):
                    return
                continue
            position += 1
            yield request

    def _may_continue(self, number: int, position: int) -> bool:
        """Waits for space in the window; returns whether this stream is still the newest."""
        with self._changed:
            self._changed.wait_for(  # waits: its stream has a deadline, and its end wakes this
                lambda: number != self._number or self._has_capacity(position)
            )
            return number == self._number

    def _has_capacity(self, position: int) -> bool:
        """Returns whether a record may be sent; one that was read before always may."""
        if position < self._acknowledged + len(self._waiting):
            return True
        return position < self._acknowledged + self._window and self._waiting_bytes < self._window_bytes

    def _known(self, position: int) -> pb.ContributeRequest | None:
        """Returns a record that was read before; None for the next one."""
        with self._changed:
            index = position - self._acknowledged
            return self._waiting[index] if 0 <= index < len(self._waiting) else None

    def _read(self, number: int, position: int) -> bool:
        """Reads the record at `position`, unless an older stream's thread has just done so; returns whether there is one.

        Acknowledgements arrive meanwhile: a source may wait for them.
        """
        with self._reading:
            if self._known(position) is not None or number != self._number:
                return True
            if self._exhausted:
                return False
            try:
                content = next(self._records, None)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self.failure, content = error, None
            if content is not None and not isinstance(content, bytes):
                self.failure, content = _not_bytes(position, content), None
            if content is None:
                self._exhausted = True
                return False
            request = pb.ContributeRequest(
                contributor=self._contributor, sequence=position + 1, content=content
            )
            with self._changed:
                self._waiting.append(request)
                self._waiting_bytes += len(content)
            return True


def _not_bytes(position: int, content: object) -> InvalidArgument:
    """Returns the error of a record of another type."""
    right = "bytes of UTF-8 JSON are needed, e.g. json.dumps(record).encode()"
    return InvalidArgument.of(f"records[{position}]", "bytes", f"is {type(content).__name__}; {right}")
