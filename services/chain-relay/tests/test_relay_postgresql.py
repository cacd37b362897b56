"""The relay on PostgreSQL: the same promises with writers that really are concurrent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import settled
from relay_rig import FakeRig
from sqlalchemy import select

from chain_relay.answers import Terms, record_answer
from chain_relay.tables import Base, Batch, BatchState, RewardRoot, RewardRootState, ScoredAnswer
from servicekit.database import reading, run_in_transaction, schema_differences
from servicekit.testing import postgresql

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def postgresql_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeRig]:
    with postgresql() as url:
        rig = FakeRig(tmp_path_factory.mktemp("relay"), url)
        yield rig
        rig.close()


def test_migrations_make_the_declared_tables(postgresql_rig: FakeRig) -> None:
    assert schema_differences(postgresql_rig.engine, Base.metadata) == []


def test_answers_that_arrive_while_batches_are_sealed_are_in_exactly_one(postgresql_rig: FakeRig) -> None:
    rig = postgresql_rig
    terms = Terms(rig.settings.rates, rig.settings.split, rig.settings.accounts)
    events = [settled.scored() for _ in range(24)]

    def arrive(part: int) -> None:
        for event in events[part::2]:
            run_in_transaction(
                rig.engine, lambda session, event=event: record_answer(session, event, terms), 50
            )

    with ThreadPoolExecutor(2) as threads:
        arrivals = [threads.submit(arrive, part) for part in range(2)]
        while not all(arrival.done() for arrival in arrivals):
            rig.relay.seal_now()
        for arrival in arrivals:
            arrival.result()
    rig.relay.seal_now()
    with reading(rig.engine) as session:
        answers = session.scalars(select(ScoredAnswer).order_by(ScoredAnswer.event_index)).all()
        batches = session.scalars(select(Batch).order_by(Batch.seq)).all()
    assert [answer.event_index for answer in answers] == list(range(24))
    assert sum(batch.event_count for batch in batches) == 24
    assert sum(batch.fee_total for batch in batches) == sum(answer.fee for answer in answers)


def test_batches_become_final_and_rewards_accepted(postgresql_rig: FakeRig) -> None:
    rig = postgresql_rig
    rig.feed(2)
    rig.relay.seal_now()
    with reading(rig.engine) as session:
        count = len(session.scalars(select(Batch.seq)).all())
    for _ in range(count + 3):
        rig.relay.step()
        rig.mine()
    assert rig.commitments() == list(range(count))
    assert rig.batch(count - 1).state is BatchState.FINAL
    rig.relay.make_reward_root()
    for _ in range(5):
        rig.relay.step()
        rig.mine()
    with reading(rig.engine) as session:
        assert session.scalars(select(RewardRoot)).one().state is RewardRootState.ACCEPTED
