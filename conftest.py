"""What tests of every package share: an empty database of each kind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servicekit.testing import DATABASE_KINDS, Databases


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """Makes empty databases; one PostgreSQL for the whole session, started for the first that asks."""
    made = Databases()
    yield made
    made.close()


@pytest.fixture(params=DATABASE_KINDS)
def database_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """The URL of an empty database of each kind. A conftest below may say the same for a wider scope."""
    with databases.empty(request.param) as url:
        yield url
