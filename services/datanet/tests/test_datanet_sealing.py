"""A seal that nobody waits for any longer makes no snapshot, and can be asked for again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from datanet.definition import Datanet
from datanet.entities import Contributor
from datanet.gate import GateItemsCache
from datanet.intake import Intake
from datanet.registry import Registry
from datanet.sealing import Sealing
from datanet.snapshot import SplitRule
from identity.names import ContributorName, DatanetName
from identity.snapshot import root
from servicekit.auth import Principal
from servicekit.database import engine, migrate, utc_now
from servicekit.errors import Cancelled
from servicekit.objects import ObjectStore
from servicekit.request_ids import UNNAMED, RequestId

OWNER = Principal("owner")
NAME = DatanetName("threat-intel")
RULE = SplitRule("salt")
REQUEST = RequestId("owner", "SealSnapshot", "request", "sha256:" + "0" * 64)


@pytest.fixture
def database(
    tmp_path: Path, database_url: str, datanet: Datanet, encode: Callable[..., bytes]
) -> Iterator[Engine]:
    """A Datanet with one record."""
    made = engine(database_url)
    migrate(made, "datanet")
    gate_items = GateItemsCache(ObjectStore(tmp_path / "objects"))
    registry = Registry(made, gate_items)
    registry.create(OWNER, datanet, UNNAMED)
    name = ContributorName("threat-intel", "alice")
    registry.register(OWNER, Contributor(str(name), "alice", "", "", datanet.licence, utc_now()), UNNAMED)
    Intake(made, gate_items).open(Principal("alice"), name).take([encode("The group lists processes.")])
    yield made
    made.dispose()


def test_a_cancelled_seal_leaves_no_snapshot_and_can_be_repeated(database: Engine, tmp_path: Path) -> None:
    objects = ObjectStore(tmp_path / "objects")
    sealing = Sealing(database, objects)

    def gone() -> None:
        raise Cancelled()

    with pytest.raises(Cancelled):
        sealing.seal(OWNER, NAME, RULE, REQUEST, gone)
    assert sealing.list(NAME, 0, "")[0] == []
    sealed = sealing.seal(OWNER, NAME, RULE, REQUEST, lambda: None)
    assert sealed.number == 1
    assert root(objects.get_bytes(sealed.records_digest)) == sealed.root


def test_a_service_that_restarts_answers_a_seal_it_made_before(database: Engine, tmp_path: Path) -> None:
    objects = ObjectStore(tmp_path / "objects")
    first = Sealing(database, objects).seal(OWNER, NAME, RULE, REQUEST, lambda: None)
    assert Sealing(database, objects).seal(OWNER, NAME, RULE, REQUEST, lambda: None) == first
