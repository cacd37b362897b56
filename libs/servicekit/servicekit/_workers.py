"""Worker threads of a consumer: each partition's records are handled by one thread at a time, in order.

A *lane* is what one poll gave of one partition. Any idle worker takes the next lane and goes through it; the
consumer's own thread, the only one that talks to the event log, hands lanes out, waits, cuts off what no worker
has come to, and settles what was done. So nothing but the record in a worker's hands is ever unsettled.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from servicekit.eventlog.base import InRecord, TopicPartition

_PATIENCE_S = 0.2
"""How long an idle worker waits for busy ones before more is polled for it."""


class Lane:
    """Consecutive records of one partition, and how far a worker has come with them.

    States: waiting, taken (a worker is at a record), finished.
    """

    def __init__(self, partition: TopicPartition, records: Sequence[InRecord]) -> None:
        self.partition = partition
        self.next_offset: int | None = None
        """After the last record that took effect; None when none did. Grows while the lane is taken."""
        self.settled: int | None = None
        """What the consumer's thread has noted of it."""
        self.failure: tuple[InRecord, Exception] | None = None
        """The record the lane stopped before, and why."""
        self.finished = False
        self.lost = False
        """Its partition went to another member meanwhile, who gets these records too: commit nothing of it."""
        self.busy_since = time.monotonic()
        """When its worker took the record it is at."""
        self._records = deque(records)

    def take(self) -> InRecord | None:
        """The next record, or None at the end. Under the workers' lock."""
        if not self._records:
            return None
        self.busy_since = time.monotonic()
        return self._records.popleft()

    def cut(self) -> int | None:
        """Let go of what was not taken; returns the offset of the first such record. Under the workers' lock."""
        offset = self._records[0].offset if self._records else None
        self._records.clear()
        return offset


class Workers:
    """`count` threads that go through lanes with `deliver`, until `stop` or `close`."""

    def __init__(
        self, name: str, count: int, deliver: Callable[[InRecord], None], stop: threading.Event
    ) -> None:
        """An exception that `deliver` raises ends its lane before that record."""
        self._count = count
        self._deliver = deliver
        self._stop = stop
        self._closing = False
        self._idle = 0
        self._queue: deque[Lane] = deque()
        self._changed = threading.Condition()
        # daemon: a handler that never returns must not keep a stopped process alive for ever.
        self._threads = [
            threading.Thread(target=self._work, name=f"{name} worker {number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def hand_out(self, lanes: Iterable[Lane]) -> None:
        """Queue lanes, of partitions that have no unfinished one."""
        with self._changed:
            self._queue.extend(lanes)
            self._changed.notify_all()

    def wait(self, lanes: Sequence[Lane], timeout_s: float) -> None:
        """Until all of them are finished; not longer than `timeout_s`, and hardly longer than a worker is idle."""
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
        """Until all of them are finished, however long their handlers take."""
        with self._changed:
            self._changed.wait_for(lambda: all(lane.finished for lane in lanes))

    def cut(self, lane: Lane) -> int | None:
        """Keep workers from going further than the record one has in its hands; see `Lane.cut`."""
        with self._changed:
            offset = lane.cut()
            if lane in self._queue:
                self._queue.remove(lane)
                lane.finished = True
            return offset

    def close(self) -> None:
        """End the threads, each after the record it is at."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (lane := self._next_lane()) is not None:
            self._go_through(lane)
            with self._changed:
                lane.finished = True
                self._changed.notify_all()

    def _next_lane(self) -> Lane | None:
        with self._changed:
            self._idle += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closing or bool(self._queue))
            self._idle -= 1
            return None if self._closing else self._queue.popleft()

    def _go_through(self, lane: Lane) -> None:
        while (record := self._next_record(lane)) is not None:
            try:
                self._deliver(record)
            except Exception as error:
                lane.failure = (record, error)
                return
            lane.next_offset = record.offset + 1

    def _next_record(self, lane: Lane) -> InRecord | None:
        with self._changed:
            return None if self._closing or self._stop.is_set() else lane.take()
