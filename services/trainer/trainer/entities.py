"""What this service holds: jobs, training runs, model versions, evaluations, overrides; and how states may
change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from identity.names import ModelVersionName
from trainer.assessment import Intent
from trainer.jobs.files import SnapshotInput
from trainer.spec import TrainingSpec


class JobKind(StrEnum):
    """What a job does."""

    TRAIN = "train"
    EVALUATE = "evaluate"


class JobState(StrEnum):
    """Where a job stands, and so the training run or evaluation it works for.

    QUEUED -> RUNNING when Ray has it; RUNNING -> QUEUED when Ray lost it (it goes on from its checkpoint);
    RUNNING -> SUCCEEDED when its result is here, -> FAILED when it left an error or was lost too often;
    QUEUED or RUNNING -> CANCELLED by a person. The last three are final.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


_JOB_MOVES: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class VersionState(StrEnum):
    """Where a model version stands.

    TRAINED -> EVALUATED or BLOCKED by a report; a newer report moves between these two. EVALUATED, BLOCKED or
    RETIRED -> PROMOTED when its gate passed or an approved override stands; PROMOTED -> RETIRED when another
    version of the model is promoted. A report on a promoted or retired version changes its verdict, not its
    state.
    """

    TRAINED = "trained"
    EVALUATED = "evaluated"
    BLOCKED = "blocked"
    PROMOTED = "promoted"
    RETIRED = "retired"


_VERSION_MOVES: Mapping[VersionState, frozenset[VersionState]] = {
    VersionState.TRAINED: frozenset({VersionState.EVALUATED, VersionState.BLOCKED}),
    VersionState.EVALUATED: frozenset({VersionState.BLOCKED, VersionState.PROMOTED}),
    VersionState.BLOCKED: frozenset({VersionState.EVALUATED, VersionState.PROMOTED}),
    VersionState.PROMOTED: frozenset({VersionState.RETIRED}),
    VersionState.RETIRED: frozenset({VersionState.PROMOTED}),
}


class IllegalMove(RuntimeError):
    """A change of state that the tables above do not have: a mistake of this program."""


def check_job_move(before: JobState, after: JobState) -> None:
    """Raises IllegalMove."""
    if after not in _JOB_MOVES[before]:
        raise IllegalMove(f"a job cannot go from {before} to {after}")


def check_version_move(before: VersionState, after: VersionState) -> None:
    """Raises IllegalMove."""
    if after not in _VERSION_MOVES[before]:
        raise IllegalMove(f"a model version cannot go from {before} to {after}")


@dataclass(frozen=True)
class Job:
    """A job of Ray's."""

    id: str
    kind: JobKind
    state: JobState
    at_ray: bool
    """Whether Ray may still be running it."""
    attempts: int
    """How often it was handed to Ray, or is being handed over."""
    error: str
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None

    @property
    def submission(self) -> str:
        """Its newest attempt's id at Ray. Every attempt has its own: Ray, given an id again soon after that job ended,
        may find the old job's dying supervisor under it."""
        return self.id if self.attempts <= 1 else f"{self.id}-{self.attempts}"


@dataclass(frozen=True)
class Run:
    """A training run."""

    job: Job
    model: str
    base_model: str
    base_digest: str
    snapshots: tuple[SnapshotInput, ...]
    spec: TrainingSpec
    origins: Mapping[str, str]
    intent: Intent
    assessment: Mapping[str, Any]
    """The assessment's message as JSON, as it was said before the run."""
    principal: str
    version: int
    """0 until it succeeded."""
    tokens_per_s: float


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a version."""

    job: Job
    version: ModelVersionName
    suites: tuple[Mapping[str, Any], ...]
    report_digest: str
    outcomes_digest: str


@dataclass(frozen=True)
class StateChange:
    """One entry of a version's history."""

    state: VersionState
    time: datetime
    principal: str
    reason: str


@dataclass(frozen=True)
class Version:
    """A model version, with the run that made it."""

    name: ModelVersionName
    digest: str
    run: Run
    adapter_digest: str
    training_manifest_digest: str
    compute: str
    packages: Mapping[str, str]
    report_digest: str
    verdict: str
    """"", pass, failed or inconclusive."""
    state: VersionState
    history: tuple[StateChange, ...]


@dataclass(frozen=True)
class Override:
    """A decision of two people to promote against the gate, for one report."""

    id: str
    version: ModelVersionName
    report_digest: str
    reason: str
    requester: str
    approver: str
    create_time: datetime
    approve_time: datetime | None
