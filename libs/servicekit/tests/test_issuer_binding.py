"""A database belongs to the subjects of one issuer, on SQLite and on PostgreSQL."""

from __future__ import annotations

import pytest

from servicekit.database import engine
from servicekit.database.issuer import bind_issuer
from servicekit.errors import StartupError


def test_a_database_keeps_its_issuer_until_an_operator_replaces_it(database_url: str) -> None:
    database = engine(database_url)
    for _ in range(2):
        bind_issuer(database, "bakery", "https://first.example")
    with pytest.raises(StartupError, match=r"OPENLEDGER_AUTH_ISSUER_REPLACES=https://first\.example"):
        bind_issuer(database, "bakery", "https://second.example")
    with pytest.raises(StartupError, match=r"the issuer 'https://first\.example'"):
        bind_issuer(database, "bakery", "https://second.example", replaces="https://zeroth.example")
    bind_issuer(database, "bakery", "https://second.example", replaces="https://first.example")
    bind_issuer(database, "bakery", "https://second.example")
    with pytest.raises(StartupError, match=r"the issuer 'https://second\.example'"):
        bind_issuer(database, "bakery", "https://first.example")
    database.dispose()
