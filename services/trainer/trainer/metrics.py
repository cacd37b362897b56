"""Every metric of this service."""

from __future__ import annotations

from servicekit.telemetry.metrics import counter, gauge, histogram

JOBS = counter("openledger_trainer_jobs_total", "Jobs that ended, by kind and state.", ("kind", "state"))
"""kind is train or evaluate; state is succeeded, failed or cancelled."""

JOB_SECONDS = histogram(
    "openledger_trainer_job_duration_seconds",
    "Time from a job's submission to Ray to its end, by kind.",
    ("kind",),
    buckets=(10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400),
)
"""Ray's start of workers included."""

JOBS_WAITING = gauge("openledger_trainer_jobs_waiting", "Jobs accepted and not yet submitted to Ray.")
"""Grows when max_running_jobs or Ray is too small, or when Ray is unreachable."""

JOBS_RUNNING = gauge("openledger_trainer_jobs_running", "Jobs that Ray has.")
"""At most max_running_jobs."""

JOB_RETRIES = counter(
    "openledger_trainer_job_retries_total", "Jobs submitted again after Ray lost them, by kind.", ("kind",)
)
"""A lost job resumes from its checkpoint."""

RAY_FAILURES = counter("openledger_trainer_ray_failures_total", "Calls to Ray's Jobs API that failed.")
"""Jobs wait while it is unreachable."""

PROMOTIONS = counter(
    "openledger_trainer_promotions_total",
    "Promotions asked for, by outcome (passed, overridden, rolled_back, refused).",
    ("outcome",),
)
"""Overrides should be rare, and refusals are the gate at work."""
