"""The event log: services inform each other about events only through it. `base` is the contract: read it first."""

from servicekit.eventlog.base import (
    Consumer,
    EventLog,
    EventLogError,
    EventLogUnavailable,
    Fenced,
    InRecord,
    OutRecord,
    Producer,
    RecordTooLarge,
    Topic,
    TopicPartition,
    UnknownTopic,
)
from servicekit.eventlog.factory import check_event_log_url, open_event_log

__all__ = [
    "Consumer",
    "EventLog",
    "EventLogError",
    "EventLogUnavailable",
    "Fenced",
    "InRecord",
    "OutRecord",
    "Producer",
    "RecordTooLarge",
    "Topic",
    "TopicPartition",
    "UnknownTopic",
    "check_event_log_url",
    "open_event_log",
]
