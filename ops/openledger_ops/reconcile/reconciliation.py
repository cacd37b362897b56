"""One iteration over everything, and a second one when the first found something wrong."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

from openledger.audit.v1.audit_pb2 import AttributedAnswer

from openledger_client import services
from openledger_client.client import Client
from openledger_client.errors import ConfigurationError, OpenLedgerError
from openledger_client.services import CHAIN_RELAY, TRAINER
from openledger_ops.chain import Node
from openledger_ops.event_log import open_log
from openledger_ops.reconcile import answers, contributions, money, promotions, settlement, snapshots
from openledger_ops.reconcile.book import Book, Fault, Unreachable
from openledger_ops.reconcile.consumers import Consumers
from openledger_ops.reconcile.contracts import Addresses, Contracts, deployed
from openledger_ops.reconcile.events import Events
from openledger_ops.reconcile.facts import Objects, meaning, read_all
from servicekit.errors import StartupError
from servicekit.eventlog import EventLogError, EventLogUnavailable

_BETWEEN_ITERATIONS_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Everything that is compared."""

    client: Client
    """Reaches the services. Its caller needs the permission `audit.facts.read`."""
    event_log: str
    """URL of the event log."""
    rpc: str
    """JSON-RPC address of the chain; "" leaves the chain out."""
    contracts: Addresses | None = None
    """The contracts; None asks the relay."""
    patience_s: float = 60.0
    """How long to wait for a source that is unreachable, because it restarts for example."""


def reconcile(sources: Sources) -> Book:
    """Counts what was lost and doubled. A fault is reported when two iterations find it, so none is a step half done.

    A source that is unreachable is waited for, `patience_s` in each iteration.

    Raises:
        StartupError: a source cannot be read. A count of the rest could say "nothing lost" too early.
        OpenLedgerError: a service refuses the caller, or no address of any service is known.
    """
    _require_platform(sources.client)
    first = _patient_iteration(sources)
    suspects = {finding for finding in first.findings if finding.fault is not Fault.WAITING}
    if not suspects:
        return first
    time.sleep(
        _BETWEEN_ITERATIONS_S
    )  # not a wait for a condition: a step that was half done gets time to end
    second = _patient_iteration(sources)
    second.findings = [f for f in second.findings if f.fault is Fault.WAITING or f in suspects]
    return second


def _patient_iteration(sources: Sources) -> Book:
    deadline = time.monotonic() + sources.patience_s
    while True:
        try:
            return iteration(sources)
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)  # no source says when it is back


def iteration(sources: Sources) -> Book:
    """Returns the result of one iteration. Raises Unreachable, StartupError, OpenLedgerError."""
    try:
        return _iteration(sources)
    except EventLogUnavailable as error:
        raise Unreachable(f"the event log cannot be read: {error}") from None
    except EventLogError as error:  # a damaged file: another attempt would find the same
        raise StartupError(f"event log {sources.event_log}: {error}") from None


def _iteration(sources: Sources) -> Book:
    book = Book()
    with ExitStack() as stack:
        facts = read_all(sources.client, {AttributedAnswer: answers.keep})
        book.state_times = {
            str(service): found.state_time.isoformat(timespec="milliseconds")
            for service, found in facts.items()
        }
        log = open_log(sources.event_log)
        stack.callback(log.close)
        contracts = None
        if sources.rpc:
            node = Node(sources.rpc)
            stack.callback(node.close)
            contracts = Contracts(node, sources.contracts or _deployed(sources.client))
            book.chain_checked = True
        for service, found in facts.items():
            for each in found.malformed:
                book.invalid(f"facts of {service} readable", each.thing, each.why)
        events, consumers = Events(log, facts, book), Consumers(log, facts)
        objects = Objects(sources.client)
        contributions.check(book, events, objects)
        snapshots.check(book, events, consumers, objects)
        promotions.check(book, facts[TRAINER])
        scored = answers.check(book, events, consumers)
        settlement.check(book, consumers, objects, scored, contracts)
        money.check(book, facts[CHAIN_RELAY], contracts)
        consumers.check_rest(book)
        consumers.outboxes(book)
    return book


def _require_platform(client: Client) -> None:
    """Raises ConfigurationError when no service is known: there is nothing to wait for."""
    problems: list[ConfigurationError] = []
    for service in services.ALL:
        try:
            client.addresses.of(service)
        except ConfigurationError as error:
            problems.append(error)
    if len(problems) == len(services.ALL):
        raise problems[0]


def _deployed(client: Client) -> Addresses:
    try:
        return deployed(client)
    except OpenLedgerError as error:
        raise meaning(error, f"{CHAIN_RELAY} does not say which contracts it writes to") from None
