"""A change asked for twice under one request id is made once, and the id is forgotten when its time is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message
from openledger.datanet.v1 import datanet_pb2
from sqlalchemy import Engine, MetaData, text

from servicekit.database import engine, transaction
from servicekit.database.request_ids import RequestId, add_request_ids, prune
from servicekit.errors import AlreadyExists


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Engine]:
    metadata = MetaData()
    add_request_ids(metadata)
    made = engine(f"sqlite:///{tmp_path}/service.db")
    metadata.create_all(made)
    yield made
    made.dispose()


def seal(request_id: str, parent: str = "datanets/here") -> Message:
    return datanet_pb2.SealSnapshotRequest(parent=parent, request_id=request_id)


def make(database: Engine, asked: RequestId, resource: str) -> str:
    """What a service does in its transaction."""
    with transaction(database) as session:
        done = asked.made(session)
        if done is not None:
            return done
        asked.remember(session, resource)
        return resource


def test_a_repeat_answers_what_was_made_and_another_content_is_refused(database: Engine) -> None:
    asked = RequestId.of("ann", seal("one"))
    assert (asked.method, asked.id) == ("SealSnapshot", "one")
    assert make(database, asked, "first") == "first"
    assert make(database, RequestId.of("ann", seal("one")), "second") == "first"
    with pytest.raises(AlreadyExists):
        make(database, RequestId.of("ann", seal("one", "datanets/there")), "third")


def test_ids_belong_to_their_principal_and_method(database: Engine) -> None:
    make(database, RequestId.of("ann", seal("one")), "first")
    assert make(database, RequestId.of("bob", seal("one")), "of bob") == "of bob"
    other = datanet_pb2.CreateDatanetRequest(request_id="one")
    assert make(database, RequestId.of("ann", other), "of another method") == "of another method"


def test_without_an_id_each_call_is_its_own(database: Engine) -> None:
    asked = RequestId.of("ann", seal(""))
    assert [make(database, asked, name) for name in ("a", "b")] == ["a", "b"]
    with transaction(database) as session:
        assert session.execute(text("SELECT count(*) FROM request_ids")).scalar() == 0


def _age(database: Engine, by_s: float) -> None:
    with transaction(database) as session:
        session.execute(text(f"UPDATE request_ids SET created_ms = created_ms - {int(by_s * 1000)}"))


def test_an_id_is_kept_for_its_time_and_not_longer(database: Engine) -> None:
    asked = RequestId.of("ann", seal("one"))
    make(database, asked, "first")
    _age(database, 100)
    with transaction(database) as session:
        assert prune(session, older_than_s=110) == 0
    assert make(database, asked, "second") == "first"
    with transaction(database) as session:
        assert prune(session, older_than_s=90) == 1
    assert make(database, asked, "second") == "second"
