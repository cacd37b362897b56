"""From the setting `event_log` to an event log."""

from __future__ import annotations

from pathlib import Path

from servicekit.eventlog.base import EventLog


def open_event_log(url: str) -> EventLog:
    """Open `embedded:<path of a file>` or `kafka://host:port[,host:port]`. Raises ValueError for anything
    else.

    Opening Kafka does not connect yet: a broker that is away shows as EventLogUnavailable in use.
    """
    if url.startswith("embedded:") and (path := url.removeprefix("embedded:")):
        from servicekit.eventlog.embedded import EmbeddedEventLog

        return EmbeddedEventLog(Path(path))
    if url.startswith("kafka://") and (servers := url.removeprefix("kafka://").rstrip("/")):
        from servicekit.eventlog.kafka import KafkaEventLog

        return KafkaEventLog(servers.split(","))
    raise ValueError(f"event_log {url!r} is neither 'embedded:<path>' nor 'kafka://host:port[,host:port]'")
