"""One look at everything, and a second one where the first saw something wrong."""

from __future__ import annotations

import time
from contextlib import ExitStack

from openledger_cli.reconcile import answers, contributions, money, settlement, snapshots
from openledger_cli.reconcile.book import Away, Book, Fault
from openledger_cli.reconcile.deliveries import Deliveries
from openledger_cli.reconcile.events import Telling
from openledger_cli.reconcile.onchain import OnChain
from openledger_cli.reconcile.places import Places
from openledger_cli.reconcile.rows import rows_of
from servicekit.eventlog import EventLogUnavailable, open_event_log
from servicekit.objects import ObjectStore

_BETWEEN_LOOKS_S = 2.0
_PATIENCE_S = 60.0


def reconcile(places: Places) -> Book:
    """Counts what was lost and doubled. What is found is wrong at two moments, not caught in the middle of a step.

    What is away, restarting say, is waited for a minute.

    Raises:
        StartupError: something cannot be read; a count of the rest would say "nothing lost" too early.
    """
    first = _patient_look(places)
    suspects = {finding for finding in first.findings if finding.fault is not Fault.WAITING}
    if not suspects:
        return first
    time.sleep(
        _BETWEEN_LOOKS_S
    )  # not a wait for a condition: a step that was caught halfway gets time to end
    second = _patient_look(places)
    second.findings = [f for f in second.findings if f.fault is Fault.WAITING or f in suspects]
    return second


def _patient_look(places: Places) -> Book:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return look(places)
        except Away:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)  # nothing tells when a server is back


def look(places: Places) -> Book:
    """One look. Raises Away, StartupError."""
    try:
        return _look(places)
    except EventLogUnavailable as error:
        raise Away(f"the event log cannot be read: {error}") from None


def _look(places: Places) -> Book:
    book = Book()
    objects = ObjectStore(places.object_store, cache=places.objects_cache)
    chain = OnChain(places.rpc, places.contracts) if places.rpc else None
    with ExitStack() as stack:
        rows = {
            service: stack.enter_context(rows_of(service, url)) for service, url in places.databases.items()
        }
        log = open_event_log(places.event_log)
        stack.callback(log.close)
        telling = Telling(log, rows)
        deliveries = Deliveries(telling)
        contributions.check(book, telling, objects)
        snapshots.check(book, telling, deliveries, objects)
        scored = answers.check(book, telling, deliveries, places.answer_log)
        settlement.check(book, rows["chain_relay"], deliveries, objects, scored, chain)
        money.check(book, rows["chain_relay"], chain)
        deliveries.outboxes(book)
    return book
