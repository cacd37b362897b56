"""Every metric of this service."""

from __future__ import annotations

from servicekit.metrics import counter, histogram

CONTRIBUTIONS = counter(
    "openledger_datanet_contributions_total",
    "Contributions answered, by outcome (accepted, pending, rejected, withdrawn, already_present) and rule.",
    ("outcome", "rule"),
)
"""A rise of one rule's share is a contributor who went wrong, or a rule that did."""

COMMIT_SECONDS = histogram(
    "openledger_datanet_commit_duration_seconds", "Time from a judged batch to its commit, waiting included."
)
"""Bounds the rate of contributions: batches of one Datanet are written one after the other."""

BATCH_RECORDS = histogram(
    "openledger_datanet_batch_records",
    "Records written by one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200),
)
"""Grows with load: a batch is what arrived while the last one was written."""

SEAL_SECONDS = histogram("openledger_datanet_seal_duration_seconds", "Time to seal a snapshot.")
"""Mostly near-duplicate search, which grows with the number of records."""
