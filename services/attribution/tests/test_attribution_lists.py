"""Lists of indexes: pages that fit into a message, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest
from openledger.attribution.v1 import attribution_pb2 as pb
from sqlalchemy.orm import Session

from attribution import convert, store
from servicekit.database import engine, migrate, reading, transaction, utc_now
from servicekit.lists import Query
from servicekit.server.grpc_server import MAX_SEND_BYTES
from servicekit.testing.services import DATABASE_KINDS, Databases


@pytest.mark.parametrize("kind", DATABASE_KINDS)
def test_a_page_of_indexes_with_long_errors_fits_into_a_message(kind: str, databases: Databases) -> None:
    sizes = (100, 100, 1_900_000, 100, 1_900_000)  # characters of two bytes
    with databases.empty(kind) as url:
        database = engine(url)
        migrate(database, "attribution")
        with transaction(database) as session:
            for number, size in enumerate(sizes):
                _add_index(session, number, "\u00e9" * size)
        pages: list[list[str]] = []
        token = ""
        while token or not pages:
            with reading(database) as session:
                page = store.indexes(session, Query(page_token=token))
                message = pb.ListAttributionIndexesResponse(indexes=map(convert.index, page.items))
            assert message.ByteSize() < MAX_SEND_BYTES
            pages.append([index.model_version.rsplit("/", 1)[1] for index in message.indexes])
            token = page.next_page_token
        assert pages == [["0", "1"], ["2"], ["3"], ["4"]]
        database.dispose()


def _add_index(session: Session, number: int, error: str) -> None:
    now, digest = utc_now(), f"sha256:{number:064x}"
    name = f"models/m/versions/{number}"
    session.add(
        store.ModelVersionRow(
            name=name,
            version_digest=digest,
            base_digest=digest,
            adapter_digest=digest,
            training_manifest_digest=digest,
            published_at=now,
        )
    )
    session.flush()
    session.add(
        store.IndexRow(
            model_version=name, version_digest=digest, error=error, requested_at=now, not_before=now
        )
    )
