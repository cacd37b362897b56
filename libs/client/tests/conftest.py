"""A client of a scripted server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openledger_client import Addresses, Client
from openledger_client.calls import Policy
from openledger_client.services import ALL
from openledger_client.testing import Script, scripted_server


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def waits() -> list[float]:
    """Seconds that the client would have waited between attempts; its clock is their sum."""
    return []


@pytest.fixture
def addresses(script: Script) -> Iterator[Addresses]:
    with scripted_server(script) as address:
        yield Addresses(given={service.name: address for service in ALL})


@pytest.fixture
def client(addresses: Addresses, waits: list[float]) -> Iterator[Client]:
    with Client(
        addresses, token="secret", policy=Policy(sleep=waits.append, clock=lambda: sum(waits))
    ) as opened:
        yield opened
