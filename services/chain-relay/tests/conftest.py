"""What the relay's tests share: a database, an object store, and a relay on a chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from chain_relay.chain import LedgerState
from chain_relay.sealing import open_ledger
from openledger_testing.anvil import Anvil
from openledger_testing.relay_rig import AnvilRig, FakeRig, Rig
from servicekit.database import engine as open_engine
from servicekit.database import migrate, transaction
from servicekit.testing.services import Databases


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """A migrated database, of each kind, of a ledger that nothing was committed to."""
    engine = open_engine(database_url)
    migrate(engine, "chain_relay")
    with transaction(engine) as session:
        open_ledger(session, 31337, "0x" + "11" * 20, LedgerState(0, 0))
    yield engine
    engine.dispose()


@pytest.fixture
def anvil_rig(tmp_path: Path) -> Iterator[AnvilRig]:
    """A relay on a real chain, which mines when the test says so."""
    with Anvil() as node:
        made = AnvilRig(tmp_path, node)
        yield made
        made.close()


@pytest.fixture
def fake_rig(tmp_path: Path, database_url: str) -> Iterator[FakeRig]:
    """A relay on a chain in memory, on each kind of database."""
    made = FakeRig(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture(
    params=[
        ("memory", "sqlite"),
        pytest.param(("memory", "postgresql"), marks=pytest.mark.server),
        pytest.param(("anvil", "sqlite"), marks=pytest.mark.server),
    ],
    ids="-".join,
)
def rig(request: pytest.FixtureRequest, tmp_path: Path, databases: Databases) -> Iterator[Rig]:
    """A relay on either chain and either database: all keep the same promises."""
    chain, kind = request.param
    if chain == "anvil":
        yield request.getfixturevalue("anvil_rig")
        return
    with databases.empty(kind) as url:
        made = FakeRig(tmp_path, url)
        yield made
        made.close()
