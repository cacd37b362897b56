"""What this service holds: jobs, training runs, model versions, evaluations, overrides, promotions; and how states may
change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from evalstats.policy import GatePolicy
from identity.names import GatePolicyVersionName, ModelVersionName
from trainer.assessment import Assessment, Intent
from trainer.contract.files import SnapshotInput
from trainer.contract.spec import TrainingSpec


class JobKind(StrEnum):
    """What a job does."""

    TRAIN = "train"
    EVALUATE = "evaluate"


class JobState(StrEnum):
    """Where a job stands, and so the training run or evaluation it works for.

    QUEUED -> RUNNING when Ray has accepted it; RUNNING -> QUEUED when Ray lost it (it resumes from its checkpoint);
    RUNNING -> SUCCEEDED when its result exists, -> FAILED when it left an error or was lost too often;
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


class OverrideState(StrEnum):
    """Where an override stands: PENDING -> APPROVED when enough people consented, -> REFUSED by one. The last two are
    final."""

    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"


class GatePolicyState(StrEnum):
    """Where a version of a gate policy stands: ACTIVE at once, or PENDING -> ACTIVE when enough people consented, ->
    REFUSED by one. ACTIVE and REFUSED are final; the newest active version is in force."""

    PENDING = "pending"
    ACTIVE = "active"
    REFUSED = "refused"


class PromotionKind(StrEnum):
    """Why a version is served."""

    PASSED = "passed"
    OVERRIDDEN = "overridden"
    ROLLED_BACK = "rolled_back"
    TAKEN_OVER = "taken_over"
    """Promoted before the history was kept."""


class IllegalMove(RuntimeError):
    """A change of state that the tables above do not have: a bug in this service."""


def check_job_move(before: JobState, after: JobState) -> None:
    """Raises IllegalMove."""
    if after not in _JOB_MOVES[before]:
        raise IllegalMove(f"a job cannot go from {before} to {after}")


def check_version_move(before: VersionState, after: VersionState) -> None:
    """Raises IllegalMove."""
    if after not in _VERSION_MOVES[before]:
        raise IllegalMove(f"a model version cannot go from {before} to {after}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that runs at Ray."""

    id: str
    kind: JobKind
    state: JobState
    at_ray: bool
    """Whether Ray may still be running it."""
    attempts: int
    """How often it was submitted to Ray, or is being submitted."""
    error: str
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None

    @property
    def submission(self) -> str:
        """The newest attempt's id at Ray. Every attempt has its own: if an id is used again soon after its job ended, Ray
        may find the old job's supervisor under it, which is about to end."""
        return self.id if self.attempts <= 1 else f"{self.id}-{self.attempts}"


@dataclass(frozen=True, kw_only=True)
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
    assessment: Assessment
    """As it was before the run."""
    principal: str
    version: int
    """0 until it succeeded."""
    tokens_per_s: float
    gate_policy: GatePolicyVersionName | None = None
    """None, as the next is empty, for a run of a release without gate policies."""
    policy_digest: str = ""
    """Of the effective policy: what the intent and earlier runs made of `gate_policy`."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation of a version."""

    job: Job
    version: ModelVersionName
    suites: tuple[Mapping[str, Any], ...]
    report_digest: str
    outcomes_digest: str
    policy_digest: str
    """Of the effective policy that it judges by; "" in a release without gate policies."""
    policy_source: str
    """Of the policy version that the effective one was made from."""
    verdict: str


@dataclass(frozen=True)
class StateChange:
    """One entry of a version's history."""

    state: VersionState
    time: datetime
    principal: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FailedReport:
    """A report that failed. It prevents promotion until an approved override names it."""

    report_digest: str
    policy_digest: str
    override: str
    """Id of the override that lifts it; "" while none does."""


@dataclass(frozen=True, kw_only=True)
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
    """The report that stands for it, see `trainer.store.versions.set_report`."""
    verdict: str
    """"", pass, failed, inconclusive or incomplete."""
    policy_digest: str
    """Of the policy by which that report was judged."""
    failed_reports: tuple[FailedReport, ...]
    state: VersionState
    history: tuple[StateChange, ...]


@dataclass(frozen=True)
class Approval:
    """The consent of one person."""

    principal: str
    time: datetime


@dataclass(frozen=True, kw_only=True)
class Override:
    """A decision of several people to promote against the gate, for one report."""

    id: str
    version: ModelVersionName
    report_digest: str
    """The report that it is about."""
    failed_reports: tuple[str, ...]
    """All failed reports of the version that it lifts."""
    reason: str
    requester: str
    people: int
    """Distinct people that it needs, the requester included."""
    approvals: tuple[Approval, ...]
    state: OverrideState
    approve_time: datetime | None
    refuser: str
    refuse_reason: str
    refuse_time: datetime | None
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """One change of what a model serves; see `trainer.promotion_history`."""

    model: str
    number: int
    """From 1, without gaps."""
    previous_hash: str
    """Of the entry before; "" for the first."""
    version: ModelVersionName
    retired: ModelVersionName | None
    kind: PromotionKind
    report_digest: str
    verdict: str
    policy_digest: str
    override: str
    """Its id; "" without one."""
    back_to: int
    """Number of the entry that a rollback goes back to; 0 for every other kind."""
    principal: str
    people: tuple[str, ...]
    """Everyone who decided."""
    reason: str
    time: datetime


@dataclass(frozen=True, kw_only=True)
class GatePolicyVersion:
    """One version of a gate policy, with its decision."""

    name: GatePolicyVersionName
    policy: GatePolicy
    state: GatePolicyState
    requester: str
    reason: str
    loosens: tuple[str, ...]
    """In what it is looser than what was active when it was created."""
    people: int
    """Distinct people that it needs, the requester included."""
    approvals: tuple[Approval, ...]
    refuser: str
    refuse_reason: str
    create_time: datetime
    decide_time: datetime | None
