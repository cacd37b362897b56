"""Facts: of one snapshot, in pages of bounded size, for auditors only, whatever the reader does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from openledger.audit.v1.audit_pb2 import (
    Consumer,
    Fact,
    FactsPage,
    FinishedRun,
    LoggedEvent,
    ReadFactsRequest,
    ReadObjectRequest,
)
from openledger.audit.v1.audit_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from openledger.datanet.v1 import datanet_pb2, events_pb2
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from openledger_client import errors as received
from openledger_client.channels import sync_channel
from openledger_client.errors import from_rpc_error
from servicekit.audit import AuditServicer, Declared
from servicekit.audit.pages import LARGEST_FACT_BYTES, PAGE_BYTES, Pages, pages
from servicekit.database import engine, new_base, transaction
from servicekit.delivery import outbox
from servicekit.errors import Aborted, ResourceExhausted
from servicekit.eventlog.events import new_event
from servicekit.eventlog.topics import DATANET_SNAPSHOT_V1
from servicekit.server import Service
from servicekit.settings import ServiceSettings
from servicekit.testing.services import running, token
from servicekit.testing.waiting import LONGEST_S

SEALED = events_pb2.SnapshotSealed.DESCRIPTOR.full_name


def runs(session: Session) -> Iterator[Fact]:
    """As many finished runs as the inbox has events of the group `runs`: a fact that a row stands behind."""
    for name in session.scalars(text("SELECT event_id FROM inbox WHERE consumer = 'runs' ORDER BY 1")):
        yield Fact(finished_run=FinishedRun(name=name))


def declared(**more: object) -> Declared:
    return Declared(service="tested", facts=runs, **more)  # type: ignore[arg-type]


def mark(database: Engine, group: str, *event_ids: str) -> None:
    rows = [{"group": group, "event": each} for each in event_ids]
    with transaction(database) as session:
        session.execute(text("INSERT INTO inbox VALUES (:group, :event, 0)"), rows)


def facts_of(found: list[FactsPage], kind: str) -> list[Fact]:
    return [fact for page in found for fact in page.facts if fact.WhichOneof("kind") == kind]


def test_shared_facts_say_what_is_consumed_pending_and_done(service_db: Engine) -> None:
    mark(service_db, "a group", *(f"event-{number:04}" for number in range(1200)))
    event = new_event(
        DATANET_SNAPSHOT_V1,
        "datanets/d",
        events_pb2.SnapshotSealed(snapshot=datanet_pb2.Snapshot(name="datanets/d/snapshots/1")),
        "openledger/tested",
    )
    with transaction(service_db) as session:
        outbox.add(session, event)
    consumer = Consumer(group="a group", topic="a topic", event_types=["a type"])
    logged = Fact(logged_event=LoggedEvent(event_id="logged"))
    found = list(pages(service_db, declared(consumers=lambda: [consumer], files=lambda: [logged])))
    assert [fact.consumer for fact in facts_of(found, "consumer")] == [consumer]
    assert facts_of(found, "logged_event") == [logged]
    (pending,) = (fact.outbox_event for fact in facts_of(found, "outbox_event"))
    assert (pending.event_id, pending.topic, pending.event_type) == (
        event.id,
        DATANET_SNAPSHOT_V1.name,
        SEALED,
    )
    assert events_pb2.SnapshotSealed.FromString(pending.value) == event.message
    done = [id_ for fact in facts_of(found, "inbox_events") for id_ in fact.inbox_events.event_ids]
    assert done == [f"event-{number:04}" for number in range(1200)]


def test_pages_are_of_one_snapshot_however_late_they_are_read(service_db: Engine) -> None:
    mark(service_db, "runs", *(f"{'x' * 50}{number:05}" for number in range(6000)))
    reading = pages(service_db, declared())
    first = next(reading)
    mark(service_db, "runs", "a late one")
    rest = list(reading)
    assert len(rest) > 1
    assert len(facts_of([first, *rest], "finished_run")) == 6000
    assert {page.state_time.ToNanoseconds() for page in rest} == {first.state_time.ToNanoseconds()}
    assert all(page.ByteSize() <= PAGE_BYTES + 64_000 for page in [first, *rest])


def test_a_database_without_rows_still_says_when_it_was_read(service_db: Engine) -> None:
    (page,) = pages(service_db, declared())
    assert page.service == "tested"
    assert page.state_time.seconds > 0


def test_a_fact_that_no_message_could_hold_is_refused_by_its_kind(service_db: Engine) -> None:
    huge = Fact(logged_event=LoggedEvent(subject="x" * (LARGEST_FACT_BYTES + 1)))
    with pytest.raises(ResourceExhausted, match=r"logged_event fact has \d+ bytes"):
        list(pages(service_db, declared(files=lambda: [huge])))


def test_a_reader_that_is_too_slow_loses_its_snapshot_and_learns_it(service_db: Engine) -> None:
    mark(service_db, "runs", *(f"{'x' * 50}{number:05}" for number in range(6000)))
    made = Pages(pages(service_db, declared()))
    assert made.next() is not None
    made.expire()
    with pytest.raises(Aborted, match="not read fast enough"):
        made.next()
    assert service_db.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service("tested", ServiceSettings(state_dir=tmp_path, auth_mode="development"), None)
    database = engine(f"sqlite:///{tmp_path}/tested.db")
    new_base().metadata.create_all(database)
    made.add_servicer(add_AuditServiceServicer_to_server, AuditServicer(declared(), database, made.objects))
    with running(made):
        yield made
    database.dispose()


@pytest.fixture
def database(service: Service) -> Iterator[Engine]:
    opened = engine(f"sqlite:///{service.settings.state_dir}/tested.db")
    yield opened
    opened.dispose()


def stub(service: Service, role: str) -> AuditServiceStub:
    assert service.address is not None
    return AuditServiceStub(sync_channel(service.address.grpc, token(service, [role])))


@pytest.mark.parametrize("role", ["auditor", "operator", "admin"])
def test_who_audits_reads_facts_and_the_objects_they_name(
    service: Service, database: Engine, role: str
) -> None:
    mark(database, "runs", "a run")
    found = list(stub(service, role).ReadFacts(ReadFactsRequest(), timeout=LONGEST_S))
    assert [fact.finished_run.name for fact in facts_of(found, "finished_run")] == ["a run"]
    digest = service.objects.put_bytes(bytes(700_000))
    chunks = list(stub(service, role).ReadObject(ReadObjectRequest(digest=digest), timeout=LONGEST_S))
    assert b"".join(chunk.data for chunk in chunks) == bytes(700_000)
    assert {chunk.size for chunk in chunks} == {700_000}


@pytest.mark.parametrize("role", ["service", "curator", "user", "builder", "approver", "contributor"])
def test_other_roles_cannot_read_facts(service: Service, role: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        list(stub(service, role).ReadFacts(ReadFactsRequest(), timeout=LONGEST_S))
    assert from_rpc_error(raised.value).code is grpc.StatusCode.PERMISSION_DENIED


def test_a_missing_object_is_not_found(service: Service) -> None:
    request = ReadObjectRequest(digest="sha256:" + "0" * 64)
    with pytest.raises(grpc.RpcError) as raised:
        list(stub(service, "auditor").ReadObject(request, timeout=LONGEST_S))
    assert from_rpc_error(raised.value).code is grpc.StatusCode.NOT_FOUND


def test_too_many_readers_get_a_time_to_retry(service: Service, database: Engine) -> None:
    mark(database, "runs", *(f"{'x' * 100}{number:06}" for number in range(60_000)))
    auditor = stub(service, "auditor")
    # Each has begun and its stream is far larger than what gRPC takes ahead of a reader.
    held = [auditor.ReadFacts(ReadFactsRequest(), timeout=LONGEST_S) for _ in range(2)]
    for stream in held:
        next(stream)
    with pytest.raises(grpc.RpcError) as raised:
        list(auditor.ReadFacts(ReadFactsRequest(), timeout=LONGEST_S))
    problem = from_rpc_error(raised.value)
    assert isinstance(problem, received.ResourceExhausted)
    assert problem.retry_after_s
    for stream in held:
        stream.cancel()
