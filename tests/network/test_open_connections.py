"""Connections that send nothing, or too little, and too many of them: closed, bounded, and the log stays small."""

from __future__ import annotations

import logging
import socket
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from servicekit.address import Address
from servicekit.errors import DomainError
from servicekit.server import Service, operations
from servicekit.server.connections import BoundedProtocol
from servicekit.server.http_routes import get
from servicekit.settings import ServiceSettings
from servicekit.testing.services import running
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.slow

HEADER_S = 0.5
MOST = 40
MOST_PER_ADDRESS = 20


class Settings(ServiceSettings):
    service: ClassVar[str] = "datanet"


class Errors:
    def response(self, error: DomainError, status: int) -> Response:
        return PlainTextResponse(error.message, status)

    def event(self, error: DomainError) -> bytes:
        return b""


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


@pytest.fixture
def addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    monkeypatch.setattr(BoundedProtocol, "header_s", HEADER_S)
    settings = Settings(
        state_dir=tmp_path,
        auth_mode="development",
        max_http_connections=MOST,
        max_http_connections_per_address=MOST_PER_ADDRESS,
    )
    service = Service("datanet", settings, None)
    service.add_http([get("/", hello, public=True)], Errors(), 0)
    with running(service):
        assert service.address is not None
        yield service.address


@pytest.fixture
def address(addresses: Address) -> tuple[str, int]:
    """Of the HTTP API."""
    assert addresses.http is not None
    return host_and_port(addresses.http)


def host_and_port(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host, int(port)


def opened(address: tuple[str, int], source: str, sends: bytes = b"") -> socket.socket:
    connection = socket.create_connection(address, timeout=LONGEST_S, source_address=(source, 0))
    if sends:
        connection.sendall(sends)
    return connection


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def is_answered(address: tuple[str, int], path: bytes = b"/") -> bool:
    """Returns whether the address that had too many connections has a request answered."""
    try:
        with opened(address, "127.0.0.2", b"GET " + path + b" HTTP/1.0\r\n\r\n") as connection:
            return b" 200 " in connection.recv(100)
    except OSError:  # the server has not seen the end of the others yet
        return False


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: h\r\nX: "])
def test_a_connection_without_a_whole_request_is_closed(address: tuple[str, int], sent: bytes) -> None:
    begun = time.monotonic()
    with opened(address, "127.0.0.2", sent) as connection:
        assert closed(connection)
    assert time.monotonic() - begun > HEADER_S / 2  # not at once


def test_headers_that_drip_do_not_extend_the_time(address: tuple[str, int]) -> None:
    with opened(address, "127.0.0.2", b"GET / HTTP/1.1\r\n") as connection:

        def refused() -> bool:
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        eventually(refused, "the end of a connection that drips")


def test_one_address_cannot_take_the_connections_of_others(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "header_s", 600.0)  # those that are admitted stay
    with caplog.at_level(logging.WARNING):
        held = [opened(address, "127.0.0.2") for _ in range(MOST_PER_ADDRESS * 3)]
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/", timeout=LONGEST_S) as answer:
            assert answer.read() == b"hello"
        refused = eventually(
            lambda: [each for each in caplog.records if "too many connections" in each.getMessage()],
            "the refusals in the log",
        )
    assert len(refused) == 1
    assert all(map(closed, held[MOST_PER_ADDRESS:]))
    for connection in held:
        connection.close()
    eventually(partial(is_answered, address), "a connection from the same address")


def test_one_address_cannot_keep_others_from_metrics_and_readiness(
    addresses: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "REQUEST_S", 600.0)  # those that are admitted stay
    metrics = host_and_port(addresses.metrics)
    held = [opened(metrics, "127.0.0.2") for _ in range(100)]
    with urllib.request.urlopen(f"http://{addresses.metrics}/healthz", timeout=LONGEST_S) as answer:
        assert answer.status == 200
    assert all(map(closed, held[32:]))
    for connection in held:
        connection.close()
    eventually(partial(is_answered, metrics, b"/healthz"), "a connection from the same address")
