"""What a service declares for its audit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from openledger.audit.v1.audit_pb2 import Consumer, Fact
from sqlalchemy.orm import Session

Facts = Callable[[Session], Iterable[Fact]]
"""Yields the facts of a service's tables. The session reads one snapshot. Queries stream (`yield_per`)."""


def _no_files() -> Iterable[Fact]:
    return ()


def _no_consumers() -> Sequence[Consumer]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Everything about one service that can be audited."""

    service: str
    """Its name, as in its address file."""
    facts: Facts
    """The contents of its tables."""
    files: Callable[[], Iterable[Fact]] = field(default=_no_files)
    """What it keeps outside its database, for example a write-ahead log. Read before the snapshot is taken, so that an
    event that is sent in the meantime is found in the event log."""
    consumers: Callable[[], Sequence[Consumer]] = field(default=_no_consumers)
    """The consumer groups that it runs."""
