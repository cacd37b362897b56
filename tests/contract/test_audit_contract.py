"""Every service serves a fact for every row that reconciliation needs, on both databases, and an operator can compare them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from openledger.datanet.v1 import datanet_pb2, events_pb2
from openledger.trainer.v1 import events_pb2 as trainer_events
from sqlalchemy import Engine, func, select, text
from typer.testing import CliRunner, Result

from openledger_cli.__main__ import app
from openledger_client import services
from openledger_client.errors import PermissionDenied
from openledger_client.services import TRAINER
from openledger_ops.reconcile.book import Fault, Unreachable
from openledger_ops.reconcile.reconciliation import Sources, iteration
from openledger_testing.audit_rig import AuditRig
from openledger_testing.first_release import SERVICES, insert_recorded, tables_of
from servicekit.audit import Declared
from servicekit.audit.pages import pages
from servicekit.database import engine, migrate
from servicekit.eventlog import OutRecord, open_event_log
from servicekit.eventlog.events import new_event, to_record
from servicekit.eventlog.topics import ALL, DATANET_CONTRIBUTION_V1, DATANET_SNAPSHOT_V1, MODEL_VERSION_V1

ROWS: dict[str, dict[str, tuple[str, ...]]] = {
    "datanet": {
        "record": ("records",),
        "contributor_counts": ("contributors",),
        "sealed_snapshot": ("snapshots",),
    },
    "trainer": {"known_snapshot": ("snapshots",), "model_version": ("model_versions",)},
    "inference": {"known_model_version": ("model_versions",)},
    "attribution": {
        "known_snapshot": ("treasuries",),
        "known_model_version": ("model_versions",),
        "attributed_answer": ("answers",),
    },
    "chain_relay": {
        "ledger": ("ledger", "ledgers"),
        "settled_answer": ("scored_answer", "scored_answers"),
        "batch": ("batch", "batches"),
        "earning": ("earning", "earnings"),
        "registered_snapshot": ("registered_dataset", "registered_datasets"),
        "registered_model_version": ("registered_model", "registered_models"),
        "reward_root": ("reward_root", "reward_roots"),
        "reward_account": ("reward_account", "reward_accounts"),
    },
}
"""By service: kind of fact, and the table whose every row is one (by its name before or after a renaming)."""


def filled(service: str, url: str) -> Engine:
    """A database with what the first release recorded, at the newest revision."""
    database = engine(url)
    migrate(database, service, "0001")
    insert_recorded(database, service)
    migrate(database, service)
    return database


def declared(service: str) -> Declared:
    audit: Any = import_module(f"{service}.audit")
    return Declared(service=service, facts=audit.facts)


@pytest.mark.parametrize("service", SERVICES)
def test_every_row_that_counts_is_a_fact(service: str, database_url: str) -> None:
    database = filled(service, database_url)
    found = [fact for page in pages(database, declared(service)) for fact in page.facts]
    counted = Counter(fact.WhichOneof("kind") for fact in found)
    with database.connect() as connection:
        rows = {
            table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in tables_of(database)
        }
    database.dispose()
    for kind, names in ROWS[service].items():
        (expected,) = (rows[name] for name in names if name in rows)
        assert counted[kind] == expected, kind
    assert sum(counted[kind] for kind in ROWS[service]) > 0


@pytest.fixture(scope="module")
def rig() -> Iterator[AuditRig]:
    with AuditRig() as running:
        yield running


def platform(rig: AuditRig, folder: Path, *, with_rows: bool) -> Sources:
    """Five services beside an event log that holds nothing. Their databases hold what the first release recorded, or nothing."""
    for service in services.ALL:
        url = f"sqlite:///{folder}/{service.name}/{service.name}.db"
        if with_rows and service.name in SERVICES:  # a later service has no rows of the first release
            filled(service.name, url).dispose()
        else:
            database = engine(url)
            migrate(database, service.name)
            database.dispose()
    log = open_event_log(f"embedded:{folder}/events.db")
    log.ensure_topics(ALL)
    log.close()
    rig.show(folder)
    return Sources(client=rig.client, event_log=f"embedded:{folder}/events.db", rpc="", patience_s=0)


@pytest.fixture
def sources(rig: AuditRig, tmp_path: Path) -> Sources:
    """A platform that lost its events and objects."""
    return platform(rig, tmp_path, with_rows=True)


@pytest.mark.slow
def test_databases_without_their_events_and_objects_are_found_wanting(sources: Sources) -> None:
    book = iteration(sources)
    wrong = {finding.link for finding in book.findings}
    assert {"snapshot event published", "snapshot objects intact", "batch intact"} <= wrong
    assert book.state_times.keys() == {service.name for service in services.ALL}
    assert not book.chain_checked


@pytest.mark.slow
def test_a_service_that_does_not_run_is_named_and_nothing_is_concluded(tmp_path: Path) -> None:
    with AuditRig() as own:
        sources = platform(own, tmp_path, with_rows=False)
        own.stop(TRAINER)
        with pytest.raises(Unreachable, match=r"facts of trainer cannot be read.*needs every service to run"):
            iteration(sources)


@pytest.mark.slow
def test_a_caller_that_may_not_audit_is_refused(rig: AuditRig, sources: Sources) -> None:
    refused = Sources(client=rig.as_role("curator"), event_log=sources.event_log, rpc="")
    with pytest.raises(PermissionDenied, match=r"audit\.facts\.read"):
        iteration(refused)


def reconcile(rig: AuditRig, sources: Sources, *options: str, as_json: bool = False) -> Result:
    """Runs `openledger reconcile` on the rig's services."""
    state = rig.servers[TRAINER.name].settings.state_dir
    shared = ["--state-dir", str(state), "--as", "ann:auditor", *(["--json"] if as_json else [])]
    arguments = [*shared, "reconcile", "--event-log", sources.event_log, *options]
    return CliRunner(env={"OPENLEDGER_RPC": ""}).invoke(app, arguments)


@pytest.mark.slow
@pytest.mark.parametrize(("options", "code"), [([], 3), (["--no-chain"], 0)])
def test_a_chain_that_was_not_checked_is_said_and_is_no_success_unless_asked_for(
    rig: AuditRig, tmp_path: Path, options: list[str], code: int
) -> None:
    result = reconcile(rig, platform(rig, tmp_path, with_rows=False), *options)
    assert "chain: not checked" in result.output
    assert "0 lost, 0 doubled, 0 waiting, 0 invalid" in result.output
    assert result.exit_code == code


@pytest.mark.slow
def test_a_loss_is_the_exit_code_and_each_state_has_its_time(rig: AuditRig, sources: Sources) -> None:
    result = reconcile(rig, sources, as_json=True)
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert found["lost"] > 0
    assert found["chain_checked"] is False
    assert found["state_times"].keys() == {service.name for service in services.ALL}


def sealed(name: str) -> OutRecord:
    message = events_pb2.SnapshotSealed(snapshot=datanet_pb2.Snapshot(name=name))
    return to_record(new_event(DATANET_SNAPSHOT_V1, "datanets/d", message, "openledger/test"))


def with_header(record: OutRecord, name: str, value: bytes | None) -> OutRecord:
    headers = dict(record.headers)
    headers.pop(name, None)
    return replace(record, headers=(*headers.items(), *([(name, value)] if value is not None else [])))


def unreadable() -> list[tuple[OutRecord, str]]:
    """Events that no consumer can handle, and what is said of each."""
    good = sealed("datanets/d/snapshots/1")
    version = trainer_events.ModelVersionChanged()
    changed = to_record(new_event(MODEL_VERSION_V1, "models/m", version, "openledger/test"))
    late = events_pb2.ContributionRecorded(event_time=Timestamp(seconds=2**60))
    recorded = to_record(new_event(DATANET_CONTRIBUTION_V1, "datanets/d", late, "openledger/test"))
    return [
        (with_header(replace(good, value=b"\xff\xff"), "ce_id", b"event-7"), "id event-7: UNDECODABLE"),
        (with_header(good, "ce_id", None), "id none: MISSING_HEADER"),
        (with_header(good, "ce_id", b"\xff"), "BAD_HEADER"),
        (with_header(good, "ce_type", b"\xff"), "BAD_HEADER"),
        (with_header(good, "ce_time", b"yesterday"), "BAD_HEADER"),
        (sealed("datanets/d"), "'datanets/d' is not the name of a snapshot"),
        (replace(changed, value=b"\xff\xff"), "model.version.v1 partition"),
        (recorded, "Timestamp"),
    ]


def send(sources: Sources, *records: OutRecord) -> None:
    log = open_event_log(sources.event_log)
    log.ensure_topics(topic.dead_letters() for topic in ALL)
    producer = log.producer()
    producer.send(records)
    producer.close()
    log.close()


@pytest.mark.slow
def test_an_event_that_cannot_be_read_is_named_and_the_rest_is_read(rig: AuditRig, tmp_path: Path) -> None:
    sources = platform(rig, tmp_path, with_rows=False)
    records = unreadable()
    letter = with_header(records[0][0], "dlq_group", b"\xff")
    send(
        sources, *(record for record, _ in records), replace(letter, topic=DATANET_SNAPSHOT_V1.name + ".dlq")
    )
    send(sources, sealed("datanets/d/snapshots/2"))
    book = iteration(sources)
    invalid = [f"{each.thing}: {each.why}" for each in book.findings if each.fault is Fault.INVALID]
    assert len(invalid) == len(records)
    for _, said in records:
        assert sum(said in each for each in invalid) == 1 or said == "BAD_HEADER", (said, invalid)
    assert all(" partition " in each and " offset " in each for each in invalid)
    others = {each.thing for each in book.findings if each.fault is not Fault.INVALID}
    assert (
        "datanets/d/snapshots/2" in others
    )  # the event after them is read: no such snapshot is in the database
    assert not any("datanets/d/snapshots/1" in thing for thing in others)
    result = reconcile(rig, sources, "--no-chain", as_json=True)
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert found["invalid"] == len(records)
    assert {"link": "event readable", "checked": len(records) + 1}.items() <= next(
        each.items() for each in found["links"] if each["link"] == "event readable"
    )


@pytest.mark.slow
def test_an_event_in_an_outbox_that_cannot_be_read_is_named(rig: AuditRig, tmp_path: Path) -> None:
    sources = platform(rig, tmp_path, with_rows=True)
    damage(
        tmp_path, "datanet", f"UPDATE outbox SET value = x'ffff' WHERE topic = '{DATANET_SNAPSHOT_V1.name}'"
    )
    invalid = [each.thing for each in iteration(sources).findings if each.fault is Fault.INVALID]
    assert len(invalid) == 1
    assert invalid[0].startswith("datanet.snapshot.v1 in the outbox of datanet, id 01")


@pytest.mark.slow
def test_a_row_that_cannot_be_read_is_named_and_the_rest_is_read(rig: AuditRig, tmp_path: Path) -> None:
    sources = platform(rig, tmp_path, with_rows=True)
    assert not any(each.link.startswith("facts") for each in iteration(sources).findings)
    for service, statement in (
        ("chain_relay", "UPDATE scored_answer SET model_digest = 'no digest'"),
        ("attribution", "UPDATE answers SET digest = 'x', record = x'ff'"),
        ("trainer", "UPDATE snapshots SET name = 'no number'"),
    ):
        damage(tmp_path, service, statement)
    invalid = {each.link for each in iteration(sources).findings if each.fault is Fault.INVALID}
    assert {"facts of chain_relay readable", "facts of trainer readable"} <= invalid


def damage(folder: Path, service: str, statement: str) -> None:
    database = engine(f"sqlite:///{folder}/{service}/{service}.db")
    with database.begin() as connection:
        connection.execute(text(statement))
    database.dispose()
