"""Streams that are cut, cancelled, concurrent, or meet a service that dies: what was acknowledged is there, once."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1 import events_pb2
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from datanet.definition import Datanet
from datanet.entities import Contributor
from datanet.evaluation_items import EvaluationItemsCache
from datanet.intake import Intake
from datanet.registry import Registry
from identity.names import ContributorName
from openledger_client.channels import sync_channel
from servicekit.auth import DevelopmentIssuer, Principal
from servicekit.database import engine, migrate, utc_now
from servicekit.database.request_ids import UNNAMED
from servicekit.eventlog.factory import open_event_log
from servicekit.objects import ObjectStore
from servicekit.testing.waiting import LONGEST_S, eventually

Encode = Callable[..., bytes]
METHOD = "/openledger.datanet.v1.DatanetService/Contribute"


def record(number: int, encode: Encode) -> bytes:
    """The record of a number."""
    return encode(f"Actor{number} copies archive{number} before it deletes log{number} of host{number}")


def running_streams() -> float:
    """Contribute calls that run in this process now."""
    return REGISTRY.get_sample_value("openledger_requests_running", {"method": METHOD}) or 0.0


def test_a_cancelled_client_leaves_nothing_running_and_keeps_what_was_acknowledged(
    net: Any, encode: Encode
) -> None:
    sent = itertools.count()
    requests = (
        pb.ContributeRequest(contributor=net.alice, sequence=n, content=record(n, encode)) for n in sent
    )
    before = running_streams()
    call = net.client("alice").Contribute(requests)
    acknowledged = [next(call).digest for _ in range(30)]
    call.cancel()
    eventually(lambda: running_streams() <= before, "the end of the cancelled stream")
    listed = net.owner.ListRecords(pb.ListRecordsRequest(parent=net.name, page_size=1000)).records
    assert set(acknowledged) <= {each.digest for each in listed}
    threads = [thread.name for thread in threading.enumerate()]
    assert not any("contribute" in name.lower() for name in threads)


def test_a_cut_stream_sent_again_has_every_record_once(net: Any, encode: Encode) -> None:
    records = [record(n, encode) for n in range(120)]
    requests = [
        pb.ContributeRequest(contributor=net.alice, sequence=n, content=content)
        for n, content in enumerate(records)
    ]
    call = net.client("alice").Contribute(iter(requests))
    first = [next(call) for _ in range(40)]
    call.cancel()
    again = net.contribute(net.alice, records)
    assert [answer.digest for answer in again[:40]] == [answer.digest for answer in first]
    assert all(answer.already_present for answer in again[:40])
    assert {answer.state for answer in again} == {pb.RECORD_STATE_ACCEPTED}
    contributors = net.owner.ListContributors(pb.ListContributorsRequest(parent=net.name)).contributors
    assert {each.display_name: each.accepted_count for each in contributors}["alice"] == 120


@pytest.mark.parametrize(
    "bad",
    [b'{"\\ud800": "x"}', b'{"\\ud800": 1, "\\ud800": 2}', b'{"text": "\\udc00", "tactic": "discovery"}'],
)
def test_a_lone_surrogate_refuses_its_record_and_the_stream_continues(
    net: Any, encode: Encode, bad: bytes
) -> None:
    good = encode("The group lists running processes with tasklist every day.")
    for _ in range(2):  # and again when the file is sent again
        first, second, third = net.contribute(net.alice, [bad, good, bad])
        assert [first.rule, second.rule, third.rule] == ["not_text", "", "not_text"]


def test_an_interactive_client_gets_each_answer_before_it_sends_the_next(net: Any, encode: Encode) -> None:
    answered = threading.Semaphore(1)

    def requests() -> Iterator[pb.ContributeRequest]:
        for number in range(5):
            assert answered.acquire(timeout=LONGEST_S)
            yield pb.ContributeRequest(contributor=net.alice, content=record(number, encode))

    for answer in net.client("alice").Contribute(requests()):
        assert answer.state == pb.RECORD_STATE_ACCEPTED
        answered.release()


def test_of_contributors_who_send_the_same_at_once_one_has_each_record(net: Any, encode: Encode) -> None:
    names = [net.alice, net.bob, net.register("carol"), net.register("dave")]
    records = [record(number, encode) for number in range(150)]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: net.contribute(name, records), names))
    for of_one_record in zip(*answers, strict=True):
        states = Counter(answer.state for answer in of_one_record)
        assert states == {pb.RECORD_STATE_ACCEPTED: 1, pb.RECORD_STATE_REJECTED: 3}
    assert net.seal().record_count == 150


def test_a_stream_may_change_its_contributor_only_to_the_same_principals(net: Any, encode: Encode) -> None:
    requests = [
        pb.ContributeRequest(contributor=net.alice, sequence=1, content=record(1, encode)),
        pb.ContributeRequest(sequence=2, content=record(2, encode)),
        pb.ContributeRequest(contributor=net.bob, sequence=3, content=record(3, encode)),
    ]
    call = net.client("alice").Contribute(iter(requests))
    answers = [next(call), next(call)]
    assert [answer.sequence for answer in answers] == [1, 2]
    with pytest.raises(grpc.RpcError) as refused:
        next(call)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]


def test_a_batch_whose_transaction_fails_is_not_acknowledged_and_leaves_nothing(
    tmp_path: Path, database_url: str, datanet: Datanet, encode: Encode
) -> None:
    database = engine(database_url)
    migrate(database, "datanet")
    evaluation_items = EvaluationItemsCache(ObjectStore(tmp_path / "objects"))
    owner, name = Principal("owner"), ContributorName("threat-intel", "alice")
    registry = Registry(database, evaluation_items)
    registry.create(owner, datanet, UNNAMED)
    alice = Contributor(
        name=str(name),
        principal="alice",
        display_name="",
        payout_address="",
        consent_licence=datanet.licence,
        consent_time=utc_now(),
    )
    registry.register(owner, alice, UNNAMED)
    writer = Intake(database, evaluation_items, max_rejected=1000).open(Principal("alice"), name)
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE outbox RENAME TO gone"))
    with pytest.raises(DBAPIError, match="outbox"):
        writer.write([record(1, encode)])
    with database.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM records")).scalar() == 0
        connection.execute(text("ALTER TABLE gone RENAME TO outbox"))
    assert [result.already_present for result in writer.write([record(1, encode)])] == [False]
    database.dispose()


@pytest.mark.server
def test_a_killed_service_loses_nothing_it_acknowledged_and_publishes_every_event_once(
    tmp_path: Path, encode: Encode
) -> None:
    with Killable(tmp_path) as service:
        service.start()
        net = service.prepare()
        acknowledged: list[str] = []
        requests = (
            pb.ContributeRequest(contributor=net, sequence=n, content=record(n, encode))
            for n in itertools.count()
        )
        with pytest.raises(grpc.RpcError):
            _killed_after(
                500, service, service.stub("alice", "contributor").Contribute(requests), acknowledged
            )
        service.start()
        again = [record(n, encode) for n in range(len(acknowledged) + 300)]
        answers = list(
            service.stub("alice", "contributor").Contribute(
                pb.ContributeRequest(contributor=net, sequence=n, content=content)
                for n, content in enumerate(again)
            )
        )
        assert [answer.digest for answer in answers[: len(acknowledged)]] == acknowledged
        assert all(answer.already_present for answer in answers[: len(acknowledged)])
        published = service.published({answer.digest for answer in answers})
    assert set(published.values()) == {1}


class Killable:
    """The service as a process of its own, that can be killed and started again on the same state."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._process: subprocess.Popen[str] | None = None
        self._address = ""
        self._channels: list[grpc.Channel] = []

    def __enter__(self) -> Killable:
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels:
            channel.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            assert self._process.wait(LONGEST_S) == 0
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def start(self) -> None:
        """Returns when it is ready."""
        environment = {
            **os.environ,
            "OPENLEDGER_STATE_DIR": str(self._state_dir),
            "OPENLEDGER_AUTH_MODE": "development",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "datanet"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{") and json.loads(line).get("event") == "ready":
                self._address = json.loads(line)["grpc"]
                return
        raise AssertionError("the service did not start")

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(LONGEST_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def stub(self, principal: str, role: str) -> Any:
        """A client of the API."""
        channel = sync_channel(self._address, DevelopmentIssuer(self._state_dir).mint(principal, [role]))
        self._channels.append(channel)
        return DatanetServiceStub(channel)

    def prepare(self) -> str:
        """Makes a Datanet and its contributor alice; returns her resource name."""
        owner = self.stub("owner", "curator")
        schema = pb.RecordSchema(
            fields=[pb.RecordSchema.Field(name=name, required=True) for name in ("text", "tactic")],
            prompt_template="{text}",
            completion_template="{tactic}",
        )
        policy = pb.QualityPolicy(contamination_check=pb.CONTAMINATION_CHECK_OFF)
        content = pb.Datanet(licence="x", schema=schema, policy=policy)
        owner.CreateDatanet(pb.CreateDatanetRequest(datanet_id="killed", datanet=content))
        alice = pb.Contributor(principal="alice", consent_licence="x")
        made = owner.RegisterContributor(
            pb.RegisterContributorRequest(parent="datanets/killed", contributor_id="alice", contributor=alice)
        )
        return str(made.name)

    def published(self, digests: set[str]) -> Counter[str]:
        """How often the event log contains each record, counting repeats of one event once."""
        log = open_event_log(f"embedded:{self._state_dir / 'events.db'}")
        consumer = log.consumer("test", ["datanet.contribution.v1"])
        events: dict[bytes, str] = {}
        try:
            eventually(lambda: _drain(consumer, events) and digests <= set(events.values()), "the events")
        finally:
            consumer.close()
            log.close()
        return Counter(events.values())


def _killed_after(count: int, service: Killable, answers: Any, acknowledged: list[str]) -> None:
    """Kills the service once it has acknowledged this many records, and reads on until the stream breaks."""
    for answer in answers:
        acknowledged.append(answer.digest)
        if len(acknowledged) == count:
            service.kill()


def _drain(consumer: Any, events: dict[bytes, str]) -> bool:
    for each in consumer.poll(0.2, 1000):
        message = events_pb2.ContributionRecorded.FromString(each.value)
        events[dict(each.headers)["ce_id"]] = message.record_digest
    return True
