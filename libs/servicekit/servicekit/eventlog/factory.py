"""Opens the event log that the setting `event_log` names."""

from __future__ import annotations

import re
from pathlib import Path

from servicekit.eventlog.base import EventLog

_SERVER = r"(\[[0-9a-fA-F:.]+\]|[^\s,/:\[\]]+)(:\d{1,5})?"
_URL = re.compile(rf"embedded:[^\0]+|kafka://{_SERVER}(,{_SERVER})*/*")


def open_event_log(url: str) -> EventLog:
    """Returns the event log at `embedded:<path of a file>` or `kafka://host:port[,host:port]`.

    Opening Kafka does not connect yet: when the broker is down, the first use raises EventLogUnavailable.

    Raises:
        ValueError: the URL has neither form.
    """
    check_event_log_url(url)
    if url.startswith("embedded:"):
        from servicekit.eventlog.embedded import EmbeddedEventLog

        return EmbeddedEventLog(Path(url.removeprefix("embedded:")))
    from servicekit.eventlog.kafka import KafkaEventLog

    return KafkaEventLog(url.removeprefix("kafka://").rstrip("/").split(","))


def check_event_log_url(url: str) -> None:
    """Raises ValueError when `open_event_log` does not take the URL; opens nothing."""
    if _URL.fullmatch(url) is None:
        raise ValueError(
            f"event_log {url!r} is neither 'embedded:<path>' nor 'kafka://host:port[,host:port]'"
        )
