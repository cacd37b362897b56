"""Contributions on their way into the database, batch by batch.

A batch is judged without a lock and written in one transaction with its events; only then are its results returned.
So what was acknowledged is durable, and what a cut stream did not acknowledge may be sent again: it is there once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import events, metrics, store
from datanet.access import check_contributor
from datanet.decision import Decision, Judged, Result, decide
from datanet.definition import Datanet
from datanet.entities import RecordState
from datanet.gate import GateItemsCache
from datanet.quality import Rules
from datanet.registry import find_contributor, find_datanet
from identity.names import ContributorName, DatanetName
from servicekit.auth import Principal
from servicekit.database import reading, run_in_transaction, utc_now


class Intake:
    """Takes contributions into one database."""

    def __init__(self, engine: Engine, gate_items: GateItemsCache) -> None:
        self._engine = engine
        self._gate_items = gate_items
        # Batches of one Datanet conflict, and the database would find out late: they wait for each other here.
        self._turns: dict[str, threading.Lock] = {}

    def open(self, principal: Principal, name: ContributorName) -> Inlet:
        """The way in for one contributor.

        Raises NotFound of the Datanet or the contributor, PermissionDenied unless the principal is the contributor.
        """
        with reading(self._engine) as session:
            contributor = find_contributor(session, name)
            datanet = find_datanet(session, DatanetName(name.datanet))
        check_contributor(principal, contributor)
        rules = self._gate_items.rules(datanet)
        return Inlet(
            self._engine, self._turns.setdefault(datanet.name, threading.Lock()), datanet, name, rules
        )


class Inlet:
    """One contributor's way into one Datanet. Its batches must not overlap."""

    def __init__(
        self, engine: Engine, turn: threading.Lock, datanet: Datanet, name: ContributorName, rules: Rules
    ) -> None:
        self._engine = engine
        self._turn = turn
        self._datanet = datanet
        self._name = name
        self._rules = rules

    def take(self, batch: Sequence[bytes]) -> list[Result]:
        """Judges and keeps contributions; one result each, in order, once all of them are durable.

        Raises nothing for their content. Raises Aborted when another process keeps winning: nothing was kept then.
        """
        judged = [Judged(data, self._rules.judge(data)) for data in batch]
        with self._turn, metrics.COMMIT_SECONDS.time():
            decision = run_in_transaction(self._engine, lambda session: self._write(session, judged))
        for result in decision.results:
            outcome = "already_present" if result.already_present else result.state.name.lower()
            metrics.CONTRIBUTIONS.labels(outcome, result.rule).inc()
        return decision.results

    def _write(self, session: Session, judged: Sequence[Judged]) -> Decision:
        contributor = find_contributor(session, self._name)
        digests = {each.digest for each in judged}
        existing = store.records.by_digest(session, DatanetName(self._name.datanet), digests)
        decision = decide(judged, existing, self._datanet, contributor, utc_now())
        store.records.remove(session, [row.order for row in decision.replaced])
        store.records.add(session, decision.added)
        if decision.added or decision.replaced:
            counts = (RecordState.ACCEPTED, RecordState.PENDING, RecordState.REJECTED)
            store.contributors.count(session, self._name, *map(decision.change, counts))
        events.contributions_recorded(session, decision.added)
        return decision
