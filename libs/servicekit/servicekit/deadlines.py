"""The deadlines of waits on other processes, in one place. Nothing that a service waits for may keep it forever.

A peer fails in more ways than by closing its connection: its packets vanish, it accepts and never answers, it sends a byte
from time to time. So every client has a deadline for the *whole* call, not only for each read. They add up to less than half
a minute: a client works again 30 s after its peer does. `tests/contract/test_waits_have_deadlines.py` finds calls without one.

| peer | client | deadline of a call |
|---|---|---|
| PostgreSQL | `servicekit.database.engine` | `DatabaseDeadlines`: at the server, and a little longer here |
| Ray, JSON-RPC, signing keys | `servicekit.http_client` | the caller's, `HTTP_S` by default |
| S3 | `servicekit.objects` | `STORE_S`, and longer for large objects |
| trace collector | `servicekit.telemetry.export` | `EXPORT_S`; `LAST_EXPORT_S` when stopping |
| Kafka | `servicekit.eventlog.kafka` | its client's request, delivery and API timeouts |
| other services | `openledger_client.Client` | its policy's, for unary calls and streams; keepalive 20 s |
"""

from __future__ import annotations

import fcntl
import time
from dataclasses import dataclass
from typing import IO, Any

CONNECT_S = 5
"""For a connection to any peer, name resolution aside."""


@dataclass(frozen=True, kw_only=True)
class DatabaseDeadlines:
    """Of one service's PostgreSQL connections."""

    connect_s: int = CONNECT_S
    """libpq takes 2 for a smaller number."""
    statement_s: float = 20.0
    """Longest that the server works on one statement. Migrations have `MIGRATION_S`."""
    answer_s: float = 5.0
    """How much longer the answer may be on its way."""
    ping_s: float = 3.0
    """For the check of a pooled connection before it is used."""
    lock_s: float = 10.0
    """Longest that a statement waits for a lock, advisory ones included; then the transaction is a conflict and runs again."""
    idle_in_transaction_s: float = 25.0
    """After so long without a statement the server ends a transaction: its client has vanished, and others wait for its locks."""
    pool_s: float = 10.0
    """Longest wait for a pooled connection."""


LEADER_IDLE_S = 20.0
"""After so long without a statement the server ends the session that holds the outbox's lock; it has one every half second."""
MIGRATION_S = 3600.0
"""For each statement of a migration, and for another process that migrates."""

KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 10, 5, 3
"""TCP keepalive, at both ends: a peer that has vanished is noticed after 25 s on an idle connection."""
USER_TIMEOUT_S = 15
"""Longest that sent bytes may stay unacknowledged (TCP_USER_TIMEOUT), at both ends."""

HTTP_S = 10.0
"""For a whole HTTP exchange: connect, TLS, request, headers and body."""

STORE_S = 20.0
"""For one request to the object store."""
STORE_BYTES_PER_S = 1 << 20
"""A transfer may take longer, by its size at this rate."""

EXPORT_S = 5.0
"""For one batch of spans, retries included."""
LAST_EXPORT_S = 1.5
"""For the spans that are left when a process stops. What is not sent by then is lost: it is telemetry."""

FILE_LOCK_S = 60.0
"""For a file that another process of this machine has locked."""

_LOCK_POLL_S = 0.02


def postgresql_arguments(limits: DatabaseDeadlines) -> dict[str, Any]:
    """Returns libpq's parameters of a connection. They are defaults: those in a database URL win."""
    return {
        "connect_timeout": limits.connect_s,
        "keepalives": 1,
        "keepalives_idle": KEEPALIVE_IDLE_S,
        "keepalives_interval": KEEPALIVE_INTERVAL_S,
        "keepalives_count": KEEPALIVE_COUNT,
        "tcp_user_timeout": USER_TIMEOUT_S * 1000,
    }


def postgresql_session(limits: DatabaseDeadlines) -> dict[str, str]:
    """Returns the parameters of a session at the server. They bound what a vanished client leaves behind."""
    return {
        "statement_timeout": milliseconds(limits.statement_s),
        "lock_timeout": milliseconds(limits.lock_s),
        "idle_in_transaction_session_timeout": milliseconds(limits.idle_in_transaction_s),
        "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
        "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
        "tcp_keepalives_count": str(KEEPALIVE_COUNT),
        "tcp_user_timeout": str(USER_TIMEOUT_S * 1000),
    }


def milliseconds(seconds: float) -> str:
    """Returns a time as PostgreSQL's parameters take it."""
    return str(int(seconds * 1000))


def lock_file(file: IO[Any], within_s: float = FILE_LOCK_S, kind: int = fcntl.LOCK_EX) -> None:
    """Takes the lock of an open file, `fcntl.LOCK_EX` or `LOCK_SH`. The kernel releases it when the process dies.

    Raises:
        TimeoutError: another process has kept it for the whole time.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(f"another process has locked {file.name} for {within_s:.0f} s") from None
            time.sleep(_LOCK_POLL_S)  # a file lock has no wait with a limit
