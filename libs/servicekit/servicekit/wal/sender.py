"""Sends the records of a write-ahead log to the event log."""

from __future__ import annotations

import json
import logging
import struct
import threading
import time
from contextlib import suppress
from functools import partial

from tenacity import RetryError

from servicekit.delivery import metrics as delivery_metrics
from servicekit.eventlog.base import MAX_RECORD_BYTES, EventLog, OutRecord, Producer, check_sizes
from servicekit.eventlog.existing_topics import ExistingTopics
from servicekit.heartbeats import Heartbeat
from servicekit.retries import until_stopped
from servicekit.telemetry.spans import sending
from servicekit.wal.files import Position, Wal

logger = logging.getLogger(__name__)

_WAIT_S = 0.5
_LAST_DRAIN_S = 5.0
_ENVELOPE = struct.Struct("<I")  # length of the JSON envelope before the value


def pack(record: OutRecord) -> bytes:
    """Returns the record as bytes for `Wal.append`. Raises RecordTooLarge for a record that the event log would refuse."""
    check_sizes([record])
    envelope = json.dumps(
        [record.topic, record.key.decode("latin-1"), [(n, v.decode("latin-1")) for n, v in record.headers]]
    ).encode()
    return _ENVELOPE.pack(len(envelope)) + envelope + record.value


def unpack(payload: bytes) -> OutRecord:
    """Returns the record that was packed. Raises ValueError."""
    try:
        (length,) = _ENVELOPE.unpack_from(payload)
        value_at = _ENVELOPE.size + length
        topic, key, headers = json.loads(payload[_ENVELOPE.size : value_at])
        pairs = tuple((name, value.encode("latin-1")) for name, value in headers)
        return OutRecord(topic, key.encode("latin-1"), payload[value_at:], pairs)
    except (struct.error, TypeError, AttributeError) as error:
        raise ValueError(f"not a packed record: {error}") from error


class WalSender:
    """Sends the records of a write-ahead log in order, and stores its position. One thread runs it."""

    def __init__(self, wal: Wal, event_log: EventLog) -> None:
        self._wal = wal
        self._event_log = event_log
        self._topics = ExistingTopics(event_log)

    def run(self, stop: threading.Event) -> None:
        """Sends until `stop` is set, then the rest for at most a few seconds. Never raises: it retries."""
        producer = self._event_log.producer()
        position = self._wal.position()
        heartbeat = Heartbeat("answer-sender")
        retrying = until_stopped(stop, partial(_failed, heartbeat))
        try:
            with suppress(RetryError):  # stopped while the event log was down
                while not stop.is_set():
                    sent, position = retrying(heartbeat.watched(self._send_some), producer, position)
                    if not sent:
                        self._wal.wait(_WAIT_S)
            self._send_rest(producer, position)
        finally:
            heartbeat.close()
            producer.close()

    def _send_rest(self, producer: Producer, position: Position) -> None:
        deadline = time.monotonic() + _LAST_DRAIN_S
        try:
            while time.monotonic() < deadline:
                sent, position = self._send_some(producer, position)
                if not sent:
                    return
        except Exception:
            # Nothing is lost: the next start sends it.
            logger.exception("sending from the write-ahead log failed while stopping")

    def _send_some(self, producer: Producer, position: Position) -> tuple[int, Position]:
        """Sends the records of one read, and returns their number and the position after them."""
        payloads, after = self._wal.read(position)
        if payloads:
            records = self._unpack(payloads)
            with (
                self._topics.ensured({record.topic for record in records}),
                sending(self._event_log.system, records),
            ):
                producer.send(records)
            delivery_metrics.WAL_SENT.inc(len(records))
            # After a kill before the next line these are sent again, with the same ce_id: at least once.
            self._wal.release(after)
        return len(payloads), after

    def _unpack(self, payloads: list[bytes]) -> list[OutRecord]:
        """Returns the records. Logs and omits one that can never be sent, so that it does not block those behind it."""
        records: list[OutRecord] = []
        for payload in payloads:
            try:
                record = unpack(payload)
                if record.size() > MAX_RECORD_BYTES:
                    raise ValueError(f"{record.size()} bytes exceed the limit")
            except ValueError:
                delivery_metrics.WAL_DAMAGED.inc()
                logger.exception("the write-ahead log has an entry that is not a valid record")
            else:
                records.append(record)
        return records


def _failed(heartbeat: Heartbeat, error: Exception, failures: int, again_in_s: float) -> None:
    delivery_metrics.WAL_FAILURES.inc()
    heartbeat.failed(error)
    logger.error(
        "sending from the write-ahead log failed %d times, again in %.1f s",
        failures,
        again_in_s,
        exc_info=error,
    )
