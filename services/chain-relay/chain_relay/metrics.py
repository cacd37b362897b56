"""Every metric of the relay."""

from __future__ import annotations

from servicekit.telemetry.metrics import counter, gauge, histogram

_GAS = (20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000, 100_000, 150_000, 250_000)
_GAS_PER_EVENT = (1, 2, 5, 10, 20, 50, 100, 500, 1_000, 5_000, 10_000, 30_000, 60_000)
_EVENTS = (1, 2, 5, 10, 50, 100, 500, 1_000, 5_000, 10_000, 100_000)
_CHAIN_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1_800, 3_600)

ANSWERS = counter("openledger_relay_answers_total", "Attributed answers written to the journal.")
"""Rate of events that enter settlement."""

WAITING = gauge("openledger_relay_waiting_events", "Answers that are in no batch yet.")
"""Grows without bound when sealing stops."""

OLDEST_WAITING_SECONDS = gauge(
    "openledger_relay_oldest_waiting_seconds", "Age of the oldest answer in no batch."
)
"""Stays below batch_max_age_s when all is well."""

UNCOMMITTED = gauge(
    "openledger_relay_uncommitted_batches", "Sealed batches that are not in the latest block."
)
"""Grows when the chain does not take commitments."""

BATCH_EVENTS = histogram("openledger_relay_batch_events", "Events in a batch when sealed.", buckets=_EVENTS)
"""Small batches cost more gas an event."""

BATCH_STATE_SECONDS = histogram(
    "openledger_relay_batch_state_seconds",
    "Time from sealing to a state.",
    ("state",),
    buckets=_CHAIN_SECONDS,
)
"""How long until committed, settled, final."""

COMMIT_GAS = histogram("openledger_relay_commit_gas", "Gas of a commitment.", buckets=_GAS)
"""Independent of the number of events."""

GAS_PER_EVENT = histogram(
    "openledger_relay_event_gas", "Gas of a commitment divided by its events.", buckets=_GAS_PER_EVENT
)
"""To be compared with openledger_relay_baseline_gas."""

BASELINE_GAS = gauge(
    "openledger_relay_baseline_gas", "Estimated gas of one event in a transaction of its own."
)
"""What batching is compared with."""

REORGS = counter("openledger_relay_reorgs_total", "Batches that a reorg moved back.")
"""Expected now and then for committed batches, never for final ones."""

TRANSACTIONS = counter(
    "openledger_relay_transactions_total", "Signed transactions by what became of them.", ("outcome",)
)
"""Outcomes: signed, succeeded, reverted, replaced, bumped."""

CHAIN_SEEN = gauge(
    "openledger_relay_chain_seen_timestamp_seconds", "When the chain was last read with success."
)
"""Unix time, so that its age grows while the node is unreachable."""

CHAIN_HEAD = gauge(
    "openledger_relay_chain_head_timestamp_seconds", "Time of the chain's latest block when last seen."
)
"""An old head is a node that has stopped following its chain, or a chain that has stopped."""

CHAIN_FINALIZED = gauge(
    "openledger_relay_chain_finalized_timestamp_seconds",
    "Time of the chain's finalized block when last seen; 0 for none.",
)
"""Batches become final no faster than this moves."""

CHAIN_FAILURES = counter(
    "openledger_relay_chain_failures_total", "Steps that failed because the node did not answer."
)
"""A node that is unreachable, or answers wrongly."""

FEE_CAPPED = counter(
    "openledger_relay_fee_capped_total", "Times that the chain asked more than max_fee_gwei."
)
"""Grows while the relay waits for cheaper blocks."""

SIGNER_BALANCE = gauge("openledger_relay_signer_balance_ether", "What the signer can pay gas with.")
"""Alert before it is empty."""
