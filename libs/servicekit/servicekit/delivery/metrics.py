"""Every metric of the event path: outbox, consumers, dead letters, write-ahead log. Served with the
service's others.

Labels are bounded: groups, topics, partitions and event types are the platform's own names, and an event
type from outside that no handler knows is counted as "unknown".
"""

from __future__ import annotations

from servicekit.telemetry.metrics import counter, gauge, histogram

_DELAYS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

OUTBOX_PUBLISHED = counter(
    "openledger_outbox_published_total", "Events published from the outbox, repeats included", ["topic"]
)
OUTBOX_FAILURES = counter(
    "openledger_outbox_failures_total", "Attempts to publish that failed and were repeated"
)
OUTBOX_OLDEST_S = gauge(
    "openledger_outbox_oldest_seconds", "Age of the oldest committed event that is not yet published"
)

CONSUMED = counter(
    "openledger_consumer_records_total",
    "Records by outcome: handled, repeated (the inbox knew it), skipped (unknown type, or redriven for another group),"
    " dead_lettered",
    ["group", "topic", "outcome"],
)
RETRIES = counter(
    "openledger_consumer_retries_total",
    "Transient failures after which a partition was paused and tried again",
    ["group", "topic"],
)
HANDLING_S = histogram(
    "openledger_consumer_handling_seconds",
    "Time to handle one event, its transaction included",
    ["group", "topic"],
)
BATCH_RECORDS = histogram(
    "openledger_consumer_batch_records",
    "Events that a batch handler took in one transaction",
    ["group", "topic"],
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500),
)
BATCHES_SPLIT = counter(
    "openledger_consumer_batches_split_total",
    "Batches that failed together and were handled one event at a time",
    ["group", "topic"],
)
DELIVERY_S = histogram(
    "openledger_consumer_delivery_seconds",
    "From the making of an event to its effect",
    ["group", "topic"],
    buckets=_DELAYS_S,
)
DEAD_LETTERS = gauge(
    "openledger_dead_letters_records",
    "Records that were ever moved to a dead-letter topic, including those that were redriven since",
    ["topic"],
)
LAG = gauge(
    "openledger_consumer_lag_records",
    "Records that the group has not yet committed. Every member reports every partition, so that a partition"
    " without an owner is included: take the maximum over members, not the sum",
    ["group", "topic", "partition"],
)
HALTED = gauge(
    "openledger_consumer_halted",
    "1 when too many records were invalid, so that the consumer halted instead of dead-lettering them all: an alarm",
    ["group"],
)

WAL_BYTES = gauge(
    "openledger_wal_unsent_bytes", "Bytes in the write-ahead log that are not yet in the event log"
)
WAL_REFUSED = counter("openledger_wal_refused_total", "Appends refused because the write-ahead log was full")
WAL_SENT = counter("openledger_wal_sent_total", "Records sent from the write-ahead log, repeats included")
WAL_FAILURES = counter("openledger_wal_send_failures_total", "Attempts to send that failed and were repeated")
WAL_DAMAGED = counter(
    "openledger_wal_damaged_total",
    "Damaged positions at which a write-ahead log segment could not be read further: an alarm",
)
