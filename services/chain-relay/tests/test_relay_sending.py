"""Prices, caps, unreachable nodes, and what the registry and the distributor still lack."""

from __future__ import annotations

from datetime import timedelta

import pytest
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.trainer.v1 import events_pb2 as trainer_events
from openledger.trainer.v1 import trainer_pb2
from sqlalchemy import select

from chain_relay import convert, events, registrar, rewards
from chain_relay.chain import ChainUnavailable
from chain_relay.store.tables import (
    BatchState,
    Outcome,
    RegisteredDataset,
    RegisteredModel,
    RewardRoot,
    RewardRootState,
    SignedTransaction,
)
from identity.digest import digest_to_bytes, sha256_bytes
from identity.leaf import name_hash
from openledger_testing.relay_rig import GWEI, FakeRig
from servicekit.database import reading, transaction, utc_now
from servicekit.errors import FailedPrecondition
from servicekit.eventlog.events import InvalidEvent, new_event
from servicekit.eventlog.topics import MODEL_VERSION_V1

pytestmark = pytest.mark.slow


def sent(rig: FakeRig) -> list[SignedTransaction]:
    with reading(rig.engine) as session:
        return list(session.scalars(select(SignedTransaction).order_by(SignedTransaction.id)))


def settle(rig: FakeRig, count: int = 2) -> None:
    rig.feed(count)
    rig.relay.seal_now()
    rig.relay.step()
    rig.mine()


def test_a_transaction_the_base_fee_outran_is_raised_until_it_fits(fake_rig: FakeRig) -> None:
    fake_rig.feed(1)
    fake_rig.relay.seal_now()
    fake_rig.relay.step()
    fake_rig.fake.base_fee = 5 * GWEI
    fake_rig.fake.forget(sent(fake_rig)[0].hash)
    fake_rig.relay.step()
    fake_rig.mine()
    first, second = sent(fake_rig)
    assert (first.outcome, second.outcome) == (Outcome.REPLACED, Outcome.SUCCEEDED)
    assert fake_rig.commitments() == [0]


def test_above_the_cap_nothing_is_signed_and_below_it_sending_resumes(fake_rig: FakeRig) -> None:
    fake_rig.feed(1)
    fake_rig.relay.seal_now()
    fake_rig.fake.base_fee = 500 * GWEI
    fake_rig.relay.step()
    assert sent(fake_rig) == []
    fake_rig.fake.base_fee = GWEI
    fake_rig.relay.step()
    fake_rig.mine()
    assert fake_rig.batch(0).state is BatchState.COMMITTED


def test_no_price_ever_exceeds_the_cap(fake_rig: FakeRig) -> None:
    fake_rig.fake.base_fee = 90 * GWEI
    fake_rig.feed(1)
    fake_rig.relay.seal_now()
    fake_rig.relay.step()
    fake_rig.fake.base_fee = 300 * GWEI
    for _ in range(5):
        fake_rig.later += timedelta(seconds=31)
        fake_rig.relay.step()
    assert max(transaction.max_fee for transaction in sent(fake_rig)) <= 200 * GWEI


def test_an_unreachable_node_stops_only_the_step(fake_rig: FakeRig) -> None:
    fake_rig.feed(1)
    fake_rig.relay.seal_now()
    fake_rig.fake.unreachable = True
    with pytest.raises(ChainUnavailable):
        fake_rig.relay.step()
    fake_rig.feed(1)
    fake_rig.relay.seal_now()
    fake_rig.fake.unreachable = False
    for _ in range(4):
        fake_rig.relay.step()
        fake_rig.mine()
    assert fake_rig.commitments() == [0, 1]


def snapshot(root: bytes = b"root") -> datanet_events.SnapshotSealed:
    event = datanet_events.SnapshotSealed()
    event.snapshot.name = "datanets/threat-intel/snapshots/1"
    event.snapshot.root = sha256_bytes(root)
    event.snapshot.manifest_digest = sha256_bytes(b"manifest")
    return event


def version(
    state: trainer_pb2.ModelVersionState.ValueType, report: bytes = b"", number: int = 1
) -> trainer_pb2.ModelVersion:
    return trainer_pb2.ModelVersion(
        name=f"models/tactics/versions/{number}",
        digest=sha256_bytes(b"version" if number == 1 else b"version %d" % number),
        base_digest=sha256_bytes(b"base"),
        adapter_digest=sha256_bytes(b"adapter"),
        state=state,
        report_digest=sha256_bytes(report) if report else "",
    )


def test_snapshots_and_versions_are_registered_and_later_states_follow(fake_rig: FakeRig) -> None:
    with transaction(fake_rig.engine) as session:
        registrar.record_snapshot(session, convert.snapshot_registration(snapshot()))
        registrar.record_model_version(
            session, convert.model_registration(version(trainer_pb2.MODEL_VERSION_STATE_TRAINED)), utc_now()
        )
    for _ in range(6):
        fake_rig.relay.step()
        fake_rig.mine()
    with transaction(fake_rig.engine) as session:
        registrar.record_model_version(
            session,
            convert.model_registration(version(trainer_pb2.MODEL_VERSION_STATE_PROMOTED, report=b"report")),
            utc_now(),
        )
    for _ in range(6):
        fake_rig.relay.step()
        fake_rig.mine()
    latest = fake_rig.chain.block("latest")
    assert latest is not None
    key = name_hash("datanets/threat-intel/snapshots/1")
    assert fake_rig.chain.dataset_root(key, latest) == digest_to_bytes(sha256_bytes(b"root"))
    model = fake_rig.chain.model(digest_to_bytes(sha256_bytes(b"version")), latest)
    assert (model.state, model.report_digest) == (4, digest_to_bytes(sha256_bytes(b"report")))
    with reading(fake_rig.engine) as session:
        assert session.scalars(select(RegisteredDataset)).one().final
        assert session.scalars(select(RegisteredModel)).one().final
    purposes = [transaction.purpose.split("/")[0] for transaction in sent(fake_rig)]
    assert sorted(purposes) == ["dataset", "model", "model"]


def test_one_event_moves_both_versions_of_a_promotion_and_the_promoted_one_first(fake_rig: FakeRig) -> None:
    def apply(changed: trainer_events.ModelVersionChanged) -> None:
        with transaction(fake_rig.engine) as session:
            events.model_version_changed(
                session, new_event(MODEL_VERSION_V1, "models/tactics", changed, "test")
            )

    apply(trainer_events.ModelVersionChanged(model_version=version(trainer_pb2.MODEL_VERSION_STATE_PROMOTED)))
    for _ in range(4):
        fake_rig.relay.step()
        fake_rig.mine()
    promoted = version(trainer_pb2.MODEL_VERSION_STATE_PROMOTED, number=2)
    retired = version(trainer_pb2.MODEL_VERSION_STATE_RETIRED)
    apply(trainer_events.ModelVersionChanged(model_version=promoted, retired=retired))
    latest = fake_rig.chain.block("latest")
    assert latest is not None
    calls = [
        call for _, call in registrar.Registrar(fake_rig.engine, fake_rig.chain).next_calls(latest, None)
    ]
    assert [call.args[0] for call in calls] == [
        digest_to_bytes(promoted.digest),
        digest_to_bytes(retired.digest),
    ]


def test_a_late_event_does_not_take_back_a_newer_state(fake_rig: FakeRig) -> None:
    """Version 1 is promoted, retired by version 2, and promoted again; then the retirement is sent again."""
    now = utc_now()
    promoted, retired = trainer_pb2.MODEL_VERSION_STATE_PROMOTED, trainer_pb2.MODEL_VERSION_STATE_RETIRED

    def apply(first: trainer_pb2.ModelVersion, second: trainer_pb2.ModelVersion | None, age_s: float) -> None:
        changed = trainer_events.ModelVersionChanged(model_version=first, retired=second)
        changed.event_time.FromDatetime(now - timedelta(seconds=age_s))
        with transaction(fake_rig.engine) as session:
            events.model_version_changed(
                session, new_event(MODEL_VERSION_V1, "models/tactics", changed, "test")
            )

    def states() -> list[int]:
        with reading(fake_rig.engine) as session:
            found = select(RegisteredModel.state).order_by(RegisteredModel.version_digest)
            return list(session.scalars(found))

    apply(version(promoted, number=2), version(retired), age_s=20)
    apply(version(promoted), version(retired, number=2), age_s=10)
    newest = states()
    assert sorted(newest) == sorted([promoted, retired])
    apply(version(promoted, number=2), version(retired), age_s=20)
    assert states() == newest
    apply(version(promoted, number=2), version(retired), age_s=5)
    assert states() == newest[::-1]


def test_a_snapshot_that_changed_is_refused(fake_rig: FakeRig) -> None:
    with transaction(fake_rig.engine) as session:
        registrar.record_snapshot(session, convert.snapshot_registration(snapshot()))
        with pytest.raises(InvalidEvent, match="SNAPSHOT_CHANGED"):
            registrar.record_snapshot(session, convert.snapshot_registration(snapshot(b"another")))


def test_rewards_grow_with_every_root_and_one_is_open_at_a_time(fake_rig: FakeRig) -> None:
    settle(fake_rig)
    fake_rig.relay.make_reward_root()
    with pytest.raises(FailedPrecondition) as caught:
        fake_rig.relay.make_reward_root()
    assert caught.value.reason == "REWARD_ROOT_OPEN"
    for _ in range(6):
        fake_rig.relay.step()
        fake_rig.mine()
    with pytest.raises(FailedPrecondition) as caught:
        fake_rig.relay.make_reward_root()
    assert caught.value.reason == "NOTHING_TO_REWARD"
    settle(fake_rig)
    fake_rig.relay.make_reward_root()
    for _ in range(6):
        fake_rig.relay.step()
        fake_rig.mine()
    with reading(fake_rig.engine) as session:
        first, second = session.scalars(select(RewardRoot).order_by(RewardRoot.number)).all()
        under_first, under_second = (
            rewards.amounts_under(session, first),
            rewards.amounts_under(session, second),
        )
    assert (first.state, second.state) == (RewardRootState.ACCEPTED, RewardRootState.ACCEPTED)
    assert second.total == sum(under_second.values()) == 2 * first.total
    assert all(under_second[account] >= amount for account, amount in under_first.items())


def test_a_reorg_takes_a_proposal_back_and_it_is_made_again(fake_rig: FakeRig) -> None:
    settle(fake_rig)
    fake_rig.mine(3)
    fake_rig.relay.make_reward_root()
    for _ in range(2):
        fake_rig.relay.step()
        fake_rig.mine()
    fake_rig.reorg(2)
    for _ in range(6):
        fake_rig.relay.step()
        fake_rig.mine()
    with reading(fake_rig.engine) as session:
        assert session.get_one(RewardRoot, 1).state is RewardRootState.ACCEPTED
    latest = fake_rig.chain.block("latest")
    assert latest is not None
    assert fake_rig.chain.distributor(latest).next_number == 2
