"""Addresses of nodes and databases hold keys and passwords: no error quotes them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from chain_relay.chain import ChainUnavailable
from chain_relay.contracts import Deployment
from chain_relay.web3_chain import Web3Chain, connect
from servicekit.database import engine
from servicekit.errors import StartupError

SECRET = "5f2c9d1e77"


@pytest.fixture
def unreachable() -> Iterator[str]:
    """An address where no server listens: its port is taken, by a socket that accepts nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{probe.getsockname()[1]}/v3/{SECRET}"


def test_an_unreachable_node_is_named_without_its_key(unreachable: str) -> None:
    w3 = connect(unreachable, timeout_s=1)
    artifacts = Path(__file__).resolve().parents[2] / "contracts" / "build"
    address = "0x" + "11" * 20
    fields = dict.fromkeys(("token", "ledger", "registry", "distributor"), address)
    chain = Web3Chain(w3, Deployment(chain_id=31337, first_block=0, **fields), artifacts)
    with pytest.raises(ChainUnavailable) as refused:
        chain.block("latest")
    assert SECRET not in str(refused.value)


def test_a_database_url_that_cannot_be_read_is_not_shown() -> None:
    with pytest.raises(StartupError) as refused:
        engine(f"postgresql//user:{SECRET}@host/name")
    assert SECRET not in str(refused.value)
