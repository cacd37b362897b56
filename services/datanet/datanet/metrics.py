"""Every metric of this service."""

from __future__ import annotations

from servicekit.telemetry.metrics import counter, histogram

CONTRIBUTIONS = counter(
    "openledger_datanet_contributions_total",
    "Contributions processed, by outcome (accepted, pending, rejected, withdrawn, already_present) and rule.",
    ("outcome", "rule"),
)
"""A rise of one rule's share means that a contributor sends wrong records, or that the rule is wrong."""

COMMIT_SECONDS = histogram(
    "openledger_datanet_commit_duration_seconds",
    "Time from judging a batch to its commit, including the wait for its turn.",
)
"""Limits the rate of contributions: batches of one Datanet are written one after the other."""

BATCH_RECORDS = histogram(
    "openledger_datanet_batch_records",
    "Records written in one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200),
)
"""Grows with load: a batch is what arrived while the previous one was written."""

SEAL_SECONDS = histogram(
    "openledger_datanet_seal_duration_seconds", "Time of the attempt that sealed a snapshot."
)
"""Mostly near-duplicate search, whose time grows with the number of records."""

SEALS = counter(
    "openledger_datanet_seal_attempts_total",
    "Attempts to seal, by how they ended: succeeded, failed, interrupted by an outage.",
    ("outcome",),
)
"""A rise of interrupted ones means that the database or the object store does not answer."""
