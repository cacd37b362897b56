"""What tests of who may do what share: all services, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openledger_testing.all_services import AllServices


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AllServices]:
    """Five services; tests of one session share them."""
    with AllServices(tmp_path_factory.mktemp("notes")) as made:
        yield made
