"""What the relay's tests share: a database, an object store, and a relay on a chain."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Engine

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests" / "support"))

from anvil import Anvil
from relay_rig import AnvilRig, FakeRig, Rig

from chain_relay.chain import LedgerState
from chain_relay.sealing import open_ledger
from servicekit.database import engine as open_engine
from servicekit.database import migrate, transaction

# Property tests measure truth, not time: on a busy machine an example may take long.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    """A migrated database of a ledger that nothing was committed to."""
    engine = open_engine(f"sqlite:///{tmp_path / 'relay.db'}")
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
def fake_rig(tmp_path: Path) -> Iterator[FakeRig]:
    """A relay on a chain in memory."""
    made = FakeRig(tmp_path)
    yield made
    made.close()


@pytest.fixture(params=["memory", pytest.param("anvil", marks=pytest.mark.server)])
def rig(request: pytest.FixtureRequest) -> Rig:
    """A relay on either chain: both keep the same promises."""
    found = request.getfixturevalue("fake_rig" if request.param == "memory" else "anvil_rig")
    assert isinstance(found, Rig)
    return found
