"""What tests of every package share: an empty database of each kind, and the order of a run."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

os.environ.setdefault(
    "GRPC_ENABLE_FORK_SUPPORT", "0"
)  # before grpc is imported: its handlers can crash a fork's child

import pytest
from hypothesis import HealthCheck, settings

from openledger_testing.shared_server import run_folder, shared_server
from servicekit import collector
from servicekit.testing.services import DATABASE_KINDS, Databases, postgresql_url

# Property tests measure truth, not time: on a busy machine an example may take long. `make test` draws the same examples each
# time, so that what is green stays green; every other run of pytest draws new ones.
settings.register_profile(
    "any machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("PROPERTY_EXAMPLES") == "same",
)
settings.load_profile("any machine")

pytest_plugins = ["openledger_testing.cpu_by_file"]

_FIRST = (
    "tests/e2e/",
    "tests/faults/test_faults.py",
    "services/trainer/tests/test_trainer_ray.py",
    "tests/crash/",
    "services/inference/tests/test_inference_process.py",
)
"""The longest: a run ends soonest when they begin first and everything else fills the other workers."""


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Makes empty databases; one PostgreSQL for the whole run, started for the first test that asks."""
    folder = run_folder(tmp_path_factory)
    made = Databases(lambda: shared_server(folder, "postgresql", postgresql_url))
    yield made
    made.close()


@pytest.fixture(params=DATABASE_KINDS)
def database_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """The URL of an empty database of each kind. A conftest below may say the same for a wider scope."""
    with databases.empty(request.param) as url:
        yield url


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps what imports leave, a million objects, out of every later garbage collection."""
    with collector.paused():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest tests first, and gives a file's slow tests to one worker, which makes their shared fixtures once."""
    items.sort(key=_rank)
    for item in items:
        if item.get_closest_marker("story"):
            item.add_marker(pytest.mark.xdist_group("stories"))  # one platform at a time
        elif item.get_closest_marker("server") or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


def _rank(item: pytest.Item) -> tuple[int, int]:
    """Stable among equals: files stay together, in the order of their names."""
    long = next((place for place, start in enumerate(_FIRST) if item.nodeid.startswith(start)), len(_FIRST))
    return (long, not (item.get_closest_marker("server") or item.get_closest_marker("slow")))
