"""Clients that speak HTTP (Ray, the chain's node, an issuer's keys) behind a network that fails.

The deadlines are shortened to half a second here; `make faults` has the real ones.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from web3.types import RPCEndpoint

from chain_relay.rpc import BoundedProvider
from openledger_ops.chain import ChainError, Node
from openledger_ops.doctor.observation import observe
from openledger_ops.doctor.service_checks import service_findings
from openledger_testing.network_faults import FaultyProxy, Mode
from servicekit.auth import discovery
from servicekit.http_client import HttpClient, HttpError, HttpTooLarge
from servicekit.server import Service
from servicekit.server.loops import repeat
from servicekit.settings import ServiceSettings
from servicekit.testing.services import running
from servicekit.testing.waiting import eventually
from trainer.jobs.ray_jobs import RayJobs
from trainer.jobs.runner import JobStatus, RunnerUnavailable

LIMIT_S = 0.5
ANSWER = json.dumps({"jsonrpc": "2.0", "id": 1, "result": "0x7a69", "status": "RUNNING", "keys": []}).encode()


class Peer:
    """Answers every request with one document that all of these clients accept."""

    def __init__(self) -> None:
        self.answered = 0
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                peer.answered += 1
                self.send_response(200)
                self.send_header("content-length", str(len(ANSWER)))
                self.end_headers()
                self.wfile.write(ANSWER)

            do_POST = do_GET

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    running = Peer()
    yield running
    running.close()


@pytest.fixture
def proxy(peer: Peer) -> Iterator[FaultyProxy]:
    with FaultyProxy(peer.port, delay_s=2.0, drip_every_s=0.05) as running:
        yield running


def ray(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[], Any], type[Exception]]:
    jobs = RayJobs(url, timeout_s=LIMIT_S)

    def call() -> None:
        assert jobs.status("a-job") is JobStatus.RUNNING

    return call, RunnerUnavailable


def chain(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[], Any], type[Exception]]:
    provider = BoundedProvider(url, LIMIT_S)
    return lambda: provider.make_request(RPCEndpoint("eth_chainId"), []), requests.RequestException


def operators_chain(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[], Any], type[Exception]]:
    return Node(url, LIMIT_S).chain_id, ChainError


def signing_keys(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[], Any], type[Exception]]:
    monkeypatch.setattr(discovery, "_client", HttpClient(LIMIT_S))
    return lambda: discovery.fetch(url), OSError


def works(call: Callable[[], Any], error: type[Exception]) -> bool:
    """Returns whether the call succeeds. Its connection may be that of a former peer, and a busy machine is slow."""
    with suppress(error):
        call()
        return True
    return False


CASES = [(chain, each) for each in Mode if each is not Mode.PASS]
CASES += [(each, mode) for each in (ray, operators_chain, signing_keys) for mode in (Mode.HOLE, Mode.DRIP)]


@pytest.mark.parametrize(("client", "mode"), CASES)
def test_a_call_ends_in_time_and_works_after_the_fault(
    client: Callable[..., tuple[Callable[[], Any], type[Exception]]],
    proxy: FaultyProxy,
    mode: Mode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, error = client(f"http://127.0.0.1:{proxy.port}", monkeypatch)
    eventually(lambda: works(call, error))
    threads = set(threading.enumerate())
    proxy.strike(mode)
    with pytest.raises(error):
        call()
    proxy.heal()
    eventually(lambda: works(call, error), "a call that succeeds")

    def left() -> set[str]:
        names = {each.name for each in set(threading.enumerate()) - threads}
        return {name for name in names if name != "faulty proxy" and "process_request" not in name}

    eventually(lambda: not left(), "the end of the call's threads")


def test_a_peer_that_was_replaced_is_reached_over_another_connection(proxy: FaultyProxy) -> None:
    client = HttpClient(LIMIT_S)
    url = f"http://127.0.0.1:{proxy.port}"

    def call() -> None:
        assert client.exchange("GET", url).status == 200

    eventually(lambda: works(call, HttpError))
    other = Peer()
    proxy.replace(other.port)
    with pytest.raises(HttpError):
        call()
    eventually(lambda: works(call, HttpError))
    other.close()


@pytest.mark.parametrize("client", [chain, ray, operators_chain, signing_keys])
def test_each_client_reaches_the_peer_in_place_of_a_replaced_one(
    client: Callable[..., tuple[Callable[[], Any], type[Exception]]],
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, error = client(f"http://127.0.0.1:{proxy.port}", monkeypatch)

    eventually(lambda: works(call, error))
    other = Peer()
    proxy.replace(other.port)
    eventually(lambda: works(call, error) and other.answered > 0)
    other.close()


@pytest.mark.parametrize("client", [chain, ray, signing_keys])
def test_readiness_metrics_doctor_and_log_name_the_loop_meanwhile(
    client: Callable[..., tuple[Callable[[], Any], type[Exception]]],
    proxy: FaultyProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    call, error = client(f"http://127.0.0.1:{proxy.port}", monkeypatch)
    name = f"{client.__name__} loop"
    service = Service("datanet", ServiceSettings(state_dir=tmp_path, auth_mode="development"), None)
    loop = repeat(call, 0.02, name=name, expected=(error,), longest_delay_s=0.1, bound_s=LIMIT_S / 2)
    service.add_thread(name, loop)
    proxy.strike(Mode.HOLE)
    with running(service), caplog.at_level(logging.WARNING):
        assert service.address is not None

        def seen() -> tuple[set[str], float]:
            """The levels of the doctor's findings about the loop, and the metric that it reads."""
            assert service.address is not None
            found = observe("datanet", service.address.grpc, service.address.metrics)
            levels = {
                finding.level
                for finding in service_findings(found)
                if finding.check == "loops" and finding.detail.startswith(name)
            }
            samples = found.samples
            failing_s = samples and samples.value("openledger_loop_failing_seconds", loop=name)
            return levels, failing_s or 0.0

        eventually(lambda: seen()[1] > 0)
        eventually(lambda: "warning" in seen()[0])  # between two tries
        eventually(lambda: "problem" in seen()[0])  # within one, beyond its bound
        assert [record for record in caplog.records if record.getMessage().startswith(f"{name} waits")]
        proxy.heal()
        eventually(lambda: seen() == (set(), 0.0))


def test_an_answer_that_is_too_long_is_refused(peer: Peer) -> None:
    with pytest.raises(HttpTooLarge):
        HttpClient(max_bytes=10).exchange("GET", f"http://127.0.0.1:{peer.port}")
