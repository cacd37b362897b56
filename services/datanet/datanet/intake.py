"""Writes contributions to the database, batch by batch.

A batch is judged without a lock and written in one transaction with its events; only then are its results returned.
So an acknowledged record is durable, and a client can repeat whatever an interrupted stream did not acknowledge.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import events, metrics, store
from datanet.access import check_contributor
from datanet.decision import Decision, Judged, Result, decide
from datanet.definition import Datanet
from datanet.entities import Contributor, RecordState
from datanet.evaluation_items import EvaluationItemsCache
from datanet.quality import Rules
from datanet.registry import find_contributor, find_datanet
from identity.names import ContributorName, DatanetName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.errors import ResourceExhausted


class Intake:
    """Opens writers for contributors."""

    def __init__(self, engine: Engine, evaluation_items: EvaluationItemsCache, max_rejected: int) -> None:
        self._engine = engine
        self._evaluation_items = evaluation_items
        self._max_rejected = max_rejected
        # Batches of one Datanet conflict, and the database would detect it late: they take turns here.
        self._turns: dict[str, threading.Lock] = {}

    def open(self, principal: Principal, name: ContributorName) -> ContributionWriter:
        """Returns the writer of one contributor.

        Raises NotFound of the Datanet or the contributor, PermissionDenied unless the principal is the contributor.
        """
        with reading(self._engine) as session:
            contributor = find_contributor(session, name)
            datanet = find_datanet(session, DatanetName(name.datanet))
        check_contributor(principal, contributor)
        return ContributionWriter(
            engine=self._engine,
            turn=self._turns.setdefault(datanet.name, threading.Lock()),
            datanet=datanet,
            name=name,
            rules=self._evaluation_items.rules(datanet),
            max_rejected=self._max_rejected,
        )


class ContributionWriter:
    """Writes one contributor's records to one Datanet. Its batches must not overlap."""

    def __init__(
        self,
        *,
        engine: Engine,
        turn: threading.Lock,
        datanet: Datanet,
        name: ContributorName,
        rules: Rules,
        max_rejected: int,
    ) -> None:
        self._engine = engine
        self._turn = turn
        self._datanet = datanet
        self._name = name
        self._rules = rules
        self._max_rejected = max_rejected

    def write(self, batch: Sequence[bytes]) -> list[Result]:
        """Judges and stores contributions; returns one result each, in order, once all of them are durable.

        No content raises. Raises, with nothing stored, ResourceExhausted if the contributor has too many rejected records, and
        Aborted if other processes keep winning the transaction.
        """
        return self.store(self.judge(batch))

    def judge(
        self, batch: Sequence[bytes], check_cancelled: Callable[[], None] = lambda: None
    ) -> list[Judged]:
        """Returns the rules' verdicts. `check_cancelled` is called before each record, and raises if the caller is gone."""
        judged = []
        for data in batch:
            check_cancelled()
            judged.append(Judged(data, self._rules.judge(data)))
        return judged

    def store(self, judged: Sequence[Judged]) -> list[Result]:
        """Stores judged contributions; returns and raises as `write`."""
        with self._turn, metrics.COMMIT_SECONDS.time():
            decision = run_in_transaction(self._engine, lambda session: self._write(session, judged))
        for result in decision.results:
            outcome = "already_present" if result.already_present else result.state.name.lower()
            metrics.CONTRIBUTIONS.labels(outcome, result.rule).inc()
        return decision.results

    def _write(self, session: Session, judged: Sequence[Judged]) -> Decision:
        contributor = find_contributor(session, self._name)
        self._check_rejected(contributor)
        digests = {each.digest for each in judged}
        existing = store.records.by_digest(session, DatanetName(self._name.datanet), digests)
        decision = decide(judged, existing, datanet=self._datanet, contributor=contributor, now=utc_now())
        store.records.remove(session, [row.order for row in decision.replaced])
        store.records.add(session, decision.added)
        if decision.added or decision.replaced:
            store.contributors.count(
                session,
                self._name,
                accepted=decision.change(RecordState.ACCEPTED),
                pending=decision.change(RecordState.PENDING),
                rejected=decision.change(RecordState.REJECTED),
            )
        events.contributions_recorded(session, decision.added)
        return decision

    def _check_rejected(self, contributor: Contributor) -> None:
        """A rejected record takes space too. Without this limit a contributor could fill the disk with records of no value."""
        if contributor.rejected_count >= self._max_rejected:
            message = (
                f"{contributor.name} has {contributor.rejected_count} rejected records; "
                f"at most {self._max_rejected} are stored. "
                "Ask the operator to raise OPENLEDGER_DATANET_MAX_REJECTED_PER_CONTRIBUTOR"
            )
            raise ResourceExhausted("REJECTED_RECORDS", message)
