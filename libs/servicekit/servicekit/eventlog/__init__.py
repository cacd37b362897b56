"""The event log: the only way services tell each other what happened. `base` is the contract; start there."""

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
from servicekit.eventlog.factory import open_event_log

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
    "open_event_log",
]
