"""A trace collector behind a network that fails: nothing waits for it, and it is named meanwhile."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from openledger_testing.network_faults import FaultyProxy, Mode
from openledger_testing.trace_collector import Collector
from servicekit import heartbeats
from servicekit.telemetry.export import Export
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.server

LIMIT_S = 0.5
GRACE_S = 60.0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


@pytest.fixture
def proxy(collector: Collector) -> Iterator[FaultyProxy]:
    with FaultyProxy(int(collector.endpoint.rsplit(":", 1)[1]), drip_every_s=0.05) as running:
        yield running


def failing() -> bool:
    return any(each.loop == "trace collector" for each in heartbeats.troubles())


@pytest.mark.parametrize("mode", [Mode.VANISH, Mode.DRIP, Mode.RESET])
def test_an_export_ends_in_time_and_the_next_one_succeeds_after_the_fault(
    proxy: FaultyProxy, mode: Mode
) -> None:
    export = Export(f"http://127.0.0.1:{proxy.port}", LIMIT_S)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.processor)
    tracer = provider.get_tracer("test")

    def send() -> bool:
        with tracer.start_as_current_span("work"):
            pass
        return export.flush(LONGEST_S)

    eventually(lambda: send() and not failing(), "an export")
    proxy.strike(mode)
    assert send()
    if mode is not Mode.RESET:  # then the exporter's second attempt may come through
        eventually(failing, "the collector to be named")
    proxy.heal()
    eventually(lambda: send() and not failing(), "an export")
    export.close(1)


def test_spans_reach_the_collector_in_place_of_a_replaced_one(proxy: FaultyProxy) -> None:
    """Between the two another process answers at the address, which does not speak OTLP."""
    export = Export(f"http://127.0.0.1:{proxy.port}", LIMIT_S)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(export.processor)

    def sent(condition: Callable[[], bool]) -> bool:
        with provider.get_tracer("test").start_as_current_span("work"):
            pass
        export.flush(10)
        return condition()

    with Collector() as second, socket.create_server(("127.0.0.1", 0)) as stranger:
        proxy.replace(stranger.getsockname()[1])
        eventually(lambda: sent(failing), "the collector is named")
        proxy.replace(int(second.endpoint.rsplit(":", 1)[1]))
        eventually(
            lambda: sent(lambda: bool(second.spans) and not failing()), "the second collector has spans"
        )
    export.close(1)


PROGRAM = """
import sys
from typing import ClassVar
from servicekit.server import Service, serve
from servicekit.settings import ServiceSettings
from servicekit.telemetry.traces import tracer

class DatanetSettings(ServiceSettings):
    service: ClassVar[str] = "datanet"

def build(settings):
    service = Service("datanet", settings, None)
    for _ in range(2000):
        with tracer.start_as_current_span("work"):
            pass
    return service

sys.exit(serve(DatanetSettings, build))
"""


def test_a_service_stops_within_its_grace_while_the_collector_is_dead(
    proxy: FaultyProxy, tmp_path: Path
) -> None:
    proxy.strike(Mode.VANISH)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            "PATH": "",
            "OPENLEDGER_STATE_DIR": str(tmp_path),
            "OPENLEDGER_AUTH_MODE": "development",
            "OPENLEDGER_GRACE_S": str(GRACE_S),
            "OPENLEDGER_OTLP_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
        },
    )
    assert process.stdout is not None
    assert "ready" in process.stdout.readline()
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONGEST_S) == 0
    assert time.monotonic() - begun < GRACE_S
