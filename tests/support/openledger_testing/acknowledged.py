"""What a platform has promised to its callers: records it acknowledged, answers it said were finished."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from openledger.audit.v1.audit_pb2 import LoggedEvent, Record, SealedSnapshot
from openledger.datanet.v1.datanet_pb2 import RECORD_STATE_ACCEPTED
from openledger.inference.v1 import inference_pb2

from openledger_client.services import DATANET, INFERENCE
from openledger_ops.reconcile.events import records
from openledger_ops.reconcile.facts import Facts, read_all
from openledger_ops.reconcile.reconciliation import Sources
from servicekit.eventlog import open_event_log
from servicekit.eventlog.topics import INFERENCE_COMPLETED_V1


@dataclass
class Promises:
    """Kept by the callers, outside the platform. Threads may write at once."""

    records: set[str] = field(default_factory=set)
    """Digests of records whose acceptance was acknowledged."""
    answers: set[str] = field(default_factory=set)
    """Inferences that were reported as finished."""
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

    def broken(self, sources: Sources) -> list[str]:
        """Promises that are not kept; each is one acknowledged thing that is nowhere."""
        with self._lock:
            records_, answers, snapshots = set(self.records), set(self.answers), set(self.snapshots)
        facts = read_all(sources.client, {})
        missing = (
            records_ - {r.digest for r in facts[DATANET].of(Record) if r.state == RECORD_STATE_ACCEPTED},
            answers - _answers(facts[INFERENCE], sources.event_log),
            snapshots - {snapshot.name for snapshot in facts[DATANET].of(SealedSnapshot)},
        )
        return [each for kind in missing for each in sorted(kind)]


def _answers(inference: Facts, event_log: str) -> set[str]:
    """In the write-ahead log or, when they were sent from there, in the event log."""
    found = {each.subject for each in inference.of(LoggedEvent)}
    log = open_event_log(event_log)
    try:
        for record in records(log, INFERENCE_COMPLETED_V1.name):
            found.add(inference_pb2.InferenceCompleted.FromString(record.value).inference)
    finally:
        log.close()
    return found
