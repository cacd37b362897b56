"""The relay as its own process: events in, events out, kill -9 in between, and every RPC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from openledger.attribution.v1 import attribution_pb2
from openledger.settlement.v1 import settlement_pb2 as pb
from openledger.settlement.v1 import settlement_pb2_grpc

from openledger_client.channels import sync_channel
from openledger_client.errors import from_rpc_error
from openledger_testing import attributed_answers
from openledger_testing.anvil import Anvil
from servicekit.auth import DevelopmentIssuer
from servicekit.eventlog import topics
from servicekit.eventlog.events import from_record, new_event, to_record
from servicekit.eventlog.factory import open_event_log
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.server

Stub = settlement_pb2_grpc.SettlementServiceStub


class RelayProcess:
    """`python -m chain_relay` in a folder, on a chain."""

    def __init__(self, folder: Path, node: Anvil) -> None:
        self.folder = folder
        self._environment = {
            **os.environ,
            "OPENLEDGER_STATE_DIR": str(folder),
            "OPENLEDGER_AUTH_MODE": "development",
            "OPENLEDGER_CHAIN_RELAY_RPC_URL": node.url,
            "OPENLEDGER_CHAIN_RELAY_CHAIN_DEPLOY": "development",
            "OPENLEDGER_CHAIN_RELAY_POLL_INTERVAL_S": "0.1",
            "OPENLEDGER_CHAIN_RELAY_BATCH_MAX_AGE_S": "3600",  # only the test seals, however slow the machine
            "OPENLEDGER_CHAIN_RELAY_REWARD_DELAY_S": "0",
        }

    @contextmanager
    def running(self) -> Iterator[Stub]:
        """Starts it, gives a stub of an administrator, kills it without warning."""
        process = subprocess.Popen(
            [sys.executable, "-m", "chain_relay"], env=self._environment, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            ready = next(json.loads(line) for line in process.stdout if '"event": "ready"' in line)
            token = DevelopmentIssuer(self.folder, "openledger").mint("tester", ["admin"])
            with sync_channel(ready["grpc"], token) as channel:
                yield Stub(channel)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def publish(self, *events: attribution_pb2.AttributionScored) -> None:
        """As the attribution service would."""
        log = open_event_log(f"embedded:{self.folder / 'events.db'}")
        log.ensure_topics([topics.ATTRIBUTION_SCORED_V1])
        producer = log.producer()
        records = [
            new_event(topics.ATTRIBUTION_SCORED_V1, event.attribution.inference, event, "test")
            for event in events
        ]
        producer.send([to_record(record) for record in records])
        producer.close()
        log.close()

    def published_states(self) -> list[pb.BatchStateChanged]:
        """The events that the relay published."""
        log = open_event_log(f"embedded:{self.folder / 'events.db'}")
        log.ensure_topics([topics.SETTLEMENT_BATCH_V1])
        consumer = log.consumer("a test", [topics.SETTLEMENT_BATCH_V1.name])
        # A kill between publishing and noting it publishes again, under the same id.
        by_id: dict[str, pb.BatchStateChanged] = {}
        read = 0
        while sum(log.end_offsets(topics.SETTLEMENT_BATCH_V1.name).values()) > read:
            records = consumer.poll(2.0, 100)
            read += len(records)
            for event in map(from_record, records):
                by_id.setdefault(event.id, event.message)
        consumer.close()
        log.close()
        return list(by_id.values())


def wait_for_waiting(stub: Stub, count: int) -> None:
    eventually(
        lambda: stub.GetSettlementInfo(pb.GetSettlementInfoRequest()).waiting_event_count == count,
        f"{count} events that wait",
    )


def test_events_come_in_money_goes_out_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    events = [attributed_answers.scored() for _ in range(6)]
    with Anvil("--block-time", "1", slots_in_an_epoch=2) as node:
        relay = RelayProcess(tmp_path, node)
        with relay.running() as stub:
            relay.publish(*events)
            wait_for_waiting(stub, 6)
        with relay.running() as stub:
            sealed = stub.FlushBatch(pb.FlushBatchRequest(request_id="flush"))
            assert stub.FlushBatch(pb.FlushBatchRequest(request_id="flush")).batch.name == sealed.batch.name
            assert sealed.batch.event_count == 6
        with relay.running() as stub:
            states = [
                batch.state for batch in stub.WatchBatch(pb.WatchBatchRequest(name="batches/0"), timeout=60)
            ]
            assert states[-1] == pb.BATCH_STATE_FINAL
            check_money(stub, [event.attribution.inference for event in events])
            check_rewards(stub)
            check_refusals(stub)
            # Before the process is killed: a state is published after a watcher has seen it.
            eventually(lambda: len(relay.published_states()) >= 5, "the events of all states")
    published = relay.published_states()
    assert [message.batch.state for message in published] == [1, 2, 3, 4, 5]
    assert all(message.batch.event_count == 6 for message in published)


def check_money(stub: Stub, inferences: list[str]) -> None:
    batch = stub.GetBatch(pb.GetBatchRequest(name="batches/0"))
    fees = 0
    for inference in inferences:
        money = stub.GetSettlement(pb.GetSettlementRequest(inference=inference))
        assert int(money.fee) == sum(int(part.amount) for part in money.payouts) + int(money.dust)
        assert money.batch == "batches/0"
        proof = stub.GetInclusionProof(pb.GetInclusionProofRequest(inference=inference))
        assert proof.batch.root == batch.root
        fees += int(money.fee)
    assert fees == int(batch.fee_total) == int(batch.payout_total) + int(batch.dust)
    balances = stub.ListBalances(pb.ListBalancesRequest(page_size=2))
    rest = stub.ListBalances(pb.ListBalancesRequest(page_token=balances.next_page_token))
    rows = [*balances.balances, *rest.balances]
    assert sum(int(row.earned) for row in rows) == int(batch.payout_total)
    info = stub.GetSettlementInfo(pb.GetSettlementInfoRequest())
    assert info.baseline_gas_per_event > 21_000
    assert batch.gas_used / 6 < info.baseline_gas_per_event


def check_rewards(stub: Stub) -> None:
    root = stub.ProposeRewardRoot(pb.ProposeRewardRootRequest(request_id="propose"))
    assert stub.ProposeRewardRoot(pb.ProposeRewardRootRequest(request_id="propose")).name == root.name

    def accepted() -> pb.RewardRoot | None:
        found = stub.GetRewardRoot(pb.GetRewardRootRequest(name=root.name))
        return (
            found if found.state == pb.REWARD_ROOT_STATE_ACCEPTED and found.accept_transaction_hash else None
        )

    eventually(accepted, "the acceptance of the root")
    proof = stub.GetRewardProof(pb.GetRewardProofRequest(address=attributed_answers.ADDRESSES["eset"]))
    assert int(proof.cumulative) > 0
    assert proof.claimed == "0"
    assert [row.name for row in stub.ListRewardRoots(pb.ListRewardRootsRequest()).reward_roots] == [root.name]


def check_refusals(stub: Stub) -> None:
    assert not stub.FlushBatch(pb.FlushBatchRequest(request_id="nothing waits")).HasField("batch")
    unknown = "inferences/01JDGXG4ZXQ8V5E7YB1T3M9KCN"
    refusals = [
        (lambda: stub.GetBatch(pb.GetBatchRequest(name="batches/7")), "BATCH_NOT_FOUND"),
        (lambda: stub.GetBatch(pb.GetBatchRequest(name="batch")), "INVALID_ARGUMENT"),
        (lambda: stub.GetInclusionProof(pb.GetInclusionProofRequest(inference=unknown)), "NOT_FOUND"),
        (lambda: stub.ProposeRewardRoot(pb.ProposeRewardRootRequest(request_id="2")), "NOTHING_TO_REWARD"),
        (lambda: stub.ListBatches(pb.ListBatchesRequest(page_token="x")), "INVALID_ARGUMENT"),
        (lambda: stub.GetRewardProof(pb.GetRewardProofRequest(address="0x" + "ab" * 20)), "NOT_FOUND"),
    ]
    for call, reason in refusals:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert reason in from_rpc_error(caught.value).reason
