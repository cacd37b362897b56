"""Worker threads of a consumer: each partition's records are handled by one thread at a time, in order.

A *lane* holds the records of one partition that one poll returned. An idle worker takes the next lane and handles its
records in order. Only the consumer's own thread uses the event log: it hands lanes out, waits, takes back the records that no
worker has started, and settles the records that are done. So the only unsettled records are those that a worker handles at
that moment: one record, or the records of one transaction.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from servicekit.eventlog.base import MAX_POLL_INTERVAL_S, InRecord, TopicPartition
from servicekit.heartbeats import Heartbeat

_PATIENCE_S = 0.2
"""How long an idle worker waits for busy ones before more records are polled for it."""


Together = Callable[[InRecord], Hashable | None]
"""Returns the bundle in which a record may be delivered together with the next ones; None: it is delivered alone."""
Deliver = Callable[[Sequence[InRecord]], Iterator[int]]
"""Delivers a bundle, and yields how many more of its records took effect, in order. An exception concerns the next record."""


class Lane:
    """Consecutive records of one partition, and how many of them are done.

    States: waiting, taken (a worker handles its records), finished.
    """

    def __init__(self, partition: TopicPartition, records: Sequence[InRecord]) -> None:
        self.partition = partition
        self.next_offset: int | None = None
        """The offset after the last record that took effect; None when none did. Grows while the lane is taken."""
        self.settled: int | None = None
        """The offset that the consumer's thread has settled."""
        self.failure: tuple[InRecord, Exception] | None = None
        """The record before which the lane stopped, and the error."""
        self.finished = False
        self.lost = False
        """Whether another member owns the partition now. It receives these records again, so nothing of them may be committed."""
        self.busy_since = time.monotonic()
        """When its worker started the current record (monotonic)."""
        self._records = deque(records)

    def take(self, together: Together) -> list[InRecord]:
        """Returns the next record with the following ones of the same bundle; empty at the end. Needs the workers' lock."""
        if not self._records:
            return []
        self.busy_since = time.monotonic()
        taken = [self._records.popleft()]
        bundle = together(taken[0])
        while bundle is not None and self._records and together(self._records[0]) == bundle:
            taken.append(self._records.popleft())
        return taken

    def cut(self) -> int | None:
        """Drops the records that were not taken, and returns the offset of the first one. Needs the workers' lock."""
        offset = self._records[0].offset if self._records else None
        self._records.clear()
        return offset


class Workers:
    """`count` threads that handle lanes with `deliver`, until `stop` or `close`."""

    def __init__(
        self, name: str, count: int, *, deliver: Deliver, together: Together, stop: threading.Event
    ) -> None:
        """When `deliver` raises, the lane ends before the record that the exception concerns."""
        self._name = name
        self._count = count
        self._deliver = deliver
        self._together = together
        self._stop = stop
        self._closing = False
        self._idle = 0
        self._queue: deque[Lane] = deque()
        self._changed = threading.Condition()
        # daemon: a handler that never returns must not keep a stopped process alive forever.
        self._threads = [
            threading.Thread(target=self._work, name=f"{name} worker {number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def hand_out(self, lanes: Iterable[Lane]) -> None:
        """Queues lanes. Their partitions must not have unfinished lanes."""
        with self._changed:
            self._queue.extend(lanes)
            self._changed.notify_all()

    def wait(self, lanes: Sequence[Lane], timeout_s: float) -> None:
        """Waits until all lanes are finished, at most `timeout_s`; returns soon after a worker becomes idle."""
        until = time.monotonic() + timeout_s

        def all_finished() -> bool:
            return all(lane.finished for lane in lanes)

        with self._changed:
            self._changed.wait_for(
                lambda: all_finished() or (self._idle > 0 and not self._queue), timeout=timeout_s
            )
            left_s = max(0.0, until - time.monotonic())
            self._changed.wait_for(all_finished, timeout=min(left_s, _PATIENCE_S))

    def wait_for_all(self, lanes: Sequence[Lane]) -> None:
        """Waits until all lanes are finished, at most for as long as a member may go without polling."""
        with self._changed:
            self._changed.wait_for(lambda: all(lane.finished for lane in lanes), timeout=MAX_POLL_INTERVAL_S)

    def cut(self, lane: Lane) -> int | None:
        """Stops the lane after the record that its worker handles now; see `Lane.cut`."""
        with self._changed:
            offset = lane.cut()
            if lane in self._queue:
                self._queue.remove(lane)
                lane.finished = True
            return offset

    def close(self) -> None:
        """Ends the threads, each after its current record. One that hangs for too long is left behind."""
        until = time.monotonic() + MAX_POLL_INTERVAL_S
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        heartbeat = Heartbeat(f"handler of {self._name}", MAX_POLL_INTERVAL_S / 2)
        try:
            while (lane := self._next_lane()) is not None:
                self._go_through(lane, heartbeat)
                with self._changed:
                    lane.finished = True
                    self._changed.notify_all()
        finally:
            heartbeat.close()

    def _next_lane(self) -> Lane | None:
        with self._changed:
            self._idle += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._closing or bool(self._queue)
            )  # waits: for work; `close` wakes it
            self._idle -= 1
            return None if self._closing else self._queue.popleft()

    def _go_through(self, lane: Lane, heartbeat: Heartbeat) -> None:
        while records := self._next_records(lane):
            done = 0
            try:
                with heartbeat.step():
                    for more in self._deliver(records):
                        done += more
                        lane.next_offset = records[done - 1].offset + 1
                        lane.busy_since = time.monotonic()
                heartbeat.succeeded()
            except Exception as error:  # noqa: BLE001 - the consumer decides what the error means
                heartbeat.failed(error)
                lane.failure = (records[done], error)
                return

    def _next_records(self, lane: Lane) -> list[InRecord]:
        with self._changed:
            return [] if self._closing or self._stop.is_set() else lane.take(self._together)
