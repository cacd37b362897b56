"""What a platform has promised to its callers: records it acknowledged, answers it said were finished."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from openledger.inference.v1 import inference_pb2

from openledger_cli.reconcile.answers import recorded
from openledger_cli.reconcile.events import records
from openledger_cli.reconcile.places import Places
from openledger_cli.reconcile.rows import rows_of
from servicekit.eventlog import open_event_log
from servicekit.topics import INFERENCE_COMPLETED_V1


@dataclass
class Promises:
    """Kept by the callers, outside the platform. Threads may write at once."""

    records: set[str] = field(default_factory=set)
    """Digests of records whose acceptance was acknowledged."""
    answers: set[str] = field(default_factory=set)
    """Inferences that were told to be finished."""
    snapshots: set[str] = field(default_factory=set)
    """Names of snapshots that were sealed."""
    cut: list[str] = field(default_factory=list)
    """Calls that had begun and ended in an error, one line each."""
    refused: list[str] = field(default_factory=list)
    """Calls that ended before anything had begun, one line each: sent again, nothing was promised."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def record(self, digest: str) -> None:
        """A record was acknowledged."""
        with self._lock:
            self.records.add(digest)

    def answer(self, inference: str) -> None:
        """An answer was finished."""
        with self._lock:
            self.answers.add(inference)

    def snapshot(self, name: str) -> None:
        """A snapshot was sealed."""
        with self._lock:
            self.snapshots.add(name)

    def failed(self, begun: bool, what: str) -> None:
        """A call ended in an error."""
        with self._lock:
            (self.cut if begun else self.refused).append(what)

    def broken(self, places: Places) -> list[str]:
        """Promises that what is written down does not keep; each is one acknowledged thing that failed after all."""
        with self._lock:
            records_, answers, snapshots = set(self.records), set(self.answers), set(self.snapshots)
        missing = (
            records_ - _accepted(places),
            answers - _answers(places),
            snapshots - _snapshots(places),
        )
        return [each for kind in missing for each in sorted(kind)]


def _accepted(places: Places) -> set[str]:
    with rows_of("datanet", places.databases["datanet"]) as rows:
        return {row.digest for row in rows.all("SELECT digest FROM records WHERE state = 2")}


def _snapshots(places: Places) -> set[str]:
    with rows_of("datanet", places.databases["datanet"]) as rows:
        sealed = rows.all("SELECT datanet, number FROM snapshots")
    return {f"datanets/{row.datanet}/snapshots/{row.number}" for row in sealed}


def _answers(places: Places) -> set[str]:
    """In the write-ahead log or, when they were sent from there, in the event log."""
    found = set(recorded(places.answer_log))
    log = open_event_log(places.event_log)
    try:
        for record in records(log, INFERENCE_COMPLETED_V1.name):
            found.add(inference_pb2.InferenceCompleted.FromString(record.value).inference)
    finally:
        log.close()
    return found
