"""What runs jobs: the contract, in words and types. Ray is one runner (`ray_jobs`); tests have a smaller one.

A job is named by an id that its caller chose. Submitting a known id changes nothing, so a caller that died
between submitting and noting it may submit again. A runner may forget jobs when it restarts; it says so
(`UNKNOWN`), and it is the caller who decides whether to submit again. A runner never retries by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol


class JobStatus(StrEnum):
    """Where a runner says a job is."""

    UNKNOWN = "unknown"
    """Never submitted, or forgotten."""
    RUNNING = "running"
    """Or waiting to."""
    SUCCEEDED = "succeeded"
    """The process ended with code 0."""
    FAILED = "failed"
    """It ended otherwise, or its node was lost."""
    STOPPED = "stopped"


class RunnerUnavailable(Exception):
    """The runner does not answer now; nothing is known of its jobs."""


class JobRunner(Protocol):
    """All methods raise RunnerUnavailable."""

    def submit(self, id_: str, command: Sequence[str]) -> None:
        """Starts a job; does nothing when the id is known."""

    def status(self, id_: str) -> JobStatus:
        """Where the job is."""

    def stop(self, id_: str) -> None:
        """Asks a job to end; does nothing when it has ended or is not known."""

    def cores(self) -> int:
        """How many processor cores its machines have together."""


def cores(runner: JobRunner) -> int | None:
    """Returns a runner's cores; None while it does not answer: an assessment waits for no outage."""
    try:
        return runner.cores()
    except RunnerUnavailable:
        return None
