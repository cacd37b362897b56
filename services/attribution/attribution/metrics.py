"""Every metric of the attribution service."""

from __future__ import annotations

from servicekit.telemetry.metrics import counter, gauge, histogram

_RECEIVED = counter("openledger_attribution_answers_received_total", "Answers received.")
_SCORED = counter(
    "openledger_attribution_answers_scored_total",
    "Answers scored, by whether anything was attributed.",
    ("outcome",),
)
_SCORING = histogram(
    "openledger_attribution_scoring_seconds", "Time to score one answer, its gradient included."
)
_SCORING_FAILURES = counter(
    "openledger_attribution_scoring_failures_total",
    "Attempts to score an answer that failed and will be repeated.",
)
_PENDING = gauge("openledger_attribution_answers_pending", "Answers received and not scored yet.")
_UNATTRIBUTED = histogram(
    "openledger_attribution_unattributed_ratio",
    "Unattributed part of an answer.",
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.9999999, 1.0),
)
_INDEXES = counter("openledger_attribution_indexes_built_total", "Indexes built, by outcome.", ("outcome",))
_INDEXING = histogram(
    "openledger_attribution_indexing_seconds",
    "Time to build an index, since the build was last started.",
    buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600),
)
_INDEXED = counter("openledger_attribution_records_indexed_total", "Records whose gradient was computed.")


def answers_received(answers: int) -> None:
    """Counts new answers."""
    _RECEIVED.inc(answers)


def answer_scored(unattributed_ppm: int, seconds: float) -> None:
    """Counts an answer whose record was committed."""
    _SCORED.labels("attributed" if unattributed_ppm < 1_000_000 else "unattributed").inc()
    _UNATTRIBUTED.observe(unattributed_ppm / 1_000_000)
    _SCORING.observe(seconds)


def scoring_failed() -> None:
    """Counts a failed attempt to score an answer."""
    _SCORING_FAILURES.inc()


def pending(answers: int) -> None:
    """Sets the length of the queue."""
    _PENDING.set(answers)


def records_indexed(records: int) -> None:
    """Counts a batch of gradients that is on disk."""
    _INDEXED.inc(records)


def index_built(outcome: str, seconds: float) -> None:
    """Counts a build that ended: ready, failed or stopped."""
    _INDEXES.labels(outcome).inc()
    _INDEXING.observe(seconds)
