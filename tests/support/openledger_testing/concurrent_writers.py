"""What two processes of one service do to its database at the same moment, and what must be true afterwards.

    python -m openledger_testing.concurrent_writers SERVICE DATABASE_URL PART

waits for a line on standard input, so that both begin together. Every process does all of the work, as a replica would that
got the same requests and events.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, func, select, text
from sqlalchemy.orm import Session

from servicekit.database import engine as open_engine
from servicekit.database import reading, run_in_transaction, transaction, utc_now

COUNT = 12
_ATTEMPTS = 60
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Writers:
    """One service's part of the test."""

    prepare: Callable[[Engine], None]
    write: Callable[[Engine, int], None]
    check: Callable[[Engine], None]


def _nothing(database: Engine) -> None:
    """The migrated database is all that is needed."""


def _outbox(session: Session) -> int:
    return int(session.execute(text("SELECT count(*) FROM outbox")).scalar_one())


# --- datanet: both take the same records of one contributor


def _datanet_parts(database: Engine) -> tuple[Any, Any, Any]:
    from datanet.evaluation_items import EvaluationItemsCache
    from datanet.intake import Intake
    from datanet.registry import Registry
    from servicekit.objects import ObjectStore

    evaluation_items = EvaluationItemsCache(ObjectStore(tempfile.mkdtemp()))
    return (
        Registry(database, evaluation_items),
        Intake(database, evaluation_items, max_rejected=1000),
        evaluation_items,
    )


def datanet_prepare(database: Engine) -> None:
    from openledger.datanet.v1 import datanet_pb2 as pb

    from datanet.definition import Datanet, Field, QualityPolicy, RecordSchema
    from datanet.entities import Contributor
    from servicekit.auth import Principal
    from servicekit.database.request_ids import RequestId

    registry, _, _ = _datanet_parts(database)
    schema = RecordSchema((Field(name="text", required=True),), "Say {text}", " {text}")
    owner = Principal("owner")
    request = RequestId.of("owner", pb.CreateDatanetRequest())
    notes = Datanet(
        name="datanets/notes",
        owner="owner",
        licence="CC-BY-4.0",
        schema=schema,
        policy=QualityPolicy(contamination_check=False),
    )
    registry.create(owner, notes, request)
    alice = Contributor(
        name="datanets/notes/contributors/alice",
        principal="alice",
        display_name="",
        payout_address="",
        consent_licence="CC-BY-4.0",
        consent_time=utc_now(),
    )
    registry.register(owner, alice, request)


def datanet_write(database: Engine, part: int) -> None:
    import json

    from identity.names import ContributorName
    from servicekit.auth import Principal
    from servicekit.errors import Aborted

    writer = _datanet_parts(database)[1].open(Principal("alice"), ContributorName("notes", "alice"))
    for number in range(COUNT):
        content = json.dumps({"text": f"Observation {number} of the group at hour {number * 7}."}).encode()
        while True:
            try:
                writer.write([content])
                break
            except Aborted:  # a client sends it again
                continue


def datanet_check(database: Engine) -> None:
    from datanet.store.tables import ContributorRow, RecordRow

    with reading(database) as session:
        assert session.scalar(select(func.count()).select_from(RecordRow)) == COUNT
        row = session.scalars(select(ContributorRow)).one()
        assert row.accepted_count + row.pending_count + row.rejected_count == COUNT
        assert _outbox(session) == COUNT


# --- trainer: both answer the same requests, each of which makes the next version of one model


def trainer_write(database: Engine, part: int) -> None:
    from openledger.trainer.v1 import trainer_pb2 as pb

    from servicekit.database.request_ids import RequestId

    for number in range(COUNT):
        request = RequestId.of("alice", pb.CreateTrainingRunRequest(request_id=f"r{number}"))
        run_in_transaction(
            database, lambda session, request=request: add_trained_version(session, request), _ATTEMPTS
        )


def add_trained_version(session: Session, request: Any) -> None:
    from trainer.assessment import Assessment, Intent
    from trainer.contract.files import TrainingResult
    from trainer.contract.spec import DEFAULTS, NO_REHEARSAL, EffectiveSpec, TrainingSpec
    from trainer.entities import JobKind, Run
    from trainer.store import jobs, runs, versions

    if request.made(session) is not None:
        return
    digest = "sha256:" + "0" * 64
    spec = TrainingSpec(learning_rate=5e-4, steps=40, rehearsal=NO_REHEARSAL, **DEFAULTS)
    assessment = Assessment(
        findings=(), suggested=spec, effective=EffectiveSpec(spec, {}), expected_s=1.0, expected_basis=""
    )
    run = Run(
        job=jobs.add(session, JobKind.TRAIN),
        model="m",
        base_model="tiny",
        base_digest=digest,
        snapshots=(),
        spec=spec,
        origins=dict.fromkeys(spec.values(), "user"),
        intent=Intent(),
        assessment=assessment,
        principal="alice",
        version=0,
        tokens_per_s=0.0,
    )
    runs.add(session, run)
    version = versions.add(
        session,
        run,
        digest,
        TrainingResult(
            adapter_digest=digest,
            training_manifest_digest=digest,
            compute="cpu",
            packages={},
            measurements={},
        ),
    )
    request.remember(session, str(version.name))


def trainer_check(database: Engine) -> None:
    from trainer.store.tables import JobRow, VersionRow

    with reading(database) as session:
        assert sorted(session.scalars(select(VersionRow.number))) == list(range(1, COUNT + 1))
        assert session.scalar(select(func.count()).select_from(JobRow)) == COUNT
        made = session.execute(text("SELECT resource FROM request_ids")).scalars().all()
        assert len(set(made)) == COUNT


# --- inference: both read the same events, one of them the newest first


def inference_write(database: Engine, part: int) -> None:
    from inference import store

    numbers = range(COUNT) if part else reversed(range(COUNT))
    for number in numbers:
        run_in_transaction(
            database,
            lambda session, number=number: store.put_version(
                session, _version(number), _START + timedelta(minutes=number)
            ),
            _ATTEMPTS,
        )


def _version(number: int) -> Any:
    from inference.catalogue import Version, VersionState

    digest = f"sha256:{number:064x}"
    return Version(
        name="models/m/versions/1",
        state=VersionState.PROMOTED,
        version_digest=digest,
        base_digest=digest,
        adapter_digest=digest,
        report_digest=digest,
        owner="owner",
        changed=_START,
    )


def inference_check(database: Engine) -> None:
    from inference import store

    with reading(database) as session:
        assert store.versions(session) == [_version(COUNT - 1)]


# --- attribution: both have scored the same answers


def attribution_prepare(database: Engine) -> None:
    from attribution.store import AnswerRow

    with transaction(database) as session:
        session.add_all(
            AnswerRow(
                id=f"{number:026d}", model_version="m", version_digest="", pending=True, event=b"event",
                not_before=_START,
            )
            for number in range(COUNT)
        )  # fmt: skip


def attribution_write(database: Engine, part: int) -> None:
    from openledger.attribution.v1 import attribution_pb2

    from attribution import store
    from servicekit.delivery import outbox
    from servicekit.eventlog.events import new_event
    from servicekit.eventlog.topics import ATTRIBUTION_SCORED_V1

    def finish(session: Session, number: int) -> None:
        done = store.Finished(
            record=b"{}",
            digest="sha256:" + "0" * 64,
            score_time=utc_now(),
            unattributed_ppm=1_000_000,
            naive_control_ppm=0,
            control_check_ppm=0,
        )
        if store.finish(session, f"{number:026d}", done):
            message = attribution_pb2.AttributionScored()
            outbox.add(session, new_event(ATTRIBUTION_SCORED_V1, f"inferences/{number}", message, "test"))

    for number in range(COUNT):
        run_in_transaction(database, lambda session, number=number: finish(session, number), _ATTEMPTS)


def attribution_check(database: Engine) -> None:
    from attribution.store import AnswerRow

    with reading(database) as session:
        assert session.scalar(select(func.count()).where(AnswerRow.pending)) == 0
        assert _outbox(session) == COUNT


# --- chain-relay: both take in the same answers, and seal batches whenever they like


def chain_relay_prepare(database: Engine) -> None:
    from chain_relay.chain import LedgerState
    from chain_relay.sealing import open_ledger

    with transaction(database) as session:
        open_ledger(session, 31337, "0x" + "11" * 20, LedgerState(0, 0))


def chain_relay_write(database: Engine, part: int) -> None:
    from chain_relay.answers import Terms, record_answer
    from chain_relay.convert import attributed_answer
    from chain_relay.sealing import seal
    from chain_relay.settings import Settings
    from openledger_testing import attributed_answers
    from servicekit.objects import ObjectStore

    settings, objects = Settings(auth_mode="development"), ObjectStore(tempfile.mkdtemp())
    terms = Terms(settings.rates, settings.split, settings.accounts)
    for number in range(COUNT):
        event = attributed_answers.scored(inference=f"inferences/01ARZ3NDEKTSV4RRFFQ69G5F{number:02d}")
        run_in_transaction(
            database,
            lambda session, event=event: record_answer(session, attributed_answer(event), terms),
            _ATTEMPTS,
        )
        if number % 3 == 2:
            run_in_transaction(database, lambda session: seal(session, objects, 5), _ATTEMPTS)
    while run_in_transaction(database, lambda session: seal(session, objects, 5), _ATTEMPTS) is not None:
        continue


def chain_relay_check(database: Engine) -> None:
    from chain_relay.store.tables import Batch, JournalEntry, ScoredAnswer

    with reading(database) as session:
        answers = session.scalars(select(ScoredAnswer).order_by(ScoredAnswer.event_index)).all()
        batches = session.scalars(select(Batch).order_by(Batch.seq)).all()
        assert [answer.event_index for answer in answers] == list(range(COUNT))
        assert [batch.seq for batch in batches] == list(range(len(batches)))
        assert sum(batch.event_count for batch in batches) == COUNT
        assert sum(batch.fee_total for batch in batches) == sum(answer.fee for answer in answers)
        paid = sum(session.scalars(select(JournalEntry.amount)))
        assert paid == sum(batch.payout_total for batch in batches)


WRITERS = {
    "datanet": Writers(datanet_prepare, datanet_write, datanet_check),
    "trainer": Writers(_nothing, trainer_write, trainer_check),
    "inference": Writers(_nothing, inference_write, inference_check),
    "attribution": Writers(attribution_prepare, attribution_write, attribution_check),
    "chain_relay": Writers(chain_relay_prepare, chain_relay_write, chain_relay_check),
}


if __name__ == "__main__":
    service, url, part = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    WRITERS[service].write(open_engine(url), int(part))
