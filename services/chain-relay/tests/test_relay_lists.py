"""Lists of batches, balances and reward roots: filters, orders, totals, whole pages. And the watch of a batch."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import cast

import pytest
from openledger.settlement.v1 import settlement_pb2 as pb

from chain_relay.api import Context, SettlementApi
from chain_relay.settlement import Settlement
from chain_relay.store.tables import BatchState
from openledger_testing.relay_rig import FakeRig
from servicekit.database.request_ids import RequestId
from servicekit.errors import InvalidArgument
from servicekit.lists import Query

_PATIENCE_S = 60
_MOST_BLOCKS = 100


@pytest.fixture
def settlement(fake_rig: FakeRig) -> Settlement:
    """The API's core above five batches of 1 to 5 answers, the first three of them committed."""
    for size in range(1, 6):
        fake_rig.feed(size, input_tokens=100_000_000)
        fake_rig.relay.seal_now()
    for _ in range(3):
        fake_rig.relay.step()
        fake_rig.mine()
    return Settlement(
        engine=fake_rig.engine,
        chain=fake_rig.chain,
        relay=fake_rig.relay,
        settings=fake_rig.settings,
        contracts={},
        committer="",
    )


def seqs(settlement: Settlement, **query: object) -> list[int]:
    page = settlement.batches(Query(**query))  # type: ignore[arg-type]
    return [record.batch.seq for record in page.items]


def test_batches_are_newest_first_and_filtered_by_state_and_size(settlement: Settlement) -> None:
    assert seqs(settlement) == [4, 3, 2, 1, 0]
    assert seqs(settlement, filter="state = SEALED OR state = SUBMITTED") == [4, 3]
    assert seqs(settlement, filter="event_count > 2 AND seq < 4", order_by="event_count") == [2, 3]
    assert seqs(settlement, filter="name = batches/3 OR name = batches/99") == [3]
    assert seqs(settlement, filter="name = batches/9223372036854775807") == []


def test_pages_of_batches_are_whole_and_keep_the_total(settlement: Settlement) -> None:
    first = settlement.batches(Query(page_size=2, order_by="event_count desc"))
    assert [record.batch.event_count for record in first.items] == [5, 4]
    assert first.total_size == 5
    second = settlement.batches(
        Query(page_size=3, order_by="event_count desc", page_token=first.next_page_token)
    )
    assert [record.batch.event_count for record in second.items] == [3, 2, 1]
    assert (second.next_page_token, second.total_size) == ("", 5)
    assert all(record.history for record in second.items)


def test_a_page_token_of_another_order_is_refused(settlement: Settlement) -> None:
    first = settlement.batches(Query(page_size=2))
    with pytest.raises(InvalidArgument, match="page_token"):
        settlement.batches(Query(page_size=2, order_by="seq", page_token=first.next_page_token))


def test_balances_above_64_bits_are_paged_largest_first(settlement: Settlement) -> None:
    whole, sums = settlement.balances(Query())
    amounts = [row.earned.amount for row in whole.items]
    assert amounts == sorted(amounts, reverse=True)
    assert sum(amounts) > 1 << 63, "the test's fees must outgrow a 64-bit integer"
    assert sums.fees == sums.payouts + sums.dust == sum(amounts) + sums.dust
    paged, token = [], ""
    for _ in amounts:
        page, same = settlement.balances(Query(page_size=1, page_token=token))
        paged += page.items
        token = page.next_page_token
        assert (page.total_size, same) == (len(amounts), sums)
    assert (paged, token) == (list(whole.items), "")


@pytest.mark.parametrize("value", ['"x"', '{"decimal":"NaN"}'])
def test_a_page_token_with_a_value_of_another_type_is_refused(settlement: Settlement, value: str) -> None:
    page, _ = settlement.balances(Query(page_size=1))
    state = json.loads(base64.urlsafe_b64decode(page.next_page_token + "=="))
    state["a"][0] = json.loads(value)
    token = base64.urlsafe_b64encode(json.dumps(state).encode()).decode().rstrip("=")
    with pytest.raises(InvalidArgument, match="page_token"):
        settlement.balances(Query(page_token=token))


def test_balances_are_filtered_by_kind_and_amount(settlement: Settlement) -> None:
    contributors, _ = settlement.balances(Query(filter='kind = "contributor"'))
    assert contributors.total_size == 2
    largest = max(row.earned.amount for row in contributors.items)
    found, _ = settlement.balances(Query(filter=f'kind = "contributor" AND earned >= {largest}'))
    assert [row.earned.amount for row in found.items] == [largest]
    with pytest.raises(InvalidArgument, match="base units"):
        settlement.balances(Query(filter="earned > -1"))


def test_reward_roots_are_filtered_by_state(settlement: Settlement) -> None:
    made = settlement.propose(RequestId("alice", "ProposeRewardRoot", "1", ""))
    page = settlement.reward_roots(Query(filter="state = PENDING"))
    assert [record.root.number for record in page.items] == [made.root.number]
    assert settlement.reward_roots(Query(filter="state = ACCEPTED")).total_size == 0
    named = settlement.reward_roots(Query(filter=f"name = rewardRoots/{made.root.number}"))
    assert [record.root.number for record in named.items] == [made.root.number]


async def test_every_commit_of_a_batchs_state_wakes_its_watch(
    fake_rig: FakeRig, settlement: Settlement
) -> None:
    states: list[int] = []
    request = pb.WatchBatchRequest(name="batches/4")
    api = SettlementApi(settlement, fake_rig.changes)
    async with asyncio.timeout(_PATIENCE_S):
        async for batch in api.WatchBatch(request, cast(Context, None)):
            # Nothing else happens until the watch has shown the newest state: each change alone must wake it.
            states.append(batch.state)
            await asyncio.to_thread(_until_changed, fake_rig, 4)
    assert states == [
        pb.BATCH_STATE_SEALED,
        pb.BATCH_STATE_SUBMITTED,
        pb.BATCH_STATE_COMMITTED,
        pb.BATCH_STATE_SETTLED,
        pb.BATCH_STATE_FINAL,
    ]


def _until_changed(rig: FakeRig, seq: int) -> None:
    before = rig.batch(seq).state
    for _ in range(_MOST_BLOCKS):
        if before is BatchState.FINAL or rig.batch(seq).state is not before:
            return
        rig.relay.step()
        rig.fake.mine()
    raise AssertionError(f"batch {seq} is {before.name} after {_MOST_BLOCKS} blocks")


async def test_a_watch_of_a_name_in_another_form_is_refused(
    fake_rig: FakeRig, settlement: Settlement
) -> None:
    watch = SettlementApi(settlement, fake_rig.changes).WatchBatch(
        pb.WatchBatchRequest(name="batches/007"), cast(Context, None)
    )
    with pytest.raises(InvalidArgument, match="name"):
        await anext(watch)
