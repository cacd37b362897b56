"""Dead letters: where invalid records go, and a cap, because many invalid records mean that the consumer is at fault."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

from servicekit.eventlog.base import MAX_RECORD_BYTES, InRecord, OutRecord, Producer
from servicekit.eventlog.events import InvalidEvent

logger = logging.getLogger(__name__)

_DETAIL_CHARS = 1000


@dataclass(frozen=True)
class DeadLetterCap:
    """How many invalid records a consumer moves aside before it halts."""

    consecutive: int = 10
    """Invalid records in a row."""
    ratio: float = 0.1
    """Largest share of invalid records in the last `window` records. Checked once half a window has been seen."""
    window: int = 1000


class DeadLetterCapReached(Exception):
    """One more invalid record would exceed the cap. It was not moved."""


class DeadLetterCount:
    """Counts a consumer's outcomes against its cap."""

    def __init__(self, cap: DeadLetterCap) -> None:
        self._cap = cap
        self._in_a_row = 0
        self._recent: deque[bool] = deque(maxlen=cap.window)  # True: invalid
        self._invalid = 0

    def valid(self) -> None:
        """Counts a record that was handled."""
        self._in_a_row = 0
        self._remember(False)

    def check(self) -> None:
        """Raises DeadLetterCapReached when no further record may be moved to the dead letters."""
        if self._in_a_row >= self._cap.consecutive:
            raise DeadLetterCapReached(f"{self._in_a_row} invalid records in a row")
        seen = len(self._recent)
        if 2 * seen >= self._cap.window and self._invalid + 1 > self._cap.ratio * seen:
            raise DeadLetterCapReached(f"{self._invalid} of the last {seen} records were invalid")

    def invalid(self) -> None:
        """Counts a record that was moved to the dead letters."""
        self._in_a_row += 1
        self._remember(True)

    def _remember(self, invalid: bool) -> None:
        if len(self._recent) == self._recent.maxlen:
            self._invalid -= self._recent[0]
        self._recent.append(invalid)
        self._invalid += invalid


class DeadLetters:
    """Moves a group's invalid records to their topics' dead letters, up to its cap. Threads may share it."""

    def __init__(self, producer: Producer, group: str, count: DeadLetterCount) -> None:
        self._producer = producer
        self._group = group
        self._count = count
        # Held while a record is sent as well: the producer is for one thread at a time, and two threads must not
        # both send the last record that the cap allows.
        self._lock = threading.Lock()

    def valid(self) -> None:
        """Counts a record that was handled."""
        with self._lock:
            self._count.valid()

    def move(self, record: InRecord, error: InvalidEvent) -> None:
        """Moves the record durably. Raises DeadLetterCapReached or the event log's errors; then the record was not moved."""
        with self._lock:
            self._count.check()
            self._producer.send([dead_letter(record, self._group, error)])
            self._count.invalid()
        logger.warning("dead letter from %s: %s", record.topic_partition, error)


def dead_letter(record: InRecord, group: str, error: InvalidEvent) -> OutRecord:
    """Returns the record for `<topic>.dlq`: unchanged, plus headers with the group, the reason and the original position."""
    reasons = {
        "dlq_reason": error.reason,
        "dlq_detail": error.detail[:_DETAIL_CHARS],
        "dlq_group": group,
        "dlq_topic": record.topic,
        "dlq_partition": str(record.partition),
        "dlq_offset": str(record.offset),
        "dlq_time": datetime.now(UTC).isoformat(),
    }
    headers = record.headers + tuple((name, text.encode()) for name, text in reasons.items())
    moved = OutRecord(record.topic + ".dlq", record.key, record.value, headers)
    if record.damage or moved.size() > MAX_RECORD_BYTES:
        # A damaged record has no content; another is too large for the log with the added headers. The original still is at
        # dlq_topic, dlq_partition, dlq_offset.
        return OutRecord(moved.topic, record.key, b"", (*headers, ("dlq_left_out", b"value")))
    return moved
