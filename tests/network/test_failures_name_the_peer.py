"""What a loop reports when another process does not answer (log, /readyz) names that process, and no keys."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import KafkaTimeoutError
from sqlalchemy import text

from chain_relay.chain import ChainUnavailable
from chain_relay.contracts import Deployment
from chain_relay.web3_chain import Web3Chain, connect
from servicekit.auth.discovery import fetch
from servicekit.database import engine, run_in_transaction
from servicekit.errors import Unavailable
from servicekit.eventlog._kafka_clients import opened
from servicekit.eventlog._kafka_consumer import unavailable
from servicekit.heartbeats import Heartbeat
from servicekit.http_client import HttpClient, HttpError
from servicekit.testing.waiting import eventually
from trainer.jobs.ray_jobs import RayJobs
from trainer.jobs.runner import RunnerUnavailable

pytestmark = pytest.mark.slow

SECRET = "5f2c9d1e77"
ARTIFACTS = Path(__file__).resolve().parents[2] / "contracts" / "build"


@pytest.fixture
def silent() -> Iterator[str]:
    """A process that has stopped: the system accepts its connections, and nothing answers. Yields host:port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def reported(error: Exception) -> str:
    """Returns what /readyz shows of a loop that fails so."""
    heartbeat = Heartbeat("some loop")
    heartbeat.failed(error)
    trouble = heartbeat.trouble()
    heartbeat.close()
    assert trouble is not None
    return trouble.on


def chain(address: str) -> None:
    names = ("token", "ledger", "registry", "distributor")
    deployment = Deployment(chain_id=31337, first_block=0, **dict.fromkeys(names, "0x" + "11" * 20))
    url = f"http://user:{SECRET}@{address}/v3/{SECRET}"
    Web3Chain(connect(url, timeout_s=0.2), deployment, ARTIFACTS).block("latest")


def ray(address: str) -> None:
    RayJobs(f"http://{address}", lambda: SECRET, 0.2).status("job")


def http(address: str) -> None:
    HttpClient(0.2).exchange("GET", f"http://{address}/{SECRET}")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (chain, ChainUnavailable, "eth_getBlockByNumber at http://{}: no whole answer within 0.2 s"),
        (ray, RunnerUnavailable, "Ray at http://{}: GET /api/jobs/job: no whole answer within 0.2 s"),
        (http, HttpError, "http://{}: no whole answer within 0.2 s"),
    ],
)
def test_a_peer_that_does_not_answer_is_named(
    silent: str, call: Callable[[str], None], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as failed:
        call(silent)
    assert reported(failed.value) == says.format(silent)


def test_a_peer_that_refuses_is_named() -> None:
    with pytest.raises(OSError, match=r"^http://127\.0\.0\.1:1: ConnectError"):
        fetch(f"http://127.0.0.1:1/{SECRET}")


@pytest.mark.parametrize("url", [f"http://h:{SECRET}/", f"ftp://user:{SECRET}@h/"])
def test_a_url_that_cannot_be_used_is_not_quoted(url: str) -> None:
    with pytest.raises(HttpError) as failed:
        HttpClient().exchange("GET", url)
    assert SECRET not in str(failed.value)


def test_a_database_that_is_down_is_named_to_operators_and_not_to_callers() -> None:
    with pytest.raises(Unavailable) as failed:
        run_in_transaction(
            engine(f"postgresql://user:{SECRET}@127.0.0.1:1/name"),
            lambda session: session.execute(text("SELECT 1")),
        )
    assert "127.0.0.1" in reported(failed.value)
    assert SECRET not in reported(failed.value)
    assert "127.0.0.1" not in failed.value.message


def test_brokers_are_named() -> None:
    says = str(unavailable(["b1:9092", "b2:9092"], KafkaTimeoutError("no metadata")))
    assert says.startswith("Kafka at b1:9092, b2:9092: KafkaTimeoutError: ")


@pytest.mark.parametrize("kind", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_a_client_that_finds_no_broker_leaves_no_thread(silent: str, kind: type) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KafkaTimeoutError):
        opened(kind, bootstrap_servers=[silent], bootstrap_timeout_ms=200)

    def left() -> list[str]:
        return [each.name for each in set(threading.enumerate()) - before if each.name.startswith("kafka-io")]

    eventually(lambda: not left(), "the end of the client's thread")
