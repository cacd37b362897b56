"""datanet: a Datanet is made, two contributors stream records, a curator decides, one record is withdrawn, a snapshot sealed."""

from __future__ import annotations

import json
from pathlib import Path

from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

from datanet.service import build
from datanet.settings import DatanetSettings
from identity.digest import digest_json, sha256_bytes
from identity.snapshot import read_lines, root
from openledger_client import sealing
from openledger_testing.crash.service_run import Using, acknowledged
from openledger_testing.crash.service_run import live as live_service
from openledger_testing.crash.stored_state import appearances, check_at_rest, check_objects, events, one, rows
from servicekit.testing.waiting import eventually

NAME = "datanets/colours"
LICENCE = "CC-BY-4.0"
WITHDRAWN = {"text": "a thing that is withdrawn", "colour": "red"}
REVIEWED = {"text": "a thing that a person accepts", "colour": "blue"}
RECORDS = {
    "alice": [*({"text": f"thing number {n} of alice", "colour": "red"} for n in range(4)), WITHDRAWN],
    "bob": [*({"text": f"object number {n} that bob saw", "colour": "blue"} for n in range(3)), REVIEWED],
}


def settings(folder: Path) -> DatanetSettings:
    return DatanetSettings(
        state_dir=folder, auth_mode="development", batch_records=2, grace_s=5, log_level="WARNING"
    )


def database(folder: Path) -> Path:
    return folder / "datanet" / "datanet.db"


def prepare(folder: Path) -> None:
    """An empty folder: migrations and keys are durable steps too."""


def live(folder: Path) -> None:
    live_service(build(settings(folder)), folder, use)


def use(using: Using) -> None:
    owner = using.stub(DatanetServiceStub, "owner", "curator")
    fields = [
        pb.RecordSchema.Field(name="text", required=True),
        pb.RecordSchema.Field(name="colour", required=True),
    ]
    schema = pb.RecordSchema(
        fields=fields, prompt_template="Thing: {text}\nColour:", completion_template=" {colour}"
    )
    made = pb.Datanet(
        display_name="Colours",
        licence=LICENCE,
        schema=schema,
        policy=pb.QualityPolicy(
            review_mode=pb.REVIEW_MODE_MANUAL, contamination_check=pb.CONTAMINATION_CHECK_OFF
        ),
    )
    owner.CreateDatanet(pb.CreateDatanetRequest(datanet_id="colours", datanet=made, request_id="create"))
    for name in RECORDS:
        contribute(using, owner, name)
    for record in (record for records in RECORDS.values() for record in records):
        decide(owner, record)
    withdrawal = pb.WithdrawRecordRequest(name=record_name(WITHDRAWN), reason="mine")
    using.stub(DatanetServiceStub, "alice", "contributor").WithdrawRecord(withdrawal)
    sealed = sealing.seal(owner, pb.SealSnapshotRequest(parent=NAME, request_id="seal"))
    using.acknowledged(sealed.root)
    (ended,) = owner.ListSealOperations(pb.ListSealOperationsRequest(parent=NAME)).seal_operations
    assert owner.CancelSealOperation(pb.CancelSealOperationRequest(name=ended.name)) == ended
    eventually(lambda: one(database(using.folder), "SELECT count(*) FROM outbox") == 0, "an empty outbox")


def contribute(using: Using, owner: DatanetServiceStub, name: str) -> None:
    contributor = pb.Contributor(principal=name, display_name=name, consent_licence=LICENCE)
    owner.RegisterContributor(
        pb.RegisterContributorRequest(
            parent=NAME, contributor_id=name, contributor=contributor, request_id=name
        )
    )
    sent = [
        pb.ContributeRequest(
            contributor=f"{NAME}/contributors/{name}", sequence=n, content=json.dumps(record).encode()
        )
        for n, record in enumerate(RECORDS[name])
    ]
    for result in using.stub(DatanetServiceStub, name, "contributor").Contribute(iter(sent)):
        assert result.digest, result
        using.acknowledged(result.digest)


def decide(owner: DatanetServiceStub, record: dict[str, str]) -> None:
    """Accepts what waits for review; what was withdrawn before a restart stays so."""
    page = owner.ListRecords(pb.ListRecordsRequest(parent=NAME, page_size=100)).records
    states = {found.name: found.state for found in page}
    if states[record_name(record)] == pb.RECORD_STATE_PENDING:
        owner.ReviewRecord(
            pb.ReviewRecordRequest(name=record_name(record), decision=pb.RECORD_STATE_ACCEPTED)
        )


def record_name(record: dict[str, str]) -> str:
    return f"{NAME}/records/{digest_json(record).removeprefix('sha256:')}"


def check(folder: Path) -> None:
    kept = rows(database(folder), "SELECT digest, state FROM records")
    expected = {digest_json(record) for records in RECORDS.values() for record in records}
    assert appearances([digest for digest, _ in kept]) == dict.fromkeys(expected, 1), (
        "each contribution is there once"
    )
    states = dict(kept)
    gone = digest_json(WITHDRAWN)
    assert {digest for digest, state in states.items() if state == pb.RECORD_STATE_WITHDRAWN} == {gone}
    assert {digest for digest, state in states.items() if state == pb.RECORD_STATE_ACCEPTED} == expected - {
        gone
    }
    counts = rows(
        database(folder),
        "SELECT id, accepted_count, pending_count, rejected_count FROM contributors ORDER BY id",
    )
    assert counts == [("alice", 4, 0, 0), ("bob", 4, 0, 0)], counts
    check_snapshot(folder, expected - {gone})
    check_events(folder, states)
    ((state, snapshot, total),) = rows(
        database(folder), "SELECT max(state), max(snapshot), count(*) FROM seal_operations"
    )
    assert (state, snapshot, total) == (pb.SEAL_OPERATION_STATE_SUCCEEDED, 1, 1), (
        "one operation, one snapshot"
    )
    check_at_rest(folder, database(folder))


def check_snapshot(folder: Path, accepted: set[str]) -> None:
    ((found_root, records, manifest),) = rows(
        database(folder), "SELECT root, records_digest, manifest_digest FROM snapshots"
    )
    assert {records, manifest} <= check_objects(folder)
    path = folder / "objects" / "sha256" / records[7:9] / records[9:]
    data = path.read_bytes()
    assert (root(data), sha256_bytes(data)) == (found_root, records)
    assert {line.record_digest for line in read_lines(data)} == accepted
    promised = {each for each in acknowledged(folder) if each not in accepted}
    assert promised <= {found_root, digest_json(WITHDRAWN)}, "what was acknowledged is there"


def check_events(folder: Path, states: dict[str, int]) -> None:
    """Each change of a record's state is published as one event, the snapshot as one."""
    published = [(e.record_digest, e.state) for e in events(folder, "datanet.contribution.v1").values()]
    accepted, pending, withdrawn = (
        pb.RECORD_STATE_ACCEPTED,
        pb.RECORD_STATE_PENDING,
        pb.RECORD_STATE_WITHDRAWN,
    )
    expected = [(digest, state) for digest in states for state in (pending, accepted)]
    expected.append((digest_json(WITHDRAWN), withdrawn))
    assert sorted(published) == sorted(expected), published
    assert len(events(folder, "datanet.snapshot.v1")) == 1
