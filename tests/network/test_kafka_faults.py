"""Kafka behind a network that fails: the loops that wait for it are named meanwhile, and all is well soon after the fault.

The deadlines are shortened to a few seconds here; `make faults` has the real ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from openledger_ops.doctor.observation import observe
from openledger_ops.doctor.service_checks import service_findings
from openledger_testing.kafka_broker import KafkaBroker, fetch_jars
from openledger_testing.network_faults import FaultyProxy, Mode
from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery import outbox
from servicekit.delivery.consumer import ConsumerRunner
from servicekit.delivery.outbox import OutboxPublisher
from servicekit.eventlog import Topic, kafka, open_event_log, topics
from servicekit.eventlog.events import Event, new_event
from servicekit.server import Service
from servicekit.settings import ServiceSettings
from servicekit.testing.services import running
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.server

LOOPS = {"outbox", "consumer network faults"}
WHOLE_S = 120.0
"""30 s with the real deadlines (`make faults`); this only tells a loop that recovers from one that hangs on a busy machine."""


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyProxy]:
    with FaultyProxy(0) as running:
        yield running


@pytest.fixture(scope="module")
def broker(proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker of these tests' own, which advertises the proxy."""
    fetch_jars()
    own = KafkaBroker(tmp_path_factory.mktemp("kafka"), advertised_port=proxy.port)
    proxy.target = own.port
    own.start()
    yield own
    own.kill()


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, milliseconds in (("REQUEST", 2_000), ("DELIVERY", 3_000), ("METADATA", 2_000)):
        monkeypatch.setattr(kafka, f"_{name}_TIMEOUT_MS", milliseconds)


class Delivery:
    """A service whose outbox and consumer are connected by Kafka."""

    def __init__(self, folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.topic = Topic(f"network.{uuid4().hex}.v1", partitions=1)
        monkeypatch.setitem(topics.BY_NAME, self.topic.name, self.topic)
        self.arrived: set[str] = set()
        self.database: Engine = engine(f"sqlite:///{folder}/service.db")
        new_metadata().create_all(self.database)
        self.log = open_event_log(f"kafka://{address}")
        self.service = Service("datanet", ServiceSettings(state_dir=folder, auth_mode="development"), None)
        self.service.add_thread("outbox", OutboxPublisher(self.database, self.log).run)
        handlers = {self.topic: {"google.protobuf.StringValue": self._arrive}}
        runner = ConsumerRunner(self.log, self.database, "network faults", handlers)
        self.service.add_thread("consumer", runner.run)

    def _arrive(self, session: Session, event: Event[StringValue]) -> None:
        self.arrived.add(event.message.value)

    def send(self, value: str) -> None:
        with transaction(self.database) as session:
            outbox.add(session, new_event(self.topic, "k", StringValue(value=value), "openledger/test"))

    def named(self) -> set[str]:
        """Returns the loops that readiness and doctor name, and that the metric shows as failing."""
        assert self.service.address is not None
        found = observe("datanet", self.service.address.grpc, self.service.address.metrics)
        details = [each.detail for each in service_findings(found) if each.check == "loops"]
        return {
            loop
            for loop in LOOPS
            if any(each.startswith(f"{loop} is failing") and "Kafka at 127.0.0.1" in each for each in details)
            and found.samples is not None
            and (found.samples.value("openledger_loop_failing_seconds", loop=loop) or 0) > 0
        }

    def becomes_whole(self, value: str) -> None:
        """Sends an event, and waits until it has arrived and no loop is named."""
        self.send(value)
        eventually(lambda: value in self.arrived and not self.named(), f"{value} arrives", within_s=WHOLE_S)


@pytest.fixture
def delivery(
    broker: KafkaBroker, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Delivery]:
    made = Delivery(tmp_path, f"127.0.0.1:{proxy.port}", monkeypatch)
    with running(made.service, WHOLE_S):
        yield made
        proxy.heal()
    made.log.close()
    made.database.dispose()


def client_threads() -> int:
    """Returns how many threads the Kafka client's producers, consumers and administrators have."""
    return sum("kafka" in each.name.lower() for each in threading.enumerate())


def test_loops_that_wait_for_vanished_brokers_are_named_and_recover(
    delivery: Delivery, proxy: FaultyProxy
) -> None:
    delivery.becomes_whole("before")
    threads = client_threads()
    proxy.strike(Mode.VANISH)
    delivery.send("meanwhile")
    eventually(lambda: delivery.named() == LOOPS, "both loops are named", within_s=WHOLE_S)
    proxy.heal()
    delivery.becomes_whole("after")
    assert "meanwhile" in delivery.arrived
    eventually(lambda: client_threads() <= threads, "no thread more than before", within_s=WHOLE_S)


def test_brokers_that_were_replaced_by_empty_ones_get_their_topics_again(
    delivery: Delivery, broker: KafkaBroker, proxy: FaultyProxy
) -> None:
    delivery.becomes_whole("before")
    broker.replace_by_an_empty_one()
    proxy.replace(broker.port)
    delivery.becomes_whole("after")
