"""Connections that send nothing, or too little, and too many of them: closed, bounded, and the log stays small."""

from __future__ import annotations

import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from servicekit.errors import DomainError
from servicekit.server import Service
from servicekit.server.connections import BoundedProtocol
from servicekit.server.http_routes import get
from servicekit.settings import ServiceSettings
from servicekit.testing.services import running

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
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
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
        assert service.address.http is not None
        host, port = service.address.http.rsplit(":", 1)
        yield host, int(port)


def opened(address: tuple[str, int], source: str, sends: bytes = b"") -> socket.socket:
    connection = socket.create_connection(address, timeout=10, source_address=(source, 0))
    if sends:
        connection.sendall(sends)
    return connection


def closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: h\r\nX: "])
def test_a_connection_without_a_whole_request_is_closed(address: tuple[str, int], sent: bytes) -> None:
    begun = time.monotonic()
    with opened(address, "127.0.0.2", sent) as connection:
        assert closed(connection)
    assert HEADER_S / 2 < time.monotonic() - begun < 5


def test_headers_that_drip_do_not_extend_the_time(address: tuple[str, int]) -> None:
    begun, pause = time.monotonic(), threading.Event()
    with opened(address, "127.0.0.2", b"GET / HTTP/1.1\r\n") as connection:

        def drip() -> None:
            while time.monotonic() - begun < 10:
                connection.sendall(b"x")
                pause.wait(0.05)

        with pytest.raises(OSError):
            drip()
    assert time.monotonic() - begun < 5


def test_one_address_cannot_take_the_connections_of_others(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        held = [opened(address, "127.0.0.2") for _ in range(MOST_PER_ADDRESS * 3)]
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/", timeout=5) as answer:
            assert answer.read() == b"hello"
    refused = [record for record in caplog.records if "too many connections" in record.getMessage()]
    assert len(refused) == 1
    for connection in held:  # refused at once, or closed after the time for a request
        assert closed(connection)
        connection.close()
    with opened(address, "127.0.0.2", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
