"""A seal operation: the sealing of one snapshot, from the request to its end.

    PENDING -> RUNNING      a process has a free thread, and no other operation of the Datanet runs
    RUNNING -> SUCCEEDED    the snapshot, its event and this state are one transaction
    RUNNING -> FAILED       sealing is impossible (no records, damaged ones), or was tried MAX_ATTEMPTS times
    RUNNING -> PENDING      its process stops, died, or lost the database or the object store: another attempt continues it
    PENDING, RUNNING -> CANCELLED   by a client; the thread that runs it notices within seconds

A process runs an operation under a claim: its own id and the number of the attempt. Whoever changes a running operation shows
the claim, so a process that lost its claim changes nothing more. A claim is lost when its process shows no sign of life for
LEASE_S; a process that cannot show one stops by itself after half of that time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from datanet.snapshot import SplitRule
from identity.names import SealOperationName

LEASE_S = 30.0
"""How long a running operation may show no sign of life before another process continues it."""

MAX_ATTEMPTS = 5
"""Attempts that end with the death of the process, or with an outage, before the operation fails: one that kills each process
that runs it must not run forever."""

MAX_WAITING = 10
"""Operations of one Datanet that wait at a time."""


class OperationState(IntEnum):
    """State of an operation. The numbers are those of the API's enum."""

    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5

    @property
    def final(self) -> bool:
        """Whether it never changes again."""
        return self not in (OperationState.PENDING, OperationState.RUNNING)


@dataclass(frozen=True)
class Claim:
    """The right of one attempt to change an operation."""

    operation: str
    """ULID."""
    worker: str
    """Of the process: `work_folders.WorkFolders.worker`."""
    attempt: int


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far an operation is."""

    stage: str = ""
    """"" before the first one."""
    done: int = 0
    total: int = 0
    """0: unknown."""
    eta_s: float = 0.0
    """Estimate for all stages that are left; 0: unknown."""


@dataclass(frozen=True, kw_only=True)
class SealOperation:
    """An operation as it is stored."""

    name: SealOperationName
    principal: str
    rule: SplitRule
    state: OperationState
    position: Position
    queue_position: int
    """Place among all operations that wait, from 1; 0 unless it is pending."""
    snapshot: int
    """0 until it has succeeded."""
    error: bytes
    """The `google.rpc.Status` of a failure; empty otherwise."""
    attempts: int
    worker: str
    """Who runs it; "" unless it is running."""
    version: int
    """Grows with every change: a sign of life of its worker."""
    create_time: datetime
    start_time: datetime | None
    end_time: datetime | None

    @property
    def claim(self) -> Claim:
        """The claim of the attempt that runs it."""
        return Claim(self.name.operation, self.worker, self.attempts)
